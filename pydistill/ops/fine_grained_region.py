"""The anchors that overlap an object almost as much as any does."""

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import check_padded, common_dtype, empty_region, proper
from pydistill.ops._register import Op, accumulator
from pydistill.ops.pairwise_iou import pairwise_iou_reference


def fine_grained_region(
    anchors: Tensor, boxes: Tensor, counts: Tensor, *, factor: float = 0.5, valid: Tensor | None = None
) -> Tensor:
    r"""Which anchors overlap a box of their image more than a share of what the best anchor does.

    Anchor a is in the region if for some box j

    .. math:: IoU(a, j) > f \max_b IoU(b, j),

    the maximum over the anchors of all levels.

    Args:
        anchors: ``(A, 4)`` corners ``x1, y1, x2, y2`` in pixels, the same for all images.
        boxes: ``(B, G, 4)`` object boxes in pixels, padded.
        counts: ``(B,)`` int64, how many boxes of each image are real; clamped to [0, G].
        factor: f, in [0, 1].
        valid: ``(B, A)`` bool: anchors that take part, in the maximum too. None: all.

    Returns:
        ``(B, A)`` bool, on the device. A box that no anchor overlaps, or that is inverted or not finite, adds no
        anchor; such anchors are in no region.

    Raises:
        ValueError: if a shape or ``factor`` is not as above.
        TypeError: if boxes are not floating point, counts not int64 or flags not bool.

    Reference:
        Wang et al. 2019, Distilling object detectors with fine-grained feature imitation, arXiv:1906.03609, section
        3.2; LD's released code has it as ``imitation_method='finegrained'``.
    """
    _check.tensors("fine_grained_region", anchors=anchors, boxes=boxes, counts=counts)
    _check.optional("fine_grained_region", valid=valid)
    _check.numbers("fine_grained_region", factor=factor)
    dtype = common_dtype("fine_grained_region", anchors, boxes)
    inside: Tensor = _region(anchors.detach().to(dtype), boxes.detach().to(dtype), counts, factor, valid)
    if _check.enabled():  # here, because the shapes are right by now
        _check.boxes("fine_grained_region", anchors, name="anchors")
        check_padded("fine_grained_region", boxes, counts)
    return inside


def fine_grained_region_reference(
    anchors: Tensor, boxes: Tensor, counts: Tensor, *, factor: float = 0.5, valid: Tensor | None = None
) -> Tensor:
    """The specification of :func:`fine_grained_region`, in plain PyTorch, image by image."""
    region = torch.zeros(len(boxes), len(anchors), dtype=torch.bool, device=boxes.device)
    for i, padded in enumerate(boxes):
        real = proper(padded) & (torch.arange(len(padded), device=padded.device) < counts[i])
        usable = proper(anchors) if valid is None else proper(anchors) & valid[i]
        iou = pairwise_iou_reference(anchors, padded).where(real & usable[:, None], 0.0)
        if iou.numel():
            region[i] = (iou > factor * iou.amax(0)).any(1)
    return region


def _kernel(anchors: Tensor, boxes: Tensor, counts: Tensor, factor: float, valid: Tensor | None) -> Tensor:
    inside = empty_region(anchors, boxes)
    floor = torch.empty_like(inside, dtype=accumulator(boxes.dtype))
    threshold = floor.new_empty(boxes.shape[:2])
    kernels, where = _C.on(anchors)
    kernels.fine_grained_region(
        where, anchors.contiguous(), boxes.contiguous(), counts.contiguous(), factor,
        None if valid is None else valid.contiguous(), floor, threshold, inside,
    )  # fmt: skip
    return inside


_region = Op(
    "fine_grained_region(Tensor anchors, Tensor boxes, Tensor counts, float factor, Tensor? valid) -> Tensor",
    _kernel,
    fake=empty_region,
)
