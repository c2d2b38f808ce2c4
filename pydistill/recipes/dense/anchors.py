"""Anchors of dense detectors, in the convention of the released code, made once a shape on their device.

Reference: Zhang et al. 2020 (ATSS), arXiv:1912.02424, for one square anchor a location. As in the released code the
anchor of column x and row y of a level is centred on (x * stride, y * stride), the grid's corner.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

Shapes = Sequence[tuple[int, int]]  # height and width of each level


class Grid(NamedTuple):
    """Anchors of all levels, concatenated; the same tensors at every call: read them only.

    Attributes:
        anchors: xyxy pixels (A, 4), float32.
        points: their centres (A, 2) in pixels.
        strides: of each anchor's level (A,), in pixels, float32.
        level_sizes: anchors of each level.
    """

    anchors: Tensor
    points: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


def make_grid(shapes: Shapes, strides: Sequence[int], scale: float = 8.0, device: torch.device | str = "cpu") -> Grid:
    """The anchors of a batch: squares of ``scale * stride``, row by row, level by level.

    Nothing is copied between host and device; from the second call with the same arguments on nothing is computed.

    Args:
        shapes: height and width of each level, as ``DenseOutput.shapes`` has them.
        strides: of the levels in pixels.
        scale: side of an anchor in strides, > 0.
        device: of the result.

    Raises:
        ValueError: unless there are as many strides as levels.
    """
    if len(shapes) != len(strides):
        raise ValueError(f"make_grid: expected a stride for each of {len(shapes)} levels, got {list(strides)}")
    key = tuple((int(h), int(w)) for h, w in shapes)
    return _grid(key, tuple(strides), float(scale), torch.device(device))


def grid_anchors(
    shapes: Shapes, strides: Sequence[int], scale: float = 8.0, device: torch.device | str = "cpu"
) -> tuple[Tensor, list[int]]:
    """Anchors (A, 4) and level sizes of ``make_grid``, as ``LDLoss`` and the assigners take them."""
    grid = make_grid(shapes, strides, scale, device)
    return grid.anchors, list(grid.level_sizes)


def valid_anchors(shapes: Shapes, strides: Sequence[int], sizes: Tensor, divisor: int = 32) -> Tensor:
    """Which anchors lie on their picture, and not on the padding that a batch of several sizes has.

    As in the released code: on a picture of height h, padded to ``divisor``, a level has ceil(h / stride) rows.

    Args:
        shapes, strides: of the levels.
        sizes: heights and widths (N, 2) of the pictures before padding, in pixels.
        divisor: pictures are padded to multiples of it before they are put into a batch.

    Returns:
        (N, A), bool.
    """
    grid = make_grid(shapes, strides, device=sizes.device)
    padded = torch.ceil(sizes.to(torch.float32) / divisor) * divisor
    return (grid.points < padded[:, None].flip(-1)).all(-1)


@lru_cache(maxsize=64)
def _grid(shapes: tuple[tuple[int, int], ...], strides: tuple[int, ...], scale: float, device: torch.device) -> Grid:
    points, steps = [], []
    with torch.inference_mode(False):  # a grid first asked for by an evaluation serves training too
        for (h, w), stride in zip(shapes, strides):
            rows = torch.arange(h, device=device, dtype=torch.float32) * stride
            columns = torch.arange(w, device=device, dtype=torch.float32) * stride
            points.append(torch.cartesian_prod(rows, columns).flip(1))
            steps.append(torch.full((h * w,), float(stride), device=device))
        centres, of_anchor = torch.cat(points), torch.cat(steps)
        half = of_anchor[:, None] * (scale / 2)
        anchors = torch.cat([centres - half, centres + half], 1)
    return Grid(anchors, centres, of_anchor, tuple(h * w for h, w in shapes))
