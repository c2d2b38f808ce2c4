"""LiDAR as a map: points in columns of the ground, each column one vector (PointPillars)."""

import torch
from torch import Tensor, nn

from pydistill.ops import BEVGrid


class Pillars(nn.Module):
    """Points to a map (B, C, H, W): a layer of each point's numbers and place in its cell, and the largest of a cell.

    The layer's batch norm learns from every point of a batch: those that do not count, off the map or only there to
    fill a sample up, are among them.

    Reference: Lang et al. 2019, arXiv:1812.05784, section 2.1, without its limits on points and cells.

    Args:
        grid: the cells.
        channels: C.
        heights: lowest and highest z of a point that counts.
    """

    def __init__(self, grid: BEVGrid, channels: int, heights: tuple[float, float] = (-5.0, 3.0)):
        super().__init__()
        self.grid, self.heights, self.channels = grid, heights, channels
        self.layer = nn.Sequential(nn.Linear(9, channels, bias=False), nn.BatchNorm1d(channels), nn.ReLU())
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, points: Tensor, counts: Tensor) -> Tensor:
        """The map of points (B, P, 5), of which the first ``counts`` are real; empty cells are 0."""
        b, p, _ = points.shape
        place = self.grid.cells(points[..., :2])
        cell = place.floor()
        inside = (cell >= 0).all(-1) & (cell[..., 0] < self.grid.width) & (cell[..., 1] < self.grid.height)
        inside &= (points[..., 2] >= self.heights[0]) & (points[..., 2] <= self.heights[1])
        inside &= torch.arange(p, device=points.device) < counts[:, None]
        area = self.grid.height * self.grid.width
        sample = torch.arange(b, device=points.device)[:, None] * area
        # All that does not count goes to one more cell, so that shapes do not depend on the data.
        index = torch.where(inside, sample + (cell[..., 1] * self.grid.width + cell[..., 0]).long(), b * area).flatten()
        mean = _mean(points[..., :2].flatten(0, 1), index, b * area + 1)[index]
        near = torch.cat([place - cell - 0.5, points[..., :2] - mean.view(b, p, 2)], -1)
        features = self.layer(torch.cat([points, near], -1).flatten(0, 1))
        pillars = features.new_zeros(b * area + 1, self.channels)
        pillars = pillars.scatter_reduce(0, index[:, None].expand_as(features), features, "amax")
        return self.mix(pillars[:-1].view(b, self.grid.height, self.grid.width, -1).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def _mean(values: Tensor, index: Tensor, cells: int) -> Tensor:
    total = values.new_zeros(cells, values.shape[1]).index_add(0, index, values)
    count = values.new_zeros(cells).index_add(0, index, torch.ones_like(values[:, 0]))
    return total / count.clamp(min=1)[:, None]
