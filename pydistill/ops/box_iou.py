"""Pairwise overlaps under torchvision's names and conventions, by the kernels of ``pairwise_iou``."""

from torch import Tensor

from pydistill.ops import _check
from pydistill.ops.pairwise_iou import pairwise_iou

_TINY = 1e-37  # instead of 0 / 0: above float32's smallest normal number, below every area


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair, :func:`~pydistill.ops.pairwise_iou` as ``torchvision.ops.box_iou`` has it.

    Args:
        boxes1: ``(N, 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype.
        boxes2: ``(M, 4)``.

    Returns:
        ``(N, M)``, differentiable; float64 for float64 boxes, else float32. Of two boxes without area 0, where
        torchvision has 0 / 0, NaN.

    Raises:
        ValueError: If a shape is not as above.
        TypeError: If the boxes are not floating point.
    """
    return _overlap("box_iou", boxes1, boxes2, "iou", _TINY)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalized IoU of every pair, as ``torchvision.ops.generalized_box_iou``; otherwise as :func:`box_iou`."""
    return _overlap("generalized_box_iou", boxes1, boxes2, "giou", _TINY)


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Distance IoU of every pair, as ``torchvision.ops.distance_box_iou``; otherwise as :func:`box_iou`.

    ``eps`` is added to the squared diagonal and, other than in torchvision, to the union: no difference for boxes of
    pixels, up to eps over the union for boxes of a normalised picture.
    """
    return _overlap("distance_box_iou", boxes1, boxes2, "diou", eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of every pair, as ``torchvision.ops.complete_box_iou``; otherwise as :func:`distance_box_iou`.

    ``eps`` is also added to the heights in the aspect ratios. Nothing is clamped.
    """
    return _overlap("complete_box_iou", boxes1, boxes2, "ciou", eps)


def _overlap(op: str, boxes1: Tensor, boxes2: Tensor, mode: str, eps: float) -> Tensor:
    _check.tensors(op, boxes1=boxes1, boxes2=boxes2)
    _check.numbers(op, eps=eps)
    return pairwise_iou(boxes1, boxes2, mode=mode, eps=eps)
