"""Cameras as a map: each pixel's features spread over the depths that it may have, and added up on the ground."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pydistill.ops import BEVGrid
from pydistill.recipes.dense.backbone import Backbone, build_backbone

_STEEP = 5.0  # brings slopes near 1
_WIDEST = 512  # channels behind the backbone


class LiftSplat(nn.Module):
    """Pictures (B, n, 3, h, w) to a map (B, C, H, W).

    How steeply a pixel looks down is added to its features: where the ground is flat, that tells the depth of what
    stands on it. (Li et al. 2022, BEVDepth, arXiv:2206.10092, tell theirs the cameras' matrices.)

    Reference: Philion and Fidler 2020, arXiv:2008.05711, section 3; one height, sums of cells.

    Args:
        grid: the cells.
        channels: C.
        depths: first, last and step of the depths in metres that a pixel may have.
        backbone: of the pictures.
        width: of a compact backbone, as share of its channels.
        stages: of the backbone: a feature is one of 2^(stages + 1) pixels; a ResNet's coarser ones stand beside it.
        heights: lowest and highest z that counts.
    """

    depths: Tensor

    def __init__(
        self,
        grid: BEVGrid,
        channels: int,
        *,
        depths: tuple[float, float, float],
        backbone: Backbone = "compact",
        width: float = 0.5,
        stages: int = 2,
        heights: tuple[float, float] = (-5.0, 3.0),
    ):
        super().__init__()
        self.grid, self.channels, self.heights = grid, channels, heights
        self.backbone = build_backbone(backbone, width, 1, stages)
        self.stages = stages
        self.register_buffer("depths", torch.arange(*depths), persistent=False)
        inputs = sum(self.backbone.channels[stages - 1 :])
        middle = min(inputs, _WIDEST)
        self.look = nn.Sequential(nn.Conv2d(1, 64, 1), nn.ReLU(), nn.Conv2d(64, inputs, 1))
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, len(self.depths) + channels, 1),
        )

    def forward(self, pictures: Tensor, to_pixels: Tensor) -> Tensor:
        """The map of pictures and their cameras (B, n, 3, 4), as ``Batch`` has them."""
        b, n = pictures.shape[:2]
        features = self._features(pictures.flatten(0, 1))
        rays, index = self._geometry(to_pixels, _pixels(pictures.shape[3:], features.shape[2:], features.device))
        slope = _STEEP * rays[:, :, 2:].flatten(0, 1).to(features.dtype)
        answer: Tensor = self.layer(features + self.look(slope))
        depth, context = torch.split(answer, [len(self.depths), self.channels], 1)
        weight = depth.float().softmax(1).to(context.dtype)
        lifted = weight[:, :, None] * context[:, None]  # (B n, D, C, h, w)
        lifted = lifted.permute(0, 1, 3, 4, 2).reshape(-1, self.channels)
        area = self.grid.height * self.grid.width
        ground = torch.zeros(b * area + 1, self.channels, device=index.device).index_add(0, index, lifted.float())
        ground = ground[:-1].to(lifted.dtype).view(b, self.grid.height, self.grid.width, -1)
        return ground.permute(0, 3, 1, 2).contiguous()

    def _features(self, pictures: Tensor) -> Tensor:
        """Of the stage that is asked for; beside it those of coarser ones, which a ResNet has."""
        finest, *others = self.backbone(pictures)[self.stages - 1 :]
        size = finest.shape[2:]
        return torch.cat([finest, *(F.interpolate(x, size, mode="bilinear", align_corners=False) for x in others)], 1)

    def _geometry(self, to_pixels: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Rays (B, n, 3, h, w) through pixels, and the cells on their way; in float32 under autocast too."""
        with torch.autocast(pixels.device.type, enabled=False):
            # pixels * depth = A p + t, so p = A^-1 (pixels * depth - t): rays of A^-1 pixels, from -A^-1 t
            inverse = torch.linalg.inv_ex(to_pixels[..., :3].float()).inverse  # inv waits for a GPU, to check
            rays = torch.einsum("bnij,jhw->bnihw", inverse, pixels)
            return rays, self._cells(rays, -torch.einsum("bnij,bnj->bni", inverse, to_pixels[..., 3].float()))

    def _cells(self, rays: Tensor, cameras: Tensor) -> Tensor:
        """(B n D h w,): the cell on which each feature at each depth lies; one more cell for those off the map."""
        d = self.depths[:, None, None, None].to(rays.device)
        places = cameras[:, :, None, :, None, None] + d * rays[:, :, None]  # (B, n, D, 3, h, w)
        cell = self.grid.cells(places[..., :2, :, :].movedim(3, -1)).floor()
        inside = (cell >= 0).all(-1) & (cell[..., 0] < self.grid.width) & (cell[..., 1] < self.grid.height)
        inside &= (places[..., 2, :, :] >= self.heights[0]) & (places[..., 2, :, :] <= self.heights[1])
        area = self.grid.height * self.grid.width
        sample = torch.arange(len(rays), device=rays.device).view(-1, 1, 1, 1, 1) * area
        flat = sample + (cell[..., 1] * self.grid.width + cell[..., 0]).long()
        return torch.where(inside, flat, len(rays) * area).flatten()


def _pixels(size: torch.Size, features: torch.Size, device: torch.device) -> Tensor:
    """(3, h, w): x, y and 1 of the pixels at the centres of the features."""
    y, x = ((torch.arange(f, device=device) + 0.5) * (s / f) - 0.5 for s, f in zip(size, features, strict=True))
    columns, rows = torch.meshgrid(x, y, indexing="xy")
    return torch.stack([columns, rows, torch.ones_like(rows)])
