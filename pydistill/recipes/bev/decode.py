"""From heat maps to boxes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import BEVGrid
from pydistill.recipes.bev.classes import CLASSES, TASKS

# Centres of one class closer than this, in metres, are one object: about half its width.
RADII = {
    "car": 1.5, "truck": 2.0, "construction_vehicle": 2.0, "bus": 2.5, "trailer": 2.5, "barrier": 0.8,
    "motorcycle": 0.6, "bicycle": 0.6, "pedestrian": 0.4, "traffic_cone": 0.4,
}  # fmt: skip


def decode(
    prediction: BEVPrediction, grid: BEVGrid, *, most: int = 100, least: float = 0.03
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each sample boxes (n, 9), scores and labels, the best first; what is written to the screen or scored.

    Each class has its local maxima (3 x 3 cells); of centres within a class's radius of each other the better stays.

    Args:
        prediction: of B samples.
        grid: its cells.
        most: boxes of a sample.
        least: score that a box must have.
    """
    found = []
    for task, classes in enumerate(TASKS):
        scores = prediction.heatmaps[task].detach().float().sigmoid()
        peaks = scores * (F.max_pool2d(scores, 3, 1, 1) == scores)
        value, index = peaks.flatten(1).topk(min(most, peaks[0].numel()))
        area = grid.height * grid.width
        cell, label = index % area, index // area
        numbers = prediction.regressions[task].detach().float().flatten(2)
        numbers = numbers.gather(2, cell[:, None].expand(-1, numbers.shape[1], -1)).transpose(1, 2)
        x, y = cell % grid.width, cell // grid.width
        u, v = x + 0.5 + numbers[..., 0], y + 0.5 + numbers[..., 1]
        boxes = torch.stack(
            [
                grid.x_min + u * grid.cell_x, grid.y_min + v * grid.cell_y, numbers[..., 2],
                *numbers[..., 3:6].clamp(max=4).exp().unbind(-1), torch.atan2(numbers[..., 6], numbers[..., 7]),
                numbers[..., 8], numbers[..., 9],
            ],
            -1,
        )  # fmt: skip
        found.append((boxes, value, torch.tensor(classes, device=label.device)[label]))
    boxes, scores, labels = (torch.cat(part, 1).cpu() for part in zip(*found, strict=True))
    return [_pick(*sample, most, least) for sample in zip(boxes, scores, labels, strict=True)]


def _pick(boxes: Tensor, scores: Tensor, labels: Tensor, most: int, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Circle suppression within each class."""
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= least]
    radius = torch.tensor([RADII[name] for name in CLASSES])[labels]
    kept: list[int] = []
    for i in order.tolist():
        rivals = [k for k in kept if labels[k] == labels[i]]
        gap = torch.linalg.vector_norm(boxes[rivals, :2] - boxes[i, :2], dim=-1)
        if not bool((gap < radius[i]).any()):
            kept.append(i)
        if len(kept) == most:
            break
    return boxes[kept], scores[kept], labels[kept]
