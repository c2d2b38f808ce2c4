"""Assignment by the largest overlap: which anchor learns which box, with fixed thresholds."""

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import check_padded, common_dtype, ignored_boxes, proper
from pydistill.ops._register import Op
from pydistill.ops.assign_atss import BACKGROUND, IGNORED, AnchorAssignment, empty_assignment, standing_reference
from pydistill.ops.pairwise_iou import pairwise_iou_reference


def assign_max_iou(
    anchors: Tensor,
    boxes: Tensor,
    counts: Tensor,
    *,
    positive: float = 0.5,
    negative: float = 0.4,
    min_positive: float = 0.0,
    match_low_quality: bool = True,
    valid: Tensor | None = None,
    ignore_boxes: Tensor | None = None,
    ignore_counts: Tensor | None = None,
    ignore_threshold: float = -1.0,
) -> AnchorAssignment:
    r"""Gives each anchor the box that it overlaps most, and each box the anchors that overlap it most.

    With :math:`m_a = \max_j IoU(a, j)` anchor a has the first box that attains it if :math:`m_a \ge` ``positive``, is
    background if :math:`m_a <` ``negative``, and ignored between. Then, with ``match_low_quality``, box j takes every
    anchor whose IoU with it is :math:`b_j = \max_a IoU(a, j)`, whatever else that anchor overlaps, if :math:`b_j > 0`
    and :math:`b_j \ge` ``min_positive``; where several boxes take an anchor, the last has it. IoU that differ by
    rounding alone, 4 units in the last place, count as equal.

    No tensor of the size anchors x boxes is made, and nothing is read back by the host.

    Args:
        anchors: ``(A, 4)`` corners ``x1, y1, x2, y2`` in pixels, the same for all images.
        boxes: ``(B, G, 4)`` object boxes in pixels, padded.
        counts: ``(B,)`` int64, how many boxes of each image are real; clamped to [0, G].
        positive: In (0, 1].
        negative: In [0, positive].
        min_positive: The least IoU with which a box takes its best anchors.
        match_low_quality: Whether it takes them.
        valid: ``(B, A)`` bool: anchors that take part, for instance those inside the image. None: all.
        ignore_boxes: ``(B, M, 4)`` regions that nobody annotated, padded.
        ignore_counts: ``(B,)`` int64, how many of them are real.
        ignore_threshold: Anchors with a larger share of their area in an ignored region are ignored. Not positive: off.

    Returns:
        An :class:`AnchorAssignment`; its ``threshold`` is ``positive``, or :math:`b_j` where that is less and the box
        takes its best anchors, and infinity for a box that is inverted or not finite or padding, which has no anchor.
        Ignored are also anchors that are not valid, inverted or not finite, and those in ignored regions. IoU and
        thresholds are float64 for float64 inputs, else float32.

    Raises:
        ValueError: if a shape or a number is not as above.
        TypeError: if boxes are not floating point, counts not int64 or flags not bool.

    Reference:
        Lin et al. 2017 (RetinaNet), arXiv:1708.02002, section 4; Ren et al. 2015 (Faster R-CNN), arXiv:1506.01497,
        section 3.1.2. As mmdetection's ``MaxIoUAssigner`` with ``gt_max_assign_all=True``. Different from it: a box
        that overlaps no anchor takes none, where mmdetection with ``min_pos_iou=0`` gives it every anchor of the image;
        anchors in ignored regions are marked in images without boxes, too; and ``max_iou`` is the IoU with the
        anchor's own box, 0 where it has none.
    """
    _check.tensors("assign_max_iou", anchors=anchors, boxes=boxes, counts=counts)
    _check.optional("assign_max_iou", valid=valid, ignore_boxes=ignore_boxes, ignore_counts=ignore_counts)
    _check.numbers(
        "assign_max_iou", positive=positive, negative=negative, min_positive=min_positive,
        ignore_threshold=ignore_threshold,
    )  # fmt: skip
    dtype = common_dtype("assign_max_iou", anchors, boxes)
    ignore = ignored_boxes("assign_max_iou", ignore_boxes, ignore_counts, dtype)
    anchors, boxes = anchors.detach().to(dtype), boxes.detach().to(dtype)
    assigned = AnchorAssignment(
        *_assign(
            anchors, boxes, counts, positive, negative, min_positive, match_low_quality, valid, ignore, ignore_counts,
            ignore_threshold,
        )
    )  # fmt: skip
    if _check.enabled():  # here, because the shapes are right by now
        _check.boxes("assign_max_iou", anchors, name="anchors")
        check_padded("assign_max_iou", boxes, counts)
        if ignore is not None and ignore_counts is not None:
            check_padded("assign_max_iou", ignore, ignore_counts, "ignore_boxes", "ignore_counts")
    return assigned


