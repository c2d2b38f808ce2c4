"""Boxes as the distances from a point to their four sides, and back."""

from math import inf
from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import common_dtype
from pydistill.ops._register import Op, accumulator, differentiable


def distance_to_box(points: Tensor, distances: Tensor, *, scale: Tensor | None = None) -> Tensor:
    r"""The boxes whose left, top, right and bottom sides are at ``distances`` from ``points``.

    With a point :math:`(x, y)`, its distances :math:`l, t, r, b` and their unit s, the box is
    :math:`(x - s l,\ y - s t,\ x + s r,\ y + s b)`.

    Args:
        points: ``(A, 2)`` x, y, in pixels or any unit, any floating dtype. A constant.
        distances: ``(..., A, 4)``, of the same unit or, with ``scale``, of s units. They may be negative.
        scale: ``(A,)`` s, for instance the stride of each point's level; None: 1. A constant.

    Returns:
        Corners ``x1, y1, x2, y2``, ``(..., A, 4)``; float64 for float64, else float32. NaN stays in its own side.

    Raises:
        ValueError: If a shape is not as above.
        TypeError: If a tensor is not floating point.

    Reference:
        Tian et al. 2019 (FCOS), arXiv:1904.01355, equation 1; ``distance2bbox`` of mmdetection, whose ``max_shape`` is
        left to the caller.
    """
    points, distances, scale = _prepared("distance_to_box", points, distances, scale, "distances")
    result: Tensor = _distance_to_box(distances, points, scale)
    return result


def box_to_distance(
    points: Tensor,
    boxes: Tensor,
    *,
    min_distance: float | None = 0.0,
    max_distance: float | None = None,
    margin: float = 0.1,
    scale: Tensor | None = None,
) -> Tensor:
    r"""The distances from ``points`` to the sides of ``boxes``: the inverse of :func:`distance_to_box`, within bounds.

    With a point :math:`(x, y)`, a box :math:`(x_1, y_1, x_2, y_2)` and the unit s,

    .. math:: (l, t, r, b) = \mathrm{clamp}\Big(\frac1s (x - x_1,\ y - y_1,\ x_2 - x,\ y_2 - y),
              \ d_{min},\ d_{max} - m\Big)

    with :math:`d_{min}` and :math:`d_{max}` the bounds and m the ``margin``.

    Args:
        points: ``(A, 2)`` x, y, in pixels or any unit, any floating dtype.
        boxes: ``(..., A, 4)`` corners ``x1, y1, x2, y2``, of the same unit.
        min_distance: Lower bound of the distances; None: none.
        max_distance: ``max_distance - margin`` is their upper bound; None: none. With ``reg_max`` they
            are what the distribution focal loss takes: its upper bin is then ``reg_max`` at most.
        margin: See ``max_distance``.
        scale: ``(A,)`` the unit of the distances in those of the boxes, such as the stride of each level; None: 1.

    Returns:
        Left, top, right, bottom, ``(..., A, 4)``; float64 for float64, else float32. No gradient: they are targets. NaN
        stays in its own side.

    Raises:
        ValueError: If a shape is not as above, or the bounds cross.
        TypeError: If a tensor is not floating point.

    Reference:
        ``bbox2distance`` of mmdetection, which has no bounds where ``max_dis`` is None: pass ``min_distance=None``.
    """
    low = -inf if min_distance is None else min_distance
    most = inf if max_distance is None else max_distance
    _check.numbers("box_to_distance", min_distance=low, max_distance=most, margin=margin)
    low, high = float(low), most - margin
    if not low <= high:
        raise ValueError(f"box_to_distance: expected min_distance <= max_distance - margin, got {low} and {high}")
    points, boxes, scale = _prepared("box_to_distance", points, boxes, scale, "boxes")
    result: Tensor = _box_to_distance(boxes.detach(), points, scale, low, high)
    return result


