"""Random boxes and the anchors of a picture, for the tests of the box ops."""

import torch
from torch import Tensor


def random_boxes(rng: torch.Generator, *shape: int, size: float = 100.0) -> Tensor:
    """Proper boxes in ``[0, 2 size]``, float64."""
    corner = size * torch.rand(*shape, 2, generator=rng, dtype=torch.float64)
    sides = size * torch.rand(*shape, 2, generator=rng, dtype=torch.float64)
    return torch.cat([corner, corner + sides], -1)


def grid_anchors(height: int, width: int, strides: tuple[int, ...] = (8, 16, 32)) -> tuple[Tensor, list[int]]:
    """A square anchor of side ``8 stride`` on the corner of each cell, and how many there are per level."""
    levels = []
    for stride in strides:
        y, x = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        centre = torch.stack([x, y, x, y], -1).reshape(-1, 4).double()
        half = 4.0 * stride
        levels.append(centre + torch.tensor([-half, -half, half, half], dtype=torch.float64))
    return torch.cat(levels), [len(level) for level in levels]
