"""Valuable localization region: the anchors near an object that are worth imitating without being positive."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import check_padded, common_dtype, proper
from pydistill.ops._register import Op, accumulator
from pydistill.ops.pairwise_iou import pairwise_iou_reference

_MEASURES, _UPPER, _WEIGHTS = ("diou", "diou_released"), ("closed", "open"), ("iou", "one")


def valuable_localization_region(
    anchors: Tensor,
    boxes: Tensor,
    counts: Tensor,
    threshold: Tensor | float,
    *,
    gamma: float = 0.25,
    measure: str = "diou",
    upper: str = "closed",
    weight: str = "iou",
    valid: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    r"""Where localization knowledge is distilled besides the positives: anchors whose DIoU with a box is in a band.

    Anchor :math:`a` is in the band of box :math:`j` if it overlaps the box and

    .. math:: \gamma t_j \le DIoU(a, j) \le t_j

    with :math:`t_j` the positive threshold of the assigner. All anchors of all levels are compared with all boxes of
    their image, and anchors that are positive for a box may be in the band of another: ``exclude`` takes them out.

    Args:
        anchors: ``(A, 4)`` corners ``x1, y1, x2, y2`` in pixels, the same for all images.
        boxes: ``(B, G, 4)`` object boxes in pixels, padded.
        counts: ``(B,)`` int64, how many boxes of each image are real; clamped to [0, G].
        threshold: ``(B, G)`` as :func:`~pydistill.ops.assign_atss` returns it, or one number for assigners without one.
        gamma: Lower end of the band as a part of the upper, in [0, 1].
        measure: ``"diou"``, or ``"diou_released"`` for what the released code computes under that name
            (:func:`~pydistill.ops.pairwise_iou`).
        upper: ``"closed"`` as in the paper, or ``"open"`` as in the released code, which compares with ``<``.
        weight: ``"iou"``: the largest IoU over the boxes in whose band the anchor is; ``"one"``: 1.
        valid: ``(B, A)`` bool: anchors that take part. None: all.
        exclude: ``(B, A)`` bool: anchors that do not, for instance ``gt_index >= 0``.

    Returns:
        ``(B, A)`` weights, 0 outside the region; float64 for float64 inputs, else float32. No gradient. Boxes that are
        inverted or not finite, or whose threshold is infinity, have an empty band; such anchors are in none.

    Raises:
        ValueError: if a shape, gamma or an option is not as above.
        TypeError: if boxes are not floating point, counts not int64 or flags not bool.

    Reference:
        Zheng et al. 2022, arXiv:2102.12252, algorithm 1. The released code (HikariTJU/LD) is ``measure="diou_released",
        upper="open"``: its DIoU starts from IoF where IoU is meant, which lets small anchors inside large objects in
        and drops better ones. We follow the paper.
    """
    for name, value, known in (("measure", measure, _MEASURES), ("upper", upper, _UPPER), ("weight", weight, _WEIGHTS)):
        if value not in known:
            raise ValueError(f"valuable_localization_region: expected {name} in {known}, got {value!r}")
    op = "valuable_localization_region"
    _check.tensors(op, anchors=anchors, boxes=boxes, counts=counts)
    _check.optional(op, valid=valid, exclude=exclude)
    _check.numbers(op, gamma=gamma)
    if not isinstance(threshold, Tensor):
        _check.numbers(op, threshold=threshold)
    dtype = common_dtype("valuable_localization_region", anchors, boxes)
    level = 0.0 if isinstance(threshold, Tensor) else float(threshold)
    limit = threshold.detach().to(accumulator(dtype)) if isinstance(threshold, Tensor) else None
    result: Tensor = _region(
        anchors.detach().to(dtype), boxes.detach().to(dtype), counts, limit, level, gamma,
        measure == "diou_released", upper == "open", weight == "one", valid, exclude,
    )  # fmt: skip
    if _check.enabled():  # here, because the shapes are right by now
        _check.boxes("valuable_localization_region", anchors, name="anchors")
        check_padded("valuable_localization_region", boxes, counts)
    return result


def valuable_localization_region_reference(
    anchors: Tensor,
    boxes: Tensor,
    counts: Tensor,
    threshold: Tensor | float,
    *,
    gamma: float = 0.25,
    measure: str = "diou",
    upper: str = "closed",
    weight: str = "iou",
    valid: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    """The specification of :func:`valuable_localization_region`, in plain PyTorch, image by image."""
    region = boxes.new_zeros(len(boxes), len(anchors))
    for i, padded in enumerate(boxes):
        real = proper(padded) & (torch.arange(len(padded), device=padded.device) < counts[i])
        iou = pairwise_iou_reference(anchors, padded)
        x = pairwise_iou_reference(anchors, padded, mode=measure)
        high = threshold[i] if isinstance(threshold, Tensor) else x.new_tensor(threshold)
        below = x <= high if upper == "closed" else x < high
        band = real & (iou > 0) & (x >= gamma * high) & below & proper(anchors)[:, None]
        value = torch.where(band, iou if weight == "iou" else 1.0, 0.0)
        region[i] = value.amax(1) if len(padded) else 0.0
        if valid is not None:
            region[i].masked_fill_(~valid[i], 0.0)
        if exclude is not None:
            region[i].masked_fill_(exclude[i], 0.0)
    return region


def _empty(anchors: Tensor, boxes: Tensor, *_: Any) -> Tensor:
    """The weights; of any shape where a shape is wrong, which the kernels then say."""
    b, a = (x.shape[0] if x.ndim else 0 for x in (boxes, anchors))
    return boxes.new_empty(b, a, dtype=accumulator(boxes.dtype))


def _kernel(
    anchors: Tensor,
    boxes: Tensor,
    counts: Tensor,
    threshold: Tensor | None,
    level: float,
    gamma: float,
    released: bool,
    upper_open: bool,
    one: bool,
    valid: Tensor | None,
    exclude: Tensor | None,
) -> Tensor:
    anchors, boxes, counts = anchors.contiguous(), boxes.contiguous(), counts.contiguous()
    threshold, valid, exclude = (None if t is None else t.contiguous() for t in (threshold, valid, exclude))
    weight = _empty(anchors, boxes)
    kernels, where = _C.on(anchors)
    kernels.valuable_localization_region(
        where, anchors, boxes, counts, threshold, level, gamma, released, upper_open, one, valid, exclude, weight
    )
    return weight


_region = Op(
    "valuable_localization_region(Tensor anchors, Tensor boxes, Tensor counts, Tensor? threshold, float level, "
    "float gamma, bool released, bool upper_open, bool one, Tensor? valid, Tensor? exclude) -> Tensor",
    _kernel,
    fake=_empty,
)
