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
    r"""Generalized IoU of every pair, as ``torchvision.ops.generalized_box_iou``.

    With I the area of the intersection, U of the union and E of the smallest box around both,

    .. math:: GIoU = \frac{I}{U} - \frac{E - U}{E}

    Args:
        boxes1: ``(N, 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype.
        boxes2: ``(M, 4)``, in the same unit.

    Returns:
        ``(N, M)`` in [-1, 1], differentiable; float64 for float64 boxes, else float32. Of two boxes without area at one
        point 0, where torchvision has NaN.

    Raises:
        ValueError: If a shape is not as above.
        TypeError: If the boxes are not floating point.

    Reference:
        Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1.
    """
    return _overlap("generalized_box_iou", boxes1, boxes2, "giou", _TINY)


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Distance IoU of every pair, as ``torchvision.ops.distance_box_iou``.

    With I the area of the intersection and U of the union, :math:`\rho` the distance of the centres and c the diagonal
    of the smallest box around both,

    .. math:: DIoU = \frac{I}{U + \epsilon} - \frac{\rho^2}{c^2 + \epsilon}

    torchvision adds :math:`\epsilon` to the squared diagonal alone: no difference for boxes of pixels, up to eps over
    the union for boxes of a normalised picture.

    Args:
        boxes1: ``(N, 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype.
        boxes2: ``(M, 4)``, in the same unit.
        eps: :math:`\epsilon`, in squared units of the boxes.

    Returns:
        ``(N, M)`` in [-1, 1], differentiable; float64 for float64 boxes, else float32.

    Raises:
        ValueError: If a shape or eps is not as above.
        TypeError: If the boxes are not floating point.

    Reference:
        Zheng et al. 2020, arXiv:1911.08287, equations 6 and 7.
    """
    return _overlap("distance_box_iou", boxes1, boxes2, "diou", eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Complete IoU of every pair, as ``torchvision.ops.complete_box_iou``.

    With the DIoU of :func:`distance_box_iou` and v, which compares the aspect ratios,

    .. math:: CIoU = DIoU - \alpha v, \qquad
              v = \frac{4}{\pi^2} \Big(\arctan\frac{w_2}{h_2 + \epsilon} - \arctan\frac{w_1}{h_1 + \epsilon}\Big)^2,
              \qquad \alpha = \frac{v}{1 - IoU + v + \epsilon}

    and :math:`\alpha` a constant in the gradient. Nothing is clamped.

    Args:
        boxes1: ``(N, 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype.
        boxes2: ``(M, 4)``, in the same unit.
        eps: :math:`\epsilon`, in squared units of the boxes; of the heights in units.

    Returns:
        ``(N, M)``, at most 1, differentiable; float64 for float64 boxes, else float32.

    Raises:
        ValueError: If a shape or eps is not as above.
        TypeError: If the boxes are not floating point.

    Reference:
        Zheng et al. 2020, arXiv:1911.08287, equations 8 to 11.
    """
    return _overlap("complete_box_iou", boxes1, boxes2, "ciou", eps)


def _overlap(op: str, boxes1: Tensor, boxes2: Tensor, mode: str, eps: float) -> Tensor:
    _check.tensors(op, boxes1=boxes1, boxes2=boxes2)
    _check.numbers(op, eps=eps)
    return pairwise_iou(boxes1, boxes2, mode=mode, eps=eps)
