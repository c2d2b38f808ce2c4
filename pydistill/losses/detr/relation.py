"""The learned head of the relation term."""

from torch import Tensor, nn


class RelationHead(nn.Module):
    """Brings the queries of student and teacher into one space, each by a network of its own.

    Each is Linear, Linear, BatchNorm, ReLU, Linear, as the released code has it. The statistics are those of one
    process; ``SyncBatchNorm.convert_sync_batchnorm`` joins them.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.width = width
        self.student, self.teacher = _projection(width, hidden), _projection(width, hidden)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Of (N, width) and (M, width): (N, hidden) and (M, hidden), of the parameters' dtype."""
        student, teacher = (x.to(next(self.parameters()).dtype) for x in (student, teacher))
        return self.student(student), self.teacher(teacher)


def _projection(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden),
    )
