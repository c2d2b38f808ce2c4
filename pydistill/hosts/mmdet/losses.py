"""mmdetection's loss modules over the kernels: same names, arguments and numbers."""

from typing import Any

import torch
from torch import Tensor, nn

from pydistill.ops import (
    softmax_kl,
)

EPS = torch.finfo(torch.float32).eps  # mmdet adds it to every avg_factor


class _Loss(nn.Module):
    """What all of mmdet's losses share: ``reduction``, ``loss_weight`` and the arguments of ``forward``."""

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0):
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f'{type(self).__name__}: expected reduction "none", "mean" or "sum", got {reduction!r}')
        self.reduction, self.loss_weight = reduction, loss_weight

    def _options(
        self, weight: Tensor | None, avg_factor: float | Tensor | None, override: str | None
    ) -> dict[str, Any]:
        reduction = override or self.reduction
        if reduction == "none":  # mmdet divides no rows
            avg_factor = None
        return {
            "weight": weight,
            "reduction": reduction,
            "avg_factor": None if avg_factor is None else avg_factor + EPS,
        }


class KnowledgeDistillationKLDivLoss(_Loss):
    r"""``T^2`` times the mean over the bins of the divergence of two softmaxes: :func:`pydistill.ops.softmax_kl`.

    ``forward(pred, soft_label)`` takes logits whose bins are dimension 1, ``(N, n)`` or ``(N, C, H, W)``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        loss_weight: what the result is multiplied by.
        T: the temperature, not below 1.
    """

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0, T: float = 10):
        super().__init__(reduction, loss_weight)
        if T < 1:
            raise ValueError(f"KnowledgeDistillationKLDivLoss: expected T >= 1, got {T}")
        self.T = T

    def forward(
        self,
        pred: Tensor,
        soft_label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss of the rows that ``weight`` counts, reduced as mmdet does."""
        options = self._options(weight, avg_factor, reduction_override)
        return self.loss_weight * softmax_kl(pred, soft_label, temperature=self.T, dim=1, bins="mean", **options)
