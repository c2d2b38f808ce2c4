"""Random boxes and the anchors of a picture, for the tests of the box ops."""

import numpy as np
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


def numpy_boxes(rng: np.random.Generator, *shape: int, coarse: bool = False) -> np.ndarray:
    """Proper boxes in [0, 40]; coarse: corners on a grid of 4, with many ties."""
    corner, sides = 20 * rng.random((2, *shape, 2))
    both = np.concatenate([corner, corner + sides], -1)
    return 4 * np.round(both / 4) if coarse else both


def numpy_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, G), an independent statement; 0 where both have no area."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    areas = (a[:, None, 2:] - a[:, None, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1)
    return both / np.maximum(areas - both, 1e-6)