def assign_max_iou_reference(
    anchors: Tensor,
    boxes: Tensor,
    counts: Tensor,
    *,
    positive: float = 0.5,
    negative: float = 0.4,
    min_positive: float = 0.0,
    match_low_quality: bool = True,
    valid: Tensor | None = None,
    ignore_boxes: Tensor | None = None,
    ignore_counts: Tensor | None = None,
    ignore_threshold: float = -1.0,
) -> AnchorAssignment:
    """The specification of :func:`assign_max_iou`, in plain PyTorch, image by image."""
    images = []
    for i, padded in enumerate(boxes):
        usable, ignored = standing_reference(i, anchors, valid, ignore_boxes, ignore_counts, ignore_threshold)
        usable = usable & ~ignored
        number = torch.arange(len(padded), device=padded.device)
        real = proper(padded) & (number < counts[i])
        iou = pairwise_iou_reference(anchors, padded).where(usable[:, None] & real, 0.0)
        if iou.numel() == 0:
            none = torch.where(usable, BACKGROUND if negative > 0 else IGNORED, IGNORED)
            limit = iou.new_full((len(padded),), positive).masked_fill(~real, torch.inf)
            images.append((none, iou.new_zeros(len(anchors)), limit))
            continue
        best = iou.amax(0)
        low = real & match_low_quality & (best > 0) & (best >= min_positive)
        claims = low & (iou >= best * (1 - 4 * torch.finfo(iou.dtype).eps))
        most, nearest = iou.max(1).values, (iou == iou.amax(1, keepdim=True)).int().argmax(1)
        index = torch.where(most >= positive, nearest, torch.where(most < negative, BACKGROUND, IGNORED))
        index = torch.where(claims.any(1), torch.where(claims, number, -1).amax(1), index).masked_fill(~usable, IGNORED)
        own = iou.gather(1, index.clamp(min=0)[:, None])[:, 0].where(index >= 0, 0.0)
        limit = torch.where(low, best.clamp(max=positive), positive).masked_fill(~real, torch.inf)
        images.append((index, own, limit))
    stacked = [torch.stack(x) for x in zip(*images)] if images else empty_assignment(anchors, boxes)
    return AnchorAssignment(*stacked)


def _kernel(
    anchors: Tensor,
    boxes: Tensor,
    counts: Tensor,
    positive: float,
    negative: float,
    min_positive: float,
    match_low_quality: bool,
    valid: Tensor | None,
    ignore_boxes: Tensor | None,
    ignore_counts: Tensor | None,
    ignore_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    valid, ignore_boxes, ignore_counts = (
        None if t is None else t.contiguous() for t in (valid, ignore_boxes, ignore_counts)
    )
    gt_index, max_iou, threshold = empty_assignment(anchors, boxes)
    floor, best = torch.empty_like(max_iou), torch.empty_like(threshold)
    kernels, where = _C.on(anchors)
    kernels.assign_max_iou(
        where, anchors.contiguous(), boxes.contiguous(), counts.contiguous(), positive, negative, min_positive,
        match_low_quality, valid, ignore_boxes, ignore_counts, ignore_threshold, floor, best,
        gt_index, max_iou, threshold,
    )  # fmt: skip
    return gt_index, max_iou, threshold


_assign = Op(
    "assign_max_iou(Tensor anchors, Tensor boxes, Tensor counts, float positive, float negative, float min_positive, "
    "bool match_low_quality, Tensor? valid, Tensor? ignore_boxes, Tensor? ignore_counts, float ignore_threshold) "
    "-> (Tensor, Tensor, Tensor)",
    _kernel,
    fake=empty_assignment,
)
