"""Adaptive training sample selection: which anchor learns which box."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import check_padded, common_dtype, ignored_boxes, proper
from pydistill.ops._register import Op, accumulator
from pydistill.ops.pairwise_iou import pairwise_iou_reference

BACKGROUND, IGNORED = -1, -2


class AnchorAssignment(NamedTuple):
    """Which box each anchor has: what the assigners return."""

    gt_index: Tensor
    """``(B, A)`` int64: the index of a box, or -1 background, or -2 ignored."""
    max_iou: Tensor
    """``(B, A)``: the anchor's IoU with that box, 0 where it has none."""
    threshold: Tensor
    """``(B, G)``: the IoU from which anchors are positive, infinity where none can be."""


def assign_atss(
    anchors: Tensor,
    level_sizes: Sequence[int],
    boxes: Tensor,
    counts: Tensor,
    *,
    topk: int = 9,
    valid: Tensor | None = None,
    ignore_boxes: Tensor | None = None,
    ignore_counts: Tensor | None = None,
    ignore_threshold: float = -1.0,
) -> AnchorAssignment:
    r"""Gives each box the anchors near its centre that overlap it more than its neighbourhood does on average.

    The candidates :math:`C_j` of box :math:`j` are, of each level, the ``topk`` anchors whose centres are nearest to
    its centre. Anchor :math:`a \in C_j` is positive for :math:`j` if

    .. math:: IoU(a, j) \ge t_j = mean_{C_j} IoU + std_{C_j} IoU

    (standard deviation with Bessel's correction) and if its centre lies more than 0.01 pixels inside :math:`j`. An
    anchor that is positive for several boxes takes the one of highest IoU. Of equals the first is taken: the anchor of
    lower index among candidates, the box of lower index among boxes.

    No tensor of the size anchors x boxes is made, and nothing is read back by the host.

    Args:
        anchors: ``(A, 4)`` corners ``x1, y1, x2, y2`` in pixels, the same for all images, level by level.
        level_sizes: Number of anchors per level, adding up to A; at most 16 levels.
        boxes: ``(B, G, 4)`` object boxes in pixels, padded.
        counts: ``(B,)`` int64, how many boxes of each image are real; clamped to [0, G].
        topk: Candidates per level.
        valid: ``(B, A)`` bool: anchors that take part, for instance those inside the image. None: all.
        ignore_boxes: ``(B, M, 4)`` regions that nobody annotated, padded.
        ignore_counts: ``(B,)`` int64, how many of them are real.
        ignore_threshold: Anchors with a larger share of their area in an ignored region are ignored. Not positive: off.

    Returns:
        An :class:`AnchorAssignment`. Ignored are anchors that are not valid, inverted or not finite, and those in
        ignored regions. The latter are candidates only on levels that have fewer than ``topk`` others, and then may
        become positive. A box that is inverted or not finite, that is padding, or that has a single candidate (no
        standard deviation) has threshold infinity and no anchor. IoU and thresholds are float64 for float64 inputs,
        else float32.

    Raises:
        ValueError: if a shape, ``level_sizes`` or ``topk`` is not as above.
        TypeError: if boxes are not floating point, counts not int64 or flags not bool.

    Reference:
        Zhang et al. 2020, arXiv:1912.02424, algorithm 1. As in mmdetection's ``ATSSAssigner``, candidates need not have
        their centre in the box, and the standard deviation is the sample's. Different from it: anchors in ignored
        regions are marked in images without boxes, too, and ``max_iou`` of an anchor without a box is 0, not -1e8.
    """
    _check.tensors("assign_atss", anchors=anchors, boxes=boxes, counts=counts)
    _check.optional("assign_atss", valid=valid, ignore_boxes=ignore_boxes, ignore_counts=ignore_counts)
    _check.numbers("assign_atss", topk=topk, ignore_threshold=ignore_threshold)
    sizes = _check.levels("assign_atss", level_sizes, len(anchors) if anchors.ndim == 2 else None)
    dtype = common_dtype("assign_atss", anchors, boxes)
    ignore = ignored_boxes("assign_atss", ignore_boxes, ignore_counts, dtype)
    anchors, boxes = anchors.detach().to(dtype), boxes.detach().to(dtype)
    assigned = AnchorAssignment(
        *_assign(anchors, sizes, boxes, counts, topk, valid, ignore, ignore_counts, ignore_threshold)
    )
    if _check.enabled():  # here, because the shapes are right by now
        _check.boxes("assign_atss", anchors, name="anchors")
        check_padded("assign_atss", boxes, counts)
        if ignore is not None and ignore_counts is not None:
            check_padded("assign_atss", ignore, ignore_counts, "ignore_boxes", "ignore_counts")
    return assigned


def assign_atss_reference(
    anchors: Tensor,
    level_sizes: Sequence[int],
    boxes: Tensor,
    counts: Tensor,
    *,
    topk: int = 9,
    valid: Tensor | None = None,
    ignore_boxes: Tensor | None = None,
    ignore_counts: Tensor | None = None,
    ignore_threshold: float = -1.0,
) -> AnchorAssignment:
    """The specification of :func:`assign_atss`, in plain PyTorch, image by image."""
    images = []
    for i, padded in enumerate(boxes):
        usable, ignored = standing_reference(i, anchors, valid, ignore_boxes, ignore_counts, ignore_threshold)
        count = min(max(int(counts[i]), 0), len(padded))
        images.append(_assign_image(anchors, level_sizes, padded, count, topk, usable, ignored))
    stacked = [torch.stack(x) for x in zip(*images)] if images else empty_assignment(anchors, boxes)
    return AnchorAssignment(*stacked)


