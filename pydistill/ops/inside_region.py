"""The points that lie inside an object."""

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import check_padded, common_dtype, empty_region, proper
from pydistill.ops._register import Op


def inside_region(points: Tensor, boxes: Tensor, counts: Tensor, *, valid: Tensor | None = None) -> Tensor:
    r"""Which points lie strictly inside at least one box of their image.

    That is :math:`x_1 < x < x_2` and :math:`y_1 < y < y_2`.

    Args:
        points: ``(A, 2)`` x and y in pixels, the same for all images: the centres of anchors, or FCOS's points.
        boxes: ``(B, G, 4)`` object boxes ``x1, y1, x2, y2`` in pixels, padded.
        counts: ``(B,)`` int64, how many boxes of each image are real; clamped to [0, G].
        valid: ``(B, A)`` bool: points that take part. None: all.

    Returns:
        ``(B, A)`` bool, on the device. A box without area, inverted or not finite has nothing inside, and a point that
        is not finite is inside nothing.

    Raises:
        ValueError: if a shape is not as above.
        TypeError: if points or boxes are not floating point, counts not int64 or flags not bool.

    Reference:
        Zheng et al. 2022 (LD), arXiv:2102.12252: the region of the released code's ``imitation_method='fitnet'``, and
        of its anchor-free heads, which take the positives out. It is not the whole map that FitNets imitates.
    """
    _check.tensors("inside_region", points=points, boxes=boxes, counts=counts)
    _check.optional("inside_region", valid=valid)
    dtype = common_dtype("inside_region", points, boxes)
    inside: Tensor = _inside(points.detach().to(dtype), boxes.detach().to(dtype), counts, valid)
    if _check.enabled():  # here, because the shapes are right by now
        _check.finite("inside_region", "points", points)
        check_padded("inside_region", boxes, counts)
    return inside


def inside_region_reference(points: Tensor, boxes: Tensor, counts: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """The specification of :func:`inside_region`, in plain PyTorch."""
    real = proper(boxes) & (torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None])
    p, low, high = points[:, None], boxes[:, None, :, :2], boxes[:, None, :, 2:]
    inside = (((p > low) & (p < high)).all(-1) & real[:, None]).any(-1)
    return inside if valid is None else inside & valid


def _kernel(points: Tensor, boxes: Tensor, counts: Tensor, valid: Tensor | None) -> Tensor:
    inside = empty_region(points, boxes)
    kernels, where = _C.on(points)
    kernels.inside_region(
        where, points.contiguous(), boxes.contiguous(), counts.contiguous(),
        None if valid is None else valid.contiguous(), inside,
    )  # fmt: skip
    return inside


_inside = Op(
    "inside_region(Tensor points, Tensor boxes, Tensor counts, Tensor? valid) -> Tensor", _kernel, fake=empty_region
)
