"""Points of boxes in bird's-eye view, in the cells of a map."""

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._register import Op, accumulator
from pydistill.ops.bev_grid import BEVGrid, check_grid

# Of a box whose sides are 1, along its length and its width: corners clockwise from the rear right one, centre,
# and the middles of the rear, left, front and right sides.
_NINE = (
    (-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5), (0.0, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.5, 0.0), (0.0, -0.5)
)  # fmt: skip


def box_keypoints(boxes: Tensor, grid: BEVGrid, *, layout: str | tuple[int, int] = "nine") -> Tensor:
    r"""Where the key points of boxes lie on a map.

    A box :math:`(x, y, z, l, w, h, \theta)` has at :math:`(p, q) \in [-\frac12, \frac12]^2` the point

    .. math::
        x + p\, l \cos\theta - q\, w \sin\theta, \quad y + p\, l \sin\theta + q\, w \cos\theta

    which the grid turns into cells. The nine points are the corners :math:`(-,-), (-,+), (+,+), (+,-)`, the centre, and
    the middles of the rear, the left, the front and the right side.

    Args:
        boxes: (B, M, 7 or more): x, y, z, l, w, h in metres, the yaw in radians, counter-clockwise from x, along which
            l lies at yaw 0; further numbers (velocities, labels) are not looked at. float64, float32, float16 or
            bfloat16.
        grid: the map's cells.
        layout: ``"nine"``, or (k, l) points spread evenly from side to side along length and width, the width's index
            running faster; of one point along an axis the middle is taken.

    Returns:
        (B, M, K, 2) cells (u, v) from the map's corner, not rounded: the centre of cell i is i + 1/2. float64 of
        float64 boxes, else float32, computed in float64. No gradient.

    Raises:
        ValueError: If the shape or the layout is not one of the above.
        TypeError: If ``boxes`` are not floating point, or ``grid`` is no ``BEVGrid``.

    Reference:
        Zhou et al. 2023 (UniDistill), arXiv:2303.15083, section 3.2, and ``FeatureDistillLoss`` of
        megvii-research/CVPR2023-UniDistill, which then reads the map at (v, u): see ``keypoint_feature_loss``. Grids of
        points: TiG-BEV, arXiv:2212.13979.
    """
    _check.tensors("box_keypoints", boxes=boxes)
    if boxes.ndim != 3 or boxes.shape[-1] < 7:
        raise ValueError(f"box_keypoints: expected boxes of shape (B, M, 7 or more), got {list(boxes.shape)}")
    if not boxes.is_floating_point():
        raise TypeError(f"box_keypoints: expected boxes of a floating point dtype, got {boxes.dtype}")
    check_grid("box_keypoints", grid)
    along, across = _spread(layout)
    points: Tensor = _box_keypoints(boxes.detach(), along, across, grid.x_min, grid.y_min, grid.cell_x, grid.cell_y)
    return points


def box_keypoints_reference(boxes: Tensor, grid: BEVGrid, *, layout: str | tuple[int, int] = "nine") -> Tensor:
    """The specification: what the kernel must compute, in plain PyTorch."""
    along, across = _spread(layout)
    places = [(p, q) for p in _even(along) for q in _even(across)] if along else _NINE
    p, q = boxes.new_tensor(places, dtype=torch.float64).unbind(-1)
    x, y, _, length, width, _, yaw = (value[..., None] for value in boxes.detach().double()[..., :7].unbind(-1))
    ahead, left = p * length, q * width
    metres = torch.stack([x + ahead * yaw.cos() - left * yaw.sin(), y + ahead * yaw.sin() + left * yaw.cos()], -1)
    return grid.cells(metres).to(accumulator(boxes.dtype))


def _spread(layout: str | tuple[int, int]) -> tuple[int, int]:
    """Points along length and width; 0 and 0 for the nine."""
    if layout == "nine":
        return 0, 0
    if isinstance(layout, tuple) and len(layout) == 2 and all(type(n) is int and n >= 1 for n in layout):
        along, across = layout
        if along * across < 2**30:
            return along, across
    raise ValueError(f"box_keypoints: expected layout 'nine' or (k, l) with k, l >= 1, got {layout!r}")


def _even(count: int) -> list[float]:
    return [i / (count - 1) - 0.5 for i in range(count)] if count > 1 else [0.0]


def _empty(boxes: Tensor, along: int, across: int, *_: float) -> Tensor:
    count = along * across or len(_NINE)
    return boxes.new_empty(*boxes.shape[:2], count, 2, dtype=accumulator(boxes.dtype))


def _kernel(boxes: Tensor, along: int, across: int, x_min: float, y_min: float, cell_x: float, cell_y: float) -> Tensor:
    kernels, where = _C.on(boxes)
    points = _empty(boxes, along, across)
    kernels.box_keypoints(where, boxes.contiguous(), along, across, x_min, y_min, cell_x, cell_y, points)
    return points


_box_keypoints = Op(
    "box_keypoints(Tensor boxes, int along, int across, float x_min, float y_min, float cell_x, float cell_y) "
    "-> Tensor",
    _kernel,
    _empty,
)
