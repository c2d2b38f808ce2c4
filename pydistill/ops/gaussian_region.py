"""Where the centres of boxes are on a map in bird's-eye view, as bells."""

import math

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._register import Op
from pydistill.ops.bev_grid import BEVGrid, check_grid

_FORMULAS = ("released", "corrected")


def gaussian_region(
    boxes: Tensor,
    valid: Tensor,
    grid: BEVGrid,
    *,
    overlap: float = 0.7,
    min_radius: int = 0,
    formula: str = "released",
    labels: Tensor | None = None,
    num_classes: int | None = None,
) -> Tensor:
    r"""The largest of the bells that the boxes of an image put on their centres.

    A box whose centre lies in cell :math:`(x_b, y_b)` gives the cells with :math:`|x - x_b|, |y - y_b| \le r`

    .. math:: \exp\Big(-\frac{(x - x_b)^2 + (y - y_b)^2}{2 \sigma^2}\Big), \quad \sigma = \frac{2 r + 1}{6}

    Its radius r is the whole part of the least of three lengths by which a box of l x w cells (not turned) can be moved
    along both axes, grown or shrunk on each side until its IoU with itself is ``overlap``.

    Args:
        boxes: (B, M, 5 or more): x, y, z, l, w, ... in metres. float64, float32, float16 or bfloat16.
        valid: (B, M) bool: which boxes there are. One that has a centre or sides that are not finite, or a negative
            side, paints nothing.
        grid: the map's cells.
        overlap: in (0, 1).
        min_radius: radii below this one are it.
        formula: ``"released"``: CornerNet's, which takes the other root of two of the quadratic equations and does not
            divide by their leading coefficients; it is what UniDistill trained with. ``"corrected"``: the lengths as
            said above.
        labels: (B, M) int64, with ``num_classes``: a map of each class. A box whose label is outside paints nothing.
        num_classes: how many.

    Returns:
        (B, H, W), or (B, num_classes, H, W) with labels, in [0, 1]; float64 of float64 boxes, else float32. No
        gradient. A centre off the map by less than a cell, below 0, counts as in cell 0, as the released code rounds.

    Raises:
        ValueError: If a shape, a device or an option is not one of the above; under ``pydistill.checking`` also for
            valid boxes with numbers that are not finite.
        TypeError: If a dtype is not one of the above, or ``grid`` is no ``BEVGrid``.

    Reference:
        ``calculate_box_mask_gaussian`` of megvii-research/CVPR2023-UniDistill (Zhou et al. 2023, arXiv:2303.15083,
        section 3.4); Law and Deng 2018 (CornerNet), arXiv:1808.01244, section 3.1.
    """
    check_grid("gaussian_region", grid)
    _check_arguments(boxes, valid, overlap, min_radius, formula, labels, num_classes)
    if _check.enabled(boxes, valid):
        _check.boxes("gaussian_region", boxes[..., [0, 1, 3, 4]].where(valid[..., None], 0), corners=False)
        if labels is not None and num_classes is not None:
            _check.labels("gaussian_region", labels.where(valid, 0), num_classes)
    wide = torch.float64 if boxes.dtype == torch.float64 else torch.float32
    region: Tensor = _gaussian_region(
        boxes.detach().to(wide), valid, labels, num_classes or 1, grid.x_min, grid.y_min, grid.cell_x, grid.cell_y,
        grid.height, grid.width, overlap, min_radius, formula == "released",
    )  # fmt: skip
    return region.squeeze(1) if labels is None else region


