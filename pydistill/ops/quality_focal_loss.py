"""Quality focal loss: class probabilities that aim at the quality of their box."""

import torch
from torch import Tensor

from pydistill.ops import _check
from pydistill.ops._focal import check_rows, per_row, row_labels, row_loss
from pydistill.ops._reduction import keeps_gradient, reduce_reference, reduction_of
from pydistill.ops._register import accumulator

_OP = "quality_focal_loss"


def quality_focal_loss(
    logits: Tensor,
    labels: Tensor,
    scores: Tensor,
    *,
    beta: float = 2.0,
    activated: bool = False,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    r"""How far the class probabilities of each location are from the quality of its box.

    With :math:`p = \sigma(z)` and the target :math:`y_c` that is the score where c is the label and 0 elsewhere,

    .. math:: \ell = w \sum_c |y_c - p_c|^\beta B_c, \qquad B_c = -y_c \log p_c - (1 - y_c) \log(1 - p_c), \qquad
              \frac{\partial \ell}{\partial z_c} = w \Big(|y_c - p_c|^\beta (p_c - y_c)
              + \beta |y_c - p_c|^{\beta - 1} \mathrm{sign}(p_c - y_c)\, p_c (1 - p_c) B_c\Big).

    Accumulates in float32, in float64 for float64.

    Args:
        logits: (..., C), z of C independent classes, float64, float32, float16 or bfloat16. All dimensions but the last
            count rows.
        labels: The rows' classes, of the logits' shape without the last dimension, integers. What is not in [0, C) is
            background: its target is 0 in every class.
        scores: y at the labels, of the same shape, in [0, 1]: the IoU of the predicted box and its target. A constant.
            Not read for background.
        beta: At least 0. 2 and 1 are fastest.
        activated: The logits are already probabilities p in [0, 1], as where a quality branch multiplies them (GFLv2).
            Logarithms are then at least -100, and p (1 - p) in the gradient at least 1e-12, as in PyTorch's
            ``binary_cross_entropy``.
        weight: w, one number per row: broadcasts to their shape. A constant, without gradient. A row of weight 0 is
            not read; its loss and its gradient are 0 whatever its logits are.
        reduction: ``"none"``: one loss per row. ``"sum"``. ``"mean"``: the sum over the number of rows, or over
            ``avg_factor``.
        avg_factor: What ``"mean"`` divides the sum by, a number or a tensor of one element that is read on its device.
            A constant. A sum of 0 over a factor of 0 is 0; with a factor of 0 the gradient is 0.

    Returns:
        The losses, of the logits' shape without the last dimension, or their scalar reduction; float64 for float64,
        else float32. A NaN logit or score and a probability outside [0, 1] make the loss of their own row NaN, and the
        gradient of their own class. An infinite logit counts as the largest number: -inf adds nothing
        where the target is 0. Results repeat bit for bit.

    Raises:
        ValueError: If a shape or an option is not one of the above; under ``pydistill.checking`` also for NaN and
            infinite logits and scores.
        TypeError: If a dtype is not one of the above.

    Reference:
        Li et al. 2020 (Generalized Focal Loss), arXiv:2006.04388, equation 5; Li et al. 2021 (GFLv2),
        arXiv:2011.12885, for ``activated``.
    """
    check_rows(_OP, logits, "C", labels=labels, scores=scores)
    _check.numbers(_OP, beta=beta)
    if not beta >= 0:
        raise ValueError(f"{_OP}: expected beta >= 0, got {beta}")
    shape = logits.shape[:-1]
    labels, scores = row_labels(_OP, labels, logits), per_row(_OP, "scores", scores, logits)
    how = reduction_of(_OP, logits, shape, weight, reduction, avg_factor)
    if _check.enabled(logits, scores):
        used = torch.ones_like(labels, dtype=torch.bool) if how.weight is None else how.weight != 0
        _check.finite(_OP, "logits", logits, used.unsqueeze(-1))
        _check.finite(_OP, "scores", scores, used & (labels >= 0) & (labels < logits.shape[-1]))
    options = beta, activated, how.factor, how.reduce, keeps_gradient(logits)
    result: Tensor = _quality_focal_loss(logits, labels, scores, how.weight, how.avg_factor, *options)
    return result


def quality_focal_loss_reference(
    logits: Tensor,
    labels: Tensor,
    scores: Tensor,
    *,
    beta: float = 2.0,
    activated: bool = False,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    wide = accumulator(logits.dtype)
    z = logits.to(wide)
    if weight is not None:
        z = z.masked_fill((weight.detach().expand(z.shape[:-1]) == 0).unsqueeze(-1), 0)
    own = labels.unsqueeze(-1) == torch.arange(z.shape[-1], device=z.device)
    y = torch.where(own, scores.detach().to(wide).unsqueeze(-1), 0)
    if activated:
        p, entropy = z, torch.nn.functional.binary_cross_entropy(z, y, reduction="none")
    else:
        p, entropy = z.sigmoid(), torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    return reduce_reference(((y - p).abs() ** beta * entropy).sum(-1), weight, reduction, avg_factor)


_quality_focal_loss = row_loss(_OP, "Tensor labels, Tensor scores", "float beta, bool activated")
