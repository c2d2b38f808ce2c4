"""mmdetection's loss modules over the kernels: same names, arguments and numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pydistill.ops import (
    ciou_loss,
    diou_loss,
    distribution_focal_loss,
    giou_loss,
    quality_focal_loss,
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


class QualityFocalLoss(_Loss):
    """:func:`pydistill.ops.quality_focal_loss` of logits ``(N, C)`` and a pair of labels and scores, ``(N,)`` each.

    Args:
        use_sigmoid: True.
        beta: the exponent.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        loss_weight: what the result is multiplied by.
        activated: whether ``pred`` holds probabilities.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ):
        super().__init__(reduction, loss_weight)
        if not use_sigmoid:
            raise ValueError(
                "QualityFocalLoss: expected use_sigmoid=True, got False; activated=True takes probabilities"
            )
        self.use_sigmoid, self.beta, self.activated = use_sigmoid, beta, activated

    def forward(
        self,
        pred: Tensor,
        target: tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss of the rows, reduced as mmdet does."""
        if isinstance(target, Tensor):
            raise TypeError("QualityFocalLoss: expected a pair of labels and scores, got a tensor of soft labels")
        options = self._options(weight, avg_factor, reduction_override)
        return self.loss_weight * quality_focal_loss(pred, *target, beta=self.beta, activated=self.activated, **options)


class DistributionFocalLoss(_Loss):
    """:func:`pydistill.ops.distribution_focal_loss` of logits ``(N, n)`` and targets ``(N,)`` in bins.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        loss_weight: what the result is multiplied by.
    """

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss of the rows, reduced as mmdet does."""
        options = self._options(weight, avg_factor, reduction_override)
        return self.loss_weight * distribution_focal_loss(pred, target, **options)


class _BoxLoss(_Loss):
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, eps: float = 1e-6, reduction: str = "mean", loss_weight: float = 1.0):
        super().__init__(reduction, loss_weight)
        self.eps = eps

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss of boxes ``(N, 4)``, reduced as mmdet does; of weights ``(N, 4)`` the mean counts."""
        if weight is not None and weight.dim() > 1:
            weight = weight.mean(-1)
        options = self._options(weight, avg_factor, reduction_override)
        return self.loss_weight * type(self).function(pred, target, eps=self.eps, **options)


class GIoULoss(_BoxLoss):
    """:func:`pydistill.ops.giou_loss`, without mmdet's look at the weights, which waits for the device.

    Args:
        eps: the least area.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        loss_weight: what the result is multiplied by.
    """

    function = staticmethod(giou_loss)


class DIoULoss(_BoxLoss):
    """:func:`pydistill.ops.diou_loss`; see :class:`GIoULoss`."""

    function = staticmethod(diou_loss)


class CIoULoss(_BoxLoss):
    """:func:`pydistill.ops.ciou_loss`; see :class:`GIoULoss`."""

    function = staticmethod(partial(ciou_loss, alpha="mmdet"))
