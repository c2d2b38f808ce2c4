"""Distribution focal loss: the probabilities of the two bins around a continuous target."""

import torch
from torch import Tensor

from pydistill.ops import _check
from pydistill.ops._focal import check_rows, per_row, row_loss
from pydistill.ops._reduction import keeps_gradient, reduce_reference, reduction_of
from pydistill.ops._register import accumulator

_OP = "distribution_focal_loss"


def distribution_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    r"""The cross entropy between the distribution over n bins of each row and the two bins around its target.

    With :math:`p = \mathrm{softmax}(z)`, the target y and :math:`k = \lfloor y \rfloor`,

    .. math:: \ell = -w \big((k + 1 - y) \log p_k + (y - k) \log p_{k + 1}\big), \qquad
              \frac{\partial \ell}{\partial z_i} = w \big(p_i - \max(0, 1 - |y - i|)\big).

    Accumulates in float32, in float64 for float64.

    Args:
        logits: (..., n), z over the bins of values 0 .. n - 1, float64, float32, float16 or bfloat16. All dimensions
            but the last count rows: for boxes, locations and their four sides.
        target: y, of the logits' shape without the last dimension, in bins. Clamped to [0, n - 1]. A row whose target
            is not finite weighs 0. A constant.
        weight: w, one number per row: broadcasts to their shape. A constant, without gradient. A row of weight 0 is
            not read; its loss and its gradient are 0 whatever its logits are.
        reduction: ``"none"``: one loss per row. ``"sum"``. ``"mean"``: the sum over the number of rows, those of weight
            0 too, or over ``avg_factor``.
        avg_factor: What ``"mean"`` divides the sum by, a number or a tensor of one element that is read on its device.
            A constant. A sum of 0 over a factor of 0 is 0; with a factor of 0 the gradient is 0.

    Returns:
        The losses, of the logits' shape without the last dimension, or their scalar reduction; float64 for float64,
        else float32. A NaN logit makes its own row NaN. Results repeat bit for bit.

    Raises:
        ValueError: If a shape or an option is not one of the above; under ``pydistill.checking`` also for NaN and
            infinite logits and targets.
        TypeError: If a dtype is not one of the above.

    Reference:
        Li et al. 2020 (Generalized Focal Loss), arXiv:2006.04388, equation 6. mmdet clamps its targets to
        [0, n - 1.1] before the loss; here n - 1 itself is a target.
    """
    check_rows(_OP, logits, "n", target=target)
    target = per_row(_OP, "target", target, logits)
    how = reduction_of(_OP, logits, logits.shape[:-1], weight, reduction, avg_factor)
    if _check.enabled(logits, target):
        used = torch.ones_like(target, dtype=torch.bool) if how.weight is None else how.weight != 0
        _check.finite(_OP, "target", target, used)
        _check.finite(_OP, "logits", logits, used.unsqueeze(-1))
    keep = how.weight is None and keeps_gradient(logits)  # with a weight most rows are skipped, and packed
    options = how.factor, how.reduce, keep
    result: Tensor = _distribution_focal_loss(logits, target, how.weight, how.avg_factor, *options)
    return result


def distribution_focal_loss_reference(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    wide = accumulator(logits.dtype)
    z, y = logits.to(wide), target.detach().to(wide)
    n = z.shape[-1]
    skipped = ~y.isfinite()
    if weight is not None:
        skipped = skipped | (weight.detach().expand(y.shape) == 0)
    y = y.masked_fill(skipped, 0).clamp(0, n - 1)
    log_p = z.masked_fill(skipped.unsqueeze(-1), 0).log_softmax(-1)
    left = y.floor().clamp(max=max(n - 2, 0)).long()
    right = (left + 1).clamp(max=n - 1)
    near = y - left
    rows = (near - 1) * log_p.gather(-1, left.unsqueeze(-1)).squeeze(-1)
    rows = rows - near * log_p.gather(-1, right.unsqueeze(-1)).squeeze(-1)
    return reduce_reference(rows.masked_fill(skipped, 0), weight, reduction, avg_factor)


_distribution_focal_loss = row_loss(_OP, "Tensor target", adds=True)
