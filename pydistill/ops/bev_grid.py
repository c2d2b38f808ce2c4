"""The cells of a map in bird's-eye view."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pydistill.ops import _check


@dataclass(frozen=True)
class BEVGrid:
    """Where the cells of a map in bird's-eye view lie on the ground: columns along x, rows along y.

    nuScenes as UniDistill has it is ``BEVGrid(-54, -54, 0.6, 0.6, 180, 180)``.

    Raises:
        ValueError: If a number is not finite, a cell's side not positive or a number of cells below 1 or not whole.
    """

    x_min: float
    """Where column 0 begins, in metres."""
    y_min: float
    """Where row 0 begins."""
    cell_x: float
    """Width of a column."""
    cell_y: float
    """Width of a row."""
    height: int
    """Rows."""
    width: int
    """Columns."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check.numbers("BEVGrid", **{field.name: getattr(self, field.name)})
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"BEVGrid: expected a finite {field.name}, got {getattr(self, field.name)}")
        if self.cell_x <= 0 or self.cell_y <= 0:
            raise ValueError(f"BEVGrid: expected cell_x and cell_y > 0, got {self.cell_x} and {self.cell_y}")
        if not (isinstance(self.height, int) and isinstance(self.width, int) and min(self.height, self.width) >= 1):
            raise ValueError(f"BEVGrid: expected whole height and width >= 1, got {self.height} and {self.width}")

    def cells(self, metres: Tensor) -> Tensor:
        """Positions (..., 2) in metres, x and y, as (u, v): columns and rows from the map's corner, not rounded.

        Cell i reaches from i to i + 1. The dtype stays.
        """
        _check.tensors("BEVGrid.cells", metres=metres)
        x, y = metres.unbind(-1)
        return torch.stack([(x - self.x_min) / self.cell_x, (y - self.y_min) / self.cell_y], -1)


def check_grid(op: str, grid: BEVGrid) -> None:
    """TypeError where ``grid`` is something else."""
    if not isinstance(grid, BEVGrid):
        raise TypeError(f"{op}: expected grid as a BEVGrid, got {type(grid).__name__}")