def distance_to_box_reference(points: Tensor, distances: Tensor, *, scale: Tensor | None = None) -> Tensor:
    """The specification of :func:`distance_to_box`, in plain PyTorch."""
    steps = distances if scale is None else distances * scale[:, None]
    return torch.cat([points - steps[..., :2], points + steps[..., 2:]], -1)


def box_to_distance_reference(
    points: Tensor,
    boxes: Tensor,
    *,
    min_distance: float | None = 0.0,
    max_distance: float | None = None,
    margin: float = 0.1,
    scale: Tensor | None = None,
) -> Tensor:
    """The specification of :func:`box_to_distance`, in plain PyTorch."""
    distances = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)
    if scale is not None:
        distances = distances / scale[:, None]
    low = -inf if min_distance is None else min_distance
    return distances.clamp(low, inf if max_distance is None else max_distance - margin)


def _prepared(
    op: str, points: Tensor, boxes: Tensor, scale: Tensor | None, name: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All of one dtype, the constants contiguous and without gradients."""
    _check.tensors(op, points=points, **{name: boxes})
    _check.optional(op, scale=scale)
    dtype = common_dtype(op, points, boxes)
    if points.dim() != 2 or points.shape[1] != 2:
        raise ValueError(f"{op}: expected points of shape (A, 2), got {list(points.shape)}")
    if boxes.dim() < 2 or boxes.shape[-2:] != (len(points), 4):
        raise ValueError(f"{op}: expected {name} of shape (..., {len(points)}, 4), got {list(boxes.shape)}")
    if scale is not None:
        if scale.shape != points.shape[:1]:
            raise ValueError(f"{op}: expected scale of shape [{len(points)}], got {list(scale.shape)}")
        scale = scale.detach().to(dtype).contiguous()
    return points.detach().to(dtype).contiguous(), boxes.to(dtype), scale


def _images(boxes: Tensor) -> Tensor:
    """(B, A, 4) of (..., A, 4)."""
    return boxes.reshape(boxes.shape[:-2].numel(), *boxes.shape[-2:]).contiguous()


def _empty(boxes: Tensor, *_: Any) -> Tensor:
    return boxes.new_empty(boxes.shape, dtype=accumulator(boxes.dtype))


def _forward(distances: Tensor, points: Tensor, scale: Tensor | None) -> Tensor:
    out, images = _empty(distances), _images(distances)
    kernels, where = _C.on(distances)
    kernels.distance_to_box(where, points, images, scale, out.view(images.shape))
    return out


def _backward(grad: Tensor, points: Tensor, scale: Tensor | None) -> Tensor:
    down, images = grad.new_empty(grad.shape, dtype=points.dtype), _images(grad.to(accumulator(points.dtype)))
    kernels, where = _C.on(points)
    kernels.distance_to_box_backward(where, images, points, scale, down.view(images.shape))
    return down


def _encode(boxes: Tensor, points: Tensor, scale: Tensor | None, low: float, high: float) -> Tensor:
    out, images = _empty(boxes), _images(boxes)
    kernels, where = _C.on(boxes)
    kernels.box_to_distance(where, points, images, scale, low, high, out.view(images.shape))
    return out


_distance_to_box = differentiable(
    Op("distance_to_box(Tensor distances, Tensor points, Tensor? scale) -> Tensor", _forward, fake=_empty),
    Op(
        "distance_to_box_backward(Tensor grad, Tensor points, Tensor? scale) -> Tensor",
        _backward,
        fake=lambda grad, points, *_: grad.new_empty(grad.shape, dtype=points.dtype),
    ),
    save=lambda ctx, inputs, _: ctx.save_for_backward(*inputs[1:]),
    recall=lambda ctx, grad: (grad, *ctx.saved_tensors),
)
_box_to_distance = Op(
    "box_to_distance(Tensor boxes, Tensor points, Tensor? scale, float low, float high) -> Tensor", _encode, fake=_empty
)
