"""The detector's own objective: where the centres of boxes are, and what their boxes are like (CenterPoint)."""

import torch
from torch import Tensor

from pydistill.losses.normalizers import joint_mean
from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import BEVGrid, gaussian_region
from pydistill.recipes.bev.classes import CLASSES, TASKS
from pydistill.recipes.bev.data import Batch

_OVERLAP = 0.1  # of the bells on the targets' heat maps
_LEAST_RADIUS = 1
_VELOCITY = 0.2  # weight beside a box's other numbers
_CLAMP = 1e-4


def detection_losses(prediction: BEVPrediction, batch: Batch, grid: BEVGrid) -> dict[str, Tensor]:
    """The focal loss of the heat maps, over the number of boxes, and the L1 loss of the numbers at their centres.

    Both are sums over tasks; the numbers of boxes are means over all processes. One that is not finite does not count.

    Reference: Zhou et al. 2019 (CenterNet), arXiv:1904.07850, equation 1; Yin et al. 2021, section 4.
    """
    boxes, labels = batch.boxes, batch.labels
    place = grid.cells(boxes[..., :2])
    cell = place.floor()
    inside = (
        batch.valid
        & boxes.isfinite().all(-1)
        & (cell >= 0).all(-1)
        & (cell[..., 0] < grid.width)
        & (cell[..., 1] < grid.height)
    )
    target = gaussian_region(
        boxes, inside, grid, overlap=_OVERLAP, min_radius=_LEAST_RADIUS, labels=labels, num_classes=len(CLASSES)
    )
    index = (cell[..., 1] * grid.width + cell[..., 0]).long().where(inside, 0)
    numbers = encode(boxes, place - cell - 0.5).where(inside[..., None], 0)
    known = torch.ones_like(numbers)
    known[..., 8:] = batch.timed[..., None].to(known.dtype)
    own = [inside & (labels >= min(task)) & (labels <= max(task)) for task in TASKS]  # neighbours, each of them
    counts = joint_mean({str(task): mask.sum().to(target.dtype) for task, mask in enumerate(own)})
    heat = total = prediction.heatmaps[0].new_zeros((), dtype=target.dtype)
    for task, (classes, mask) in enumerate(zip(TASKS, own, strict=True)):
        by = counts[str(task)].clamp(min=1)
        logits = prediction.heatmaps[task].to(target.dtype)
        heat = heat + _focal(logits, target[:, classes[0] : classes[-1] + 1]) / by
        at = index[:, None].expand(-1, numbers.shape[-1], -1)
        found = prediction.regressions[task].to(target.dtype).flatten(2).gather(2, at).transpose(1, 2)
        gap = (found - numbers).abs() * known
        gap = gap[..., :8].sum(-1) + _VELOCITY * gap[..., 8:].sum(-1)
        total = total + (gap * mask).sum() / by
    return {"heatmap": heat, "box": 0.25 * total}


def encode(boxes: Tensor, offset: Tensor) -> Tensor:
    """(..., 10): the numbers of boxes (..., 9) whose centres are ``offset`` cells from the centre of their cell."""
    return torch.cat(
        [
            offset, boxes[..., 2:3], boxes[..., 3:6].clamp(min=1e-2).log(), boxes[..., 6:7].sin(),
            boxes[..., 6:7].cos(), boxes[..., 7:9],
        ],
        -1,
    )  # fmt: skip


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid().clamp(_CLAMP, 1 - _CLAMP)
    centre = target == 1
    found = (1 - p).square() * p.log() * centre
    missed = p.square() * (1 - p).log() * (1 - target) ** 4 * ~centre
    return -(found + missed).sum()
