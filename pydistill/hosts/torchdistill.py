"""Losses in torchdistill's configurations: ``dependencies: [pydistill.hosts.torchdistill]`` registers them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pydistill import ops
from pydistill.losses import SADLoss

try:
    from torchdistill.losses.registry import register_mid_level_loss
except ImportError as error:
    message = "pydistill.hosts.torchdistill: expected torchdistill, not installed here; pip install torchdistill"
    raise ImportError(message) from error

__all__ = ["AttentionLoss", "PairLoss"]

Modules = Mapping[str, Mapping[str, Any]]

PAIRS: dict[str, Callable[..., Tensor]] = {
    "softmax_kl": ops.softmax_kl,
    "attention_distillation_loss": ops.attention_distillation_loss,
    "energy_distillation_loss": ops.energy_distillation_loss,
    "info_nce_loss": ops.info_nce_loss,
}


class PairLoss(nn.Module):
    """``pydistill.PairLoss``: one of ``PAIRS``, between a tensor of the student and one of the teacher.

    Args:
        name: which operator; its first two arguments are the tensors.
        student_module_path: path of a module of the student that ``forward_hook`` names.
        teacher_module_path: the same of the teacher; None: the student's path.
        student_module_io: "output" or "input" of it.
        teacher_module_io: "output" or "input".
        options: the operator's. Without ``reduction`` the mean over rows is taken of what has rows.

    Raises:
        ValueError: For another operator.
    """

    def __init__(
        self,
        name: str,
        student_module_path: str,
        teacher_module_path: str | None = None,
        student_module_io: str = "output",
        teacher_module_io: str = "output",
        **options: Any,
    ):
        super().__init__()
        if name not in PAIRS:
            raise ValueError(f"PairLoss: expected name in {tuple(PAIRS)}, got {name!r}")
        self.name, self.options = name, options
        self.student = student_module_path, student_module_io
        self.teacher = teacher_module_path or student_module_path, teacher_module_io

    def forward(self, student_io_dict: Modules, teacher_io_dict: Modules, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of what torchdistill recorded in a step."""
        student, teacher = _recorded(student_io_dict, self.student), _recorded(teacher_io_dict, self.teacher)
        return PAIRS[self.name](student, teacher, **self.options).mean()


class AttentionLoss(nn.Module):
    """``pydistill.SADLoss``: self attention distillation among modules of the student; there may be no teacher.

    Args:
        module_paths: modules that ``forward_hook`` names, shallow to deep.
        module_io: "output" or "input" of them.
        options: of ``pydistill.losses.SADLoss``.
    """

    def __init__(self, module_paths: Sequence[str], module_io: str = "output", **options: Any):
        super().__init__()
        self.places = [(path, module_io) for path in module_paths]
        self.loss = SADLoss(**options)

    def forward(self, student_io_dict: Modules, *args: Any, **kwargs: Any) -> Tensor:
        """The sum of the pairs."""
        losses = self.loss([_recorded(student_io_dict, place) for place in self.places])
        return torch.stack(list(losses.values())).sum()


register_mid_level_loss(PairLoss, key="pydistill.PairLoss")
register_mid_level_loss(AttentionLoss, key="pydistill.SADLoss")


def _recorded(modules: Modules, place: tuple[str, str]) -> Tensor:
    path, io = place
    if path not in modules:
        raise ValueError(
            f"pydistill.hosts.torchdistill: expected {path!r} in the configuration's forward_hook, got {list(modules)}"
        )
    value: Tensor = modules[path][io]
    return value