def gaussian_region_reference(
    boxes: Tensor,
    valid: Tensor,
    grid: BEVGrid,
    *,
    overlap: float = 0.7,
    min_radius: int = 0,
    formula: str = "released",
    labels: Tensor | None = None,
    num_classes: int | None = None,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    boxes = boxes.detach().to(torch.float64 if boxes.dtype == torch.float64 else torch.float32)
    centre, sides = grid.cells(boxes[..., :2]).trunc(), boxes[..., 3:5] / boxes.new_tensor([grid.cell_x, grid.cell_y])
    paints = valid & centre.isfinite().all(-1) & sides.isfinite().all(-1) & (sides >= 0).all(-1)
    s, a = sides.sum(-1), sides.prod(-1)
    moved = (s**2 - 4 * a * (1 - overlap) / (1 + overlap)).sqrt()
    shrunk = (4 * s**2 - 16 * (1 - overlap) * a).sqrt()
    grown = (4 * overlap**2 * s**2 + 16 * overlap * (1 - overlap) * a).sqrt() - 2 * overlap * s
    if formula == "released":
        lengths = torch.stack([(s + moved) / 2, (2 * s + shrunk) / 2, grown / 2])
    else:
        lengths = torch.stack([(s - moved) / 2, (2 * s - shrunk) / 8, grown / (8 * overlap)])
    radius = lengths.amin(0).trunc().clamp(min=min_radius)[..., None, None]
    y, x = torch.arange(grid.height, device=boxes.device)[:, None], torch.arange(grid.width, device=boxes.device)
    dx, dy = x - centre[..., :1, None], y - centre[..., 1:, None]
    bell = (-(dx**2 + dy**2) / (2 * ((2 * radius + 1) / 6) ** 2)).exp()
    bell = bell.where((dx.abs() <= radius) & (dy.abs() <= radius) & paints[..., None, None], 0)
    if labels is not None:
        own = labels[..., None] == torch.arange(num_classes or 1, device=boxes.device)  # (B, M, classes)
        bell = bell[:, :, None] * own[..., None, None]
    return bell.amax(1) if boxes.shape[1] else bell.sum(1)


def _check_arguments(
    boxes: Tensor,
    valid: Tensor,
    overlap: float,
    min_radius: int,
    formula: str,
    labels: Tensor | None,
    num_classes: int | None,
) -> None:
    op = "gaussian_region"
    _check.tensors(op, boxes=boxes, valid=valid)
    _check.optional(op, labels=labels)
    _check.numbers(op, overlap=overlap, min_radius=min_radius, num_classes=num_classes or 0)
    if boxes.ndim != 3 or boxes.shape[-1] < 5:
        raise ValueError(f"{op}: expected boxes of shape (B, M, 5 or more), got {list(boxes.shape)}")
    if not boxes.is_floating_point():
        raise TypeError(f"{op}: expected boxes of a floating point dtype, got {boxes.dtype}")
    for name, x, dtype in (("valid", valid, torch.bool), ("labels", labels, torch.int64)):
        if x is not None and x.shape != boxes.shape[:2]:
            raise ValueError(f"{op}: expected {name} of shape {list(boxes.shape[:2])}, got {list(x.shape)}")
        if x is not None and x.dtype != dtype:
            raise TypeError(f"{op}: expected {name} of dtype {dtype}, got {x.dtype}")
    if (labels is None) != (num_classes is None) or (num_classes is not None and num_classes < 1):
        got = f"labels {None if labels is None else list(labels.shape)} and num_classes {num_classes}"
        raise ValueError(f"{op}: expected labels and num_classes >= 1 together, got {got}")
    if not 0 < overlap < 1:
        raise ValueError(f"{op}: expected overlap in (0, 1), got {overlap}")
    if not (min_radius >= 0 and math.isfinite(min_radius)):
        raise ValueError(f"{op}: expected min_radius >= 0, got {min_radius}")
    if formula not in _FORMULAS:
        raise ValueError(f"{op}: expected formula in {_FORMULAS}, got {formula!r}")


def _empty(boxes: Tensor, valid: Tensor, labels: Tensor | None, classes: int, *rest: float) -> Tensor:
    height, width = rest[4:6]
    return boxes.new_empty(boxes.shape[0], classes, int(height), int(width))


def _kernel(
    boxes: Tensor,
    valid: Tensor,
    labels: Tensor | None,
    classes: int,
    x_min: float,
    y_min: float,
    cell_x: float,
    cell_y: float,
    height: int,
    width: int,
    overlap: float,
    min_radius: float,
    released: bool,
) -> Tensor:
    kernels, where = _C.on(boxes)
    region = boxes.new_empty(boxes.shape[0], classes, height, width)
    labels = None if labels is None else labels.contiguous()
    kernels.gaussian_region(
        where, boxes.contiguous(), valid.contiguous(), labels, x_min, y_min, cell_x, cell_y, overlap, min_radius,
        released, region,
    )  # fmt: skip
    return region


_gaussian_region = Op(
    "gaussian_region(Tensor boxes, Tensor valid, Tensor? labels, int classes, float x_min, float y_min, float cell_x, "
    "float cell_y, int height, int width, float overlap, float min_radius, bool released) -> Tensor",
    _kernel,
    _empty,
)