def standing_reference(
    i: int,
    anchors: Tensor,
    valid: Tensor | None,
    ignore_boxes: Tensor | None,
    ignore_counts: Tensor | None,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Which anchors take part in image ``i``, and which of them lie in an ignored region."""
    usable = proper(anchors) if valid is None else proper(anchors) & valid[i]
    ignored = torch.zeros_like(usable)
    if ignore_boxes is not None and ignore_counts is not None and threshold > 0:
        regions = ignore_boxes[i, : max(int(ignore_counts[i]), 0)]
        iof = pairwise_iou_reference(anchors, regions[proper(regions)], mode="iof")
        ignored = (iof > threshold).any(1) & usable
    return usable, ignored


def _assign_image(
    anchors: Tensor, level_sizes: Sequence[int], boxes: Tensor, count: int, topk: int, usable: Tensor, ignored: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    real = proper(boxes) & (torch.arange(len(boxes), device=boxes.device) < count)
    index = torch.where(usable & ~ignored, BACKGROUND, IGNORED)
    iou = torch.where(usable[:, None] & real, pairwise_iou_reference(anchors, boxes), 0.0)
    if iou.numel() == 0:
        return index, iou.new_zeros(len(anchors)), iou.new_full((len(boxes),), torch.inf)
    chosen = _candidates(anchors, level_sizes, boxes, topk, usable, ignored) & real
    n = chosen.sum(0)
    mean = iou.where(chosen, 0.0).sum(0) / n
    variance = (iou - mean).square().where(chosen, 0.0).sum(0) / (n - 1)
    threshold = (mean + variance.sqrt()).where(n > 1, torch.inf)
    centre = (anchors[:, None, :2] + anchors[:, None, 2:]) / 2
    inside = torch.cat([centre - boxes[:, :2], boxes[:, 2:] - centre], -1).amin(-1) > 0.01
    score = iou.where(chosen & inside & (iou >= threshold), -1.0)
    best = score.amax(1)
    winner = torch.where(score == best[:, None], torch.arange(len(boxes), device=boxes.device), len(boxes)).amin(1)
    return torch.where(best >= 0, winner, index), best.clamp(min=0), threshold


def _candidates(
    anchors: Tensor, level_sizes: Sequence[int], boxes: Tensor, topk: int, usable: Tensor, ignored: Tensor
) -> Tensor:
    """``(A, G)``: of each level the ``topk`` nearest usable anchors; of equals the first ones."""
    offset = (anchors[:, None, :2] + anchors[:, None, 2:]) / 2 - (boxes[:, :2] + boxes[:, 2:]) / 2
    far = torch.finfo(boxes.dtype).max
    distance = offset.square().sum(-1).nan_to_num(far, far).masked_fill(ignored[:, None], far)
    distance = distance.masked_fill(~usable[:, None], torch.inf)
    chosen = []
    for level in torch.split(distance, list(level_sizes)):
        k = min(topk, len(level))
        if k == 0:
            chosen.append(torch.zeros_like(level, dtype=torch.bool))
            continue
        last = level.topk(k, 0, largest=False).values.amax(0)
        closer, tied = level < last, level == last
        chosen.append((closer | (tied & (tied.cumsum(0) <= k - closer.sum(0)))) & level.isfinite())
    return torch.cat(chosen)


def empty_assignment(anchors: Tensor, boxes: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs; of any shape where a shape is wrong, which the kernels then say."""
    b, g = boxes.shape[:2] if boxes.ndim > 1 else (0, 0)
    a, dtype = anchors.shape[0] if anchors.ndim else 0, accumulator(boxes.dtype)
    return (
        boxes.new_empty(b, a, dtype=torch.int64),
        boxes.new_empty(b, a, dtype=dtype),
        boxes.new_empty(b, g, dtype=dtype),
    )


def _kernel(
    anchors: Tensor,
    level_sizes: Sequence[int],
    boxes: Tensor,
    counts: Tensor,
    topk: int,
    valid: Tensor | None,
    ignore_boxes: Tensor | None,
    ignore_counts: Tensor | None,
    ignore_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    anchors, boxes, counts = anchors.contiguous(), boxes.contiguous(), counts.contiguous()
    valid, ignore_boxes, ignore_counts = (
        None if t is None else t.contiguous() for t in (valid, ignore_boxes, ignore_counts)
    )
    gt_index, max_iou, threshold = empty_assignment(anchors, boxes)
    slots = (*threshold.shape, max(topk, 0) * len(level_sizes))
    floor, overlap = torch.empty_like(max_iou), threshold.new_empty(slots)
    candidate = threshold.new_empty(slots, dtype=torch.int32)
    kernels, where = _C.on(anchors)
    kernels.assign_atss(
        where, anchors, level_sizes, boxes, counts, topk, valid, ignore_boxes, ignore_counts, ignore_threshold,
        floor, candidate, overlap, gt_index, max_iou, threshold,
    )  # fmt: skip
    return gt_index, max_iou, threshold


def _fake(anchors: Tensor, _: Sequence[int], boxes: Tensor, *__: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty_assignment(anchors, boxes)


_assign = Op(
    "assign_atss(Tensor anchors, int[] level_sizes, Tensor boxes, Tensor counts, int topk, Tensor? valid, "
    "Tensor? ignore_boxes, Tensor? ignore_counts, float ignore_threshold) -> (Tensor, Tensor, Tensor)",
    _kernel,
    fake=_fake,
)
