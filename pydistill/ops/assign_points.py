"""Assignment of points: which point of an anchor-free detector learns which box."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import check_padded, common_dtype, proper
from pydistill.ops._register import Op, accumulator
from pydistill.ops.assign_atss import BACKGROUND, IGNORED

FCOS_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, torch.inf))


class PointAssignment(NamedTuple):
    """Which box each point has."""

    gt_index: Tensor
    """``(B, A)`` int64: the index of a box, or -1 background, or -2 ignored."""
    centerness: Tensor
    """``(B, A)``: 1 in the middle of that box, 0 on its border and where the point has none."""


def assign_points(
    points: Tensor,
    strides: Sequence[float],
    level_sizes: Sequence[int],
    boxes: Tensor,
    counts: Tensor,
    *,
    regress_ranges: Sequence[tuple[float, float]] = FCOS_RANGES,
    center_sampling: float | None = 1.5,
    valid: Tensor | None = None,
) -> PointAssignment:
    r"""Gives each point the smallest box that it is in the middle of and that its level is made for.

    With l, t, r, b the distances from a point of level k, stride :math:`s_k`, to the sides of box j, the box may have
    it if

    .. math:: \min(l, t, r, b) > 0, \qquad \max(|x - x_j|, |y - y_j|) < c\, s_k, \qquad
              low_k \le \max(l, t, r, b) \le high_k

    with :math:`(x_j, y_j)` the centre of the box and c ``center_sampling``. Of such boxes the one of the smallest area
    has it, of equals the first. Its centerness is :math:`\sqrt{\frac{\min(l, r)}{\max(l, r)} \frac{\min(t, b)}{\max(t,
    b)}}`. Nothing is read back by the host.

    Args:
        points: ``(A, 2)`` x and y in pixels, the same for all images, level by level.
        strides: Pixels between the points of each level; at most 16 levels.
        level_sizes: Number of points per level, adding up to A.
        boxes: ``(B, G, 4)`` object boxes ``x1, y1, x2, y2`` in pixels, padded.
        counts: ``(B,)`` int64, how many boxes of each image are real; clamped to [0, G].
        regress_ranges: The lowest and the highest largest distance of each level, in pixels, both included.
        center_sampling: How far from the centre a point may be, in strides. None: anywhere inside.
        valid: ``(B, A)`` bool: points that take part. None: all.

    Returns:
        A :class:`PointAssignment`. A box that is inverted or not finite, or that is padding, has no point; a point that
        is not valid or not finite is ignored. Centerness is float64 for float64 inputs, else float32.

    Raises:
        ValueError: if a shape, ``level_sizes`` or an option is not as above.
        TypeError: if points or boxes are not floating point, counts not int64 or flags not bool.

    Reference:
        Tian et al. 2019 (FCOS), arXiv:1904.01355, sections 3.1 to 3.3. As the targets of mmdetection's ``FCOSHead``
        with ``center_sampling=True``, there off by default; boxes of more than 1e8 square pixels have points, too.
    """
    _check.tensors("assign_points", points=points, boxes=boxes, counts=counts)
    _check.optional("assign_points", valid=valid)
    if center_sampling is not None:
        _check.numbers("assign_points", center_sampling=center_sampling)
    sizes = _check.levels("assign_points", level_sizes, len(points) if points.ndim == 2 else None)
    dtype = common_dtype("assign_points", points, boxes)
    levels = len(sizes)
    for name, given in (("strides", strides), ("regress_ranges", regress_ranges)):
        if isinstance(given, Tensor):
            raise TypeError(f"assign_points: expected {name} a sequence of numbers, got a tensor")
        if len(given) != levels:
            raise ValueError(f"assign_points: expected {name} of {levels} levels, got {len(given)}")
    radius = [torch.inf if center_sampling is None else center_sampling * float(stride) for stride in strides]
    low, high = ([float(r[k]) for r in regress_ranges] for k in (0, 1))
    points, boxes = points.detach().to(dtype), boxes.detach().to(dtype)
    assigned = PointAssignment(*_assign(points, sizes, boxes, counts, radius, low, high, valid))
    if _check.enabled():  # here, because the shapes are right by now
        _check.finite("assign_points", "points", points)
        check_padded("assign_points", boxes, counts)
    return assigned


def assign_points_reference(
    points: Tensor,
    strides: Sequence[float],
    level_sizes: Sequence[int],
    boxes: Tensor,
    counts: Tensor,
    *,
    regress_ranges: Sequence[tuple[float, float]] = FCOS_RANGES,
    center_sampling: float | None = 1.5,
    valid: Tensor | None = None,
) -> PointAssignment:
    """The specification of :func:`assign_points`, in plain PyTorch."""
    level = torch.repeat_interleave(torch.arange(len(level_sizes)), torch.tensor(level_sizes, dtype=torch.int64))
    limits = points.new_tensor(regress_ranges).reshape(-1, 2)[level]
    p = points[:, None]  # (A, 1, 2); with boxes (B, 1, G, 2)
    low, high = boxes[:, None, :, :2], boxes[:, None, :, 2:]
    sides = torch.cat([p - low, high - p], -1)
    takes = (sides > 0).all(-1) & (proper(boxes) & (torch.arange(boxes.shape[1]) < counts[:, None]))[:, None]
    furthest = sides.amax(-1)
    takes &= (furthest >= limits[:, :1]) & (furthest <= limits[:, 1:])
    if center_sampling is not None:
        radius = center_sampling * points.new_tensor(strides)[level][:, None, None]
        centre = (low + high) / 2
        takes &= ((p > centre - radius) & (p < centre + radius)).all(-1)
    usable = points.isfinite().all(-1).expand(len(boxes), -1)
    usable = usable if valid is None else usable & valid
    shape = usable.shape
    if takes.numel() == 0:
        return PointAssignment(torch.where(usable, BACKGROUND, IGNORED), points.new_zeros(shape))
    area = (high - low).prod(-1).where(takes, torch.inf)
    index = (area == area.amin(-1, keepdim=True)).int().argmax(-1)
    has = takes.any(-1) & usable
    x1, y1, x2, y2 = sides.gather(2, index[..., None, None].expand(*shape, 1, 4))[:, :, 0].unbind(-1)
    ratio = torch.minimum(x1, x2) / torch.maximum(x1, x2) * torch.minimum(y1, y2) / torch.maximum(y1, y2)
    index = torch.where(has, index, torch.where(usable, BACKGROUND, IGNORED))
    return PointAssignment(index, ratio.where(has, 0.0).sqrt())


def _empty(points: Tensor, level_sizes: Sequence[int], boxes: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """The outputs; of any shape where a shape is wrong, which the kernels then say."""
    b, a = (x.shape[0] if x.ndim else 0 for x in (boxes, points))
    return boxes.new_empty(b, a, dtype=torch.int64), boxes.new_empty(b, a, dtype=accumulator(boxes.dtype))


def _kernel(
    points: Tensor,
    level_sizes: Sequence[int],
    boxes: Tensor,
    counts: Tensor,
    radius: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    gt_index, centerness = _empty(points, level_sizes, boxes)
    kernels, where = _C.on(points)
    kernels.assign_points(
        where, points.contiguous(), level_sizes, boxes.contiguous(), counts.contiguous(), radius, low, high,
        None if valid is None else valid.contiguous(), gt_index, centerness,
    )  # fmt: skip
    return gt_index, centerness


_assign = Op(
    "assign_points(Tensor points, int[] level_sizes, Tensor boxes, Tensor counts, float[] radius, float[] low, "
    "float[] high, Tensor? valid) -> (Tensor, Tensor)",
    _kernel,
    fake=_empty,
)
