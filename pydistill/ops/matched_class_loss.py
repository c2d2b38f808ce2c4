"""Class losses of queries and the targets they are matched with: labels, or a teacher's logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.ops import _check as _check_data
from pydistill.ops._focal import row_loss
from pydistill.ops._matched import (
    check_match,
    check_queries,
    check_reduction,
    check_targets,
    matched,
    of_queries,
    sum_stages,
)
from pydistill.ops._reduction import keeps_gradient, row_weight
from pydistill.ops._register import accumulator
from pydistill.ops.sigmoid_focal_loss import sigmoid_focal_loss, sigmoid_focal_loss_reference

_OP = "matched_class_loss"
_FORMS = ("focal", "soft_bce")


def matched_labels(target_labels: Tensor, target_of_query: Tensor, background: int) -> Tensor:
    """The class of each query: that of its target, or ``background``.

    Args:
        target_labels: (B, T) or (..., B, T) int64.
        target_of_query: (..., B, Q) int64, as ``hungarian_match`` gives it; what is not in [0, T) is none.
        background: The class of queries without a target.

    Returns:
        (..., B, Q) int64.

    Raises:
        ValueError: If the shapes do not fit.
        TypeError: If a tensor is not int64, or ``background`` no integer.
    """
    _check_data.tensors("matched_labels", target_labels=target_labels, target_of_query=target_of_query)
    _check_labels("matched_labels", "target_labels", target_labels, target_of_query.unsqueeze(-1), "")
    check_queries("matched_labels", target_of_query, target_of_query.shape)
    if not isinstance(background, int):
        raise TypeError(f"matched_labels: expected background to be an integer, got {type(background).__name__}")
    labels = of_queries(target_labels, target_of_query, -1)
    return torch.where(matched(target_of_query, target_labels.shape[-1]), labels, background)


def matched_class_loss(
    logits: Tensor,
    targets: Tensor,
    target_of_query: Tensor,
    *,
    form: str = "focal",
    weight: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "stages",
) -> Tensor:
    r"""The class loss of each query and its target, of independent classes (sigmoid), summed over the classes.

    Leading dimensions are decoder stages. ``form``:

    ============= ====================================================================================================
    ``focal``     :func:`sigmoid_focal_loss` of all queries: those with a target have its label, the others are
                  background
    ``soft_bce``  :math:`w \sum_c \log(1 + e^{x_c}) - x_c\, \sigma(t_c)`, t a teacher's logits: cross entropy with its
                  probabilities. A query without a target is not read; its loss and its gradient are 0
    ============= ====================================================================================================

    Args:
        logits: (..., B, Q, C), any floating dtype.
        targets: ``focal``: labels (B, T) or (..., B, T) int64. ``soft_bce``: logits of the teacher's queries (B, T, C)
            or (..., B, T, C), T being their number. Constants.
        target_of_query: (..., B, Q) int64, as ``hungarian_match`` gives it: the query's target, in [0, T); anything
            else is none.
        form: See above.
        weight: w, broadcasts to (..., B, Q). A constant. A row of weight 0 is not read.
        alpha: Of the focal loss.
        gamma: Of the focal loss.
        reduction: ``"stages"``: the sum over B and Q for each leading index, shape (...). ``"none"``: (..., B, Q).

    Returns:
        The losses, float64 for float64 logits, else float32. A NaN logit makes its own row NaN, and the sum of its
        stage. Results repeat bit for bit.

    Raises:
        ValueError: If a shape or an option is not as above.
        TypeError: If a dtype is not as above.

    Reference:
        Zhu et al. 2020 (Deformable DETR), arXiv:2010.04159, for ``focal``; Chang et al. 2023 (DETRDistill),
        arXiv:2211.10156, for ``soft_bce``, as its released code has it.
    """
    _check_data.optional(_OP, weight=weight)
    _check_data.numbers(_OP, alpha=alpha, gamma=gamma)
    _check(logits, targets, target_of_query, form, reduction)
    if form == "focal":
        labels = matched_labels(targets, target_of_query, logits.shape[-1])
        return sum_stages(sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=gamma, weight=weight), reduction)
    queries, wide = logits.shape[:-1], accumulator(logits.dtype)
    weight = row_weight(_OP, weight, queries, wide)
    if _check_data.enabled(logits):
        used = matched(target_of_query, targets.shape[-2])
        used = (used if weight is None else used & (weight != 0)).unsqueeze(-1)
        _check_data.finite(_OP, "logits", logits, used)
        _check_data.finite(_OP, "targets of queries", of_queries(targets.detach(), target_of_query, -2), used)
    flat = logits.flatten(0, -3)
    rows: Tensor = _soft_cross_entropy(
        flat,
        targets.detach().to(wide).flatten(0, -3).contiguous(),
        target_of_query.flatten(0, -2).contiguous(),
        None if weight is None else weight.flatten(0, -2),
        None,
        1.0,
        False,
        keeps_gradient(flat),
    )
    return sum_stages(rows.view(queries), reduction)


def matched_class_loss_reference(
    logits: Tensor,
    targets: Tensor,
    target_of_query: Tensor,
    *,
    form: str = "focal",
    weight: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "stages",
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    if form == "focal":
        labels = matched_labels(targets, target_of_query, logits.shape[-1])
        rows = sigmoid_focal_loss_reference(logits, labels, alpha=alpha, gamma=gamma, weight=weight)
        return sum_stages(rows, reduction)
    wide = accumulator(logits.dtype)
    factor = matched(target_of_query, targets.shape[-2]).to(wide)
    if weight is not None:
        factor = factor * weight.detach().to(wide)
    unread = (factor == 0).unsqueeze(-1)
    p = of_queries(targets.detach().to(wide), target_of_query, -2).masked_fill(unread, 0).sigmoid()
    z = logits.to(wide).masked_fill(unread, 0)
    rows = F.binary_cross_entropy_with_logits(z, p, reduction="none").sum(-1) * factor
    return sum_stages(rows, reduction)


def _check_labels(op: str, name: str, labels: Tensor, predictions: Tensor, where: str) -> None:
    if predictions.ndim < 3:
        raise ValueError(f"{op}: expected target_of_query of shape (..., B, Q), got {list(predictions.shape[:-1])}")
    check_targets(op, name, labels, predictions, None)
    if labels.dtype != torch.int64:
        raise TypeError(f"{op}: expected {name} of dtype torch.int64{where}, got {labels.dtype}")


def _check(logits: Tensor, targets: Tensor, target_of_query: Tensor, form: str, reduction: str) -> None:
    if form not in _FORMS:
        raise ValueError(f"{_OP}: expected form in {_FORMS}, got {form!r}")
    check_match(_OP, "logits", logits, "C", target_of_query)
    if form == "focal":
        _check_labels(_OP, "targets", targets, logits, " with form focal")
    else:
        check_targets(_OP, "targets", targets, logits, logits.shape[-1])
        if not targets.is_floating_point():
            raise TypeError(f"{_OP}: expected targets of a floating point dtype with soft_bce, got {targets.dtype}")
    check_reduction(_OP, reduction)


_soft_cross_entropy = row_loss(_OP, "Tensor targets, Tensor target_of_query")
