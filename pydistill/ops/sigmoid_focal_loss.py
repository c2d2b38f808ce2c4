"""Sigmoid focal loss: binary cross entropy of independent classes, of which the easy ones count little."""

import torch
from torch import Tensor

from pydistill.ops import _check
from pydistill.ops._focal import check_rows, row_labels, row_loss
from pydistill.ops._reduction import keeps_gradient, reduce_reference, reduction_of
from pydistill.ops._register import accumulator

_OP = "sigmoid_focal_loss"


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    r"""The focal loss of each row of C independent classes, summed over the classes.

    With :math:`p = \sigma(z)`, the target t, :math:`u = 1 - p` where t = 1 and p where t = 0,

    .. math:: \ell = w \sum_c a_c u_c^\gamma B_c, \qquad a = \alpha t + (1 - \alpha)(1 - t), \qquad
              B = -t \log p - (1 - t) \log(1 - p), \qquad
              \frac{\partial \ell}{\partial z} = w\, a \big(u^\gamma (p - t)
              + \gamma u^{\gamma - 1} (1 - 2 t)\, p (1 - p) B\big).

    Accumulates in float32, in float64 for float64.

    Args:
        logits: (..., C), z of C independent classes, float64, float32, float16 or bfloat16. All dimensions but the last
            count rows.
        targets: The rows' classes, of the logits' shape without the last dimension, integers; what is not in [0, C) is
            background, whose t is 0 in every class. Or t itself, of the logits' shape, 0 and 1 of any dtype; with a
            target between them u is p (1 - t) + (1 - p) t, as in torchvision. A constant.
        alpha: The weight of t = 1, in [0, 1], that of t = 0 being 1 - alpha. Negative: both weigh 1.
        gamma: At least 0. 2 and 1 are fastest.
        weight: w, one number per row: broadcasts to their shape. A constant, without gradient. A row of weight 0 is
            not read; its loss and its gradient are 0 whatever its logits are.
        reduction: ``"none"``: one loss per row. ``"sum"``. ``"mean"``: the sum over the number of rows, or over
            ``avg_factor``.
        avg_factor: What ``"mean"`` divides the sum by, a number or a tensor of one element that is read on its device.
            A constant. A sum of 0 over a factor of 0 is 0; with a factor of 0 the gradient is 0.

    Returns:
        The losses, of the logits' shape without the last dimension, or their scalar reduction; float64 for float64,
        else float32. A NaN logit or target makes the loss of its own row NaN, and the gradient of its own class. An
        infinite logit counts as the largest number: -inf adds nothing where the target is 0. Results
        repeat bit for bit.

    Raises:
        ValueError: If a shape or an option is not one of the above; under ``pydistill.checking`` also for NaN and
            infinite logits.
        TypeError: If a dtype is not one of the above.

    Reference:
        Lin et al. 2017 (RetinaNet), arXiv:1708.02002, equation 5. torchvision's and mmdet's ``"mean"`` is over rows and
        classes: C times smaller. mmdet's labels have C for background.
    """
    check_rows(_OP, logits, "C", targets=targets)
    _check.numbers(_OP, alpha=alpha, gamma=gamma)
    if not gamma >= 0:
        raise ValueError(f"{_OP}: expected gamma >= 0, got {gamma}")
    if not alpha <= 1:
        raise ValueError(f"{_OP}: expected alpha <= 1, got {alpha}")
    labels = dense = None
    if targets.dim() == logits.dim():
        dense = _dense(targets, logits)
    else:
        labels = row_labels(_OP, targets, logits)
    how = reduction_of(_OP, logits, logits.shape[:-1], weight, reduction, avg_factor)
    if _check.enabled(logits):
        _check.finite(_OP, "logits", logits, None if how.weight is None else (how.weight != 0).unsqueeze(-1))
    options = alpha, gamma, how.factor, how.reduce, keeps_gradient(logits)
    result: Tensor = _sigmoid_focal_loss(logits, labels, dense, how.weight, how.avg_factor, *options)
    return result


def sigmoid_focal_loss_reference(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    wide = accumulator(logits.dtype)
    z, t = logits.to(wide), targets
    if t.dim() < z.dim():
        t = t.unsqueeze(-1) == torch.arange(z.shape[-1], device=z.device)
    t = t.detach().to(wide)
    if weight is not None:
        z = z.masked_fill((weight.detach().expand(z.shape[:-1]) == 0).unsqueeze(-1), 0)
    p, entropy = z.sigmoid(), torch.nn.functional.binary_cross_entropy_with_logits(z, t, reduction="none")
    balance = alpha * t + (1 - alpha) * (1 - t) if alpha >= 0 else 1.0
    rows = (balance * (p * (1 - t) + (1 - p) * t) ** gamma * entropy).sum(-1)
    return reduce_reference(rows, weight, reduction, avg_factor)


def _dense(targets: Tensor, logits: Tensor) -> Tensor:
    if targets.is_complex():
        raise TypeError(f"{_OP}: expected targets that are real, got {targets.dtype}")
    if targets.shape != logits.shape:
        raise ValueError(f"{_OP}: expected targets of shape {list(logits.shape)}, got {list(targets.shape)}")
    if targets.device != logits.device:
        raise ValueError(f"{_OP}: expected targets on {logits.device}, got {targets.device}")
    return targets.detach().to(logits.dtype)


_sigmoid_focal_loss = row_loss(_OP, "Tensor? labels, Tensor? targets", "float alpha, float gamma")
