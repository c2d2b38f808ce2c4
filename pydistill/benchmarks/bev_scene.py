"""Maps and boxes in bird's-eye view for the suites: at scale 1, 4 samples of 180 x 180 cells, 40 boxes each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pydistill.benchmarks.cases import contenders, sides
from pydistill.benchmarks.timing import rotate
from pydistill.ops import BEVGrid, box_keypoints

SAMPLES, BOXES, CELL = 4, 40, 0.6
CLASSES, NUMBERS = (1, 2, 2, 1, 2, 2), (2, 1, 3, 2, 2, 1)  # of nuScenes' heads: of each task; of one


def grid_of(scale: float) -> BEVGrid:
    """Square, with the vehicle in its middle."""
    (cells,) = sides(scale, 180)
    return BEVGrid(-cells * CELL / 2, -cells * CELL / 2, CELL, CELL, cells, cells)


def boxes_on(grid: BEVGrid, device: str) -> tuple[Tensor, Tensor]:
    """Boxes as large as cars, all over the map, and that all of them count."""
    rng = torch.Generator().manual_seed(0)
    unit, half = torch.rand(SAMPLES, BOXES, 7, generator=rng), 100 / 108 * -grid.x_min
    boxes = torch.cat(
        [2 * half * unit[..., :2] - half, unit[..., 2:3], 1 + 4 * unit[..., 3:6], 6.28 * unit[..., 6:]], -1
    )
    return boxes.to(device), torch.ones(SAMPLES, BOXES, dtype=torch.bool, device=device)


def maps(
    channels: int, grid: BEVGrid, device: str, layout: torch.memory_format = torch.contiguous_format
) -> tuple[Tensor, Tensor]:
    """A student's features, which learn, and a teacher's."""
    rng = torch.Generator().manual_seed(1)
    student, teacher = (
        torch.randn(SAMPLES, channels, grid.height, grid.width, generator=rng).to(device, memory_format=layout)
        for _ in range(2)
    )
    return student.requires_grad_(), teacher


def heads(grid: BEVGrid, device: str) -> list[Tensor]:
    """The heat maps of all tasks, then the numbers of each."""
    rng = torch.Generator().manual_seed(2)
    channels = [*CLASSES, *NUMBERS * len(CLASSES)]
    return [torch.randn(SAMPLES, n, grid.height, grid.width, generator=rng).to(device) for n in channels]


def at_key_points(
    ours: Callable[..., Tensor],
    eager: Callable[..., Tensor],
    device: str,
    scale: float,
    channels: int,
    layout: torch.memory_format,
    operations: int,
) -> dict[str, Any]:
    """What ``compare`` takes of a loss at nine points a box; ``operations`` of a point and channel.

    Floor: the gradient allocated and filled with zeros.
    """
    grid = grid_of(scale)
    boxes, valid = boxes_on(grid, device)
    points, (student, teacher) = box_keypoints(boxes, grid), maps(channels, grid, device, layout)
    return dict(
        **contenders(ours, eager, student, teacher, points, valid),
        floor=rotate(torch.zeros_like, teacher),
        bytes_moved=4 * student.numel(),
        operations=operations * channels * points[..., 0].numel(),
        rounds=7,
    )
