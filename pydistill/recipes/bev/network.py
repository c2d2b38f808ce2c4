"""Detectors in bird's-eye view: LiDAR, cameras or both, an encoder of the view, and heads as CenterPoint has them.

Reference: Yin et al. 2021 (CenterPoint), arXiv:2006.11275; the fusion is that of Liang et al. 2022 (BEVFusion),
arXiv:2205.13790.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import BEVGrid
from pydistill.recipes.bev.classes import TASKS
from pydistill.recipes.bev.data import Batch
from pydistill.recipes.bev.lift_splat import LiftSplat
from pydistill.recipes.bev.pillars import Pillars
from pydistill.recipes.dense.backbone import Backbone
from pydistill.recipes.resnet import BasicBlock

Modality = Literal["lidar", "camera", "fusion"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
NUMBERS = {
    "offset": 2,
    "height": 1,
    "size": 3,
    "heading": 2,
    "velocity": 2,
}  # of a box, in the order of a head's tensor
_RARE = -2.19  # the bias of heat maps: a probability of 0.1


class Fusion(nn.Module):
    """Two maps of C channels as one: channels weighed by what the whole map has of them, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * channels, 2 * channels, 1), nn.Sigmoid())
        self.mix = _conv(2 * channels, channels)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, C, H, W)."""
        both = torch.cat([a, b], 1)
        return self.mix(both * self.weigh(both))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The view's encoder: blocks at full and at half size, brought together: (B, C, H, W) to (B, 2 C', H, W)."""

    def __init__(self, inputs: int, channels: int, blocks: int):
        super().__init__()
        self.fine = nn.Sequential(_conv(inputs, channels), *(BasicBlock(channels, channels) for _ in range(blocks)))
        coarse = BasicBlock(channels, 2 * channels, 2), *(BasicBlock(2 * channels, 2 * channels) for _ in range(blocks))
        self.coarse = nn.Sequential(*coarse)
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), _conv(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Even H and W."""
        fine = self.fine(x)
        return torch.cat([fine, self.up(self.coarse(fine))], 1)


class Heads(nn.Module):
    """For each task logits of its classes and the numbers of a box."""

    def __init__(self, inputs: int, channels: int, tasks: Sequence[Sequence[int]] = TASKS):
        super().__init__()
        self.shared = _conv(inputs, channels)
        self.heatmaps = nn.ModuleList(_head(channels, len(task)) for task in tasks)
        self.numbers = nn.ModuleList(_head(channels, sum(NUMBERS.values())) for _ in tasks)
        for head in self.heatmaps:
            nn.init.constant_(head[-1].bias, _RARE)  # type: ignore[index]

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Heat maps and numbers of each task."""
        x = self.shared(x)
        return [head(x) for head in self.heatmaps], [head(x) for head in self.numbers]


class BEVDetector(nn.Module):
    """A detector of one modality, or of both.

    Args:
        modality: ``"lidar"``, ``"camera"`` or ``"fusion"``.
        grid: the cells; an even number of rows and columns.
        low: channels of the map before the encoder.
        high: channels behind it, even.
        head: channels within the heads.
        blocks: of each scale of the encoder.
        depths: that a camera's pixel may have: first, last and step in metres.
        backbone: of the cameras.
        width: of a compact backbone.
        stages: of the backbone before the depths, see ``LiftSplat``.

    Raises:
        ValueError: for another modality or an odd grid.
    """

    def __init__(
        self,
        modality: Modality,
        grid: BEVGrid,
        *,
        low: int = 32,
        high: int = 64,
        head: int = 16,
        blocks: int = 1,
        depths: tuple[float, float, float] = (1.0, 33.0, 1.0),
        backbone: Backbone = "compact",
        width: float = 0.5,
        stages: int = 2,
    ):
        super().__init__()
        if modality not in MODALITIES:
            raise ValueError(f"BEVDetector: expected modality in {MODALITIES}, got {modality!r}")
        if grid.height % 2 or grid.width % 2 or high % 2:
            got = f"{grid.height} x {grid.width} cells and {high} channels"
            raise ValueError(f"BEVDetector: expected even numbers of rows, columns and channels, got {got}")
        self.modality, self.grid = modality, grid
        if modality != "camera":
            self.lidar = Pillars(grid, low)
        if modality != "lidar":
            self.camera = LiftSplat(grid, low, depths=depths, backbone=backbone, width=width, stages=stages)
        if modality == "fusion":
            self.fusion = Fusion(low)
        self.encoder = Encoder(low, high // 2, blocks)
        self.heads = Heads(high, head)

    def forward(self, batch: Batch) -> BEVPrediction:
        """What it holds and answers for a batch."""
        if self.modality == "lidar":
            low = self.lidar(batch.points, batch.counts)
        elif self.modality == "camera":
            low = self.camera(batch.pictures, batch.to_pixels)
        else:
            low = self.fusion(self.lidar(batch.points, batch.counts), self.camera(batch.pictures, batch.to_pixels))
        high = self.encoder(low)
        return BEVPrediction(low, high, *self.heads(high))


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _head(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_conv(channels, channels), nn.Conv2d(channels, outputs, 1))
