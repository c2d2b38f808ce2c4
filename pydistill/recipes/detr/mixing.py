"""AdaMixer's sampling in position and scale, and its mixing of what was sampled by what a query is.

Positions are (x, y, z, r): the centre in pixels, and z and r of a box 2^(z - r) pixels wide and 2^(z + r) high.

Reference: Gao et al. 2022 (AdaMixer), arXiv:2203.16507, sections 3.2 and 3.3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TAU = 2.0  # how far a point sees beyond its scale, in squared octaves (the paper's)
_START = -1.0  # octaves: the scale of the first points is half the box's (as released)
_SPREAD = 0.5  # of the first points, in widths and heights: within the box
_WIDEN = 4  # mixed points for each sampled one, 128 of 32 in the paper


def sides(position: Tensor) -> Tensor:
    """Width and height in pixels, (..., 2), of positions (..., 4)."""
    z, r = position[..., 2:].unbind(-1)
    return torch.stack([z - r, z + r], -1).exp2()


def sample(features: Sequence[Tensor], strides: Sequence[int], points: Tensor) -> Tensor:
    """Features at points in position and scale.

    f(x, y, z) = sum_l s_l F_l(x, y), s = softmax_l(-(z - log2 stride_l)^2 / 2); bilinear in a level, 0 outside of it.

    Args:
        features: levels (B, g * c, h, w); each group of queries' channels has points of its own.
        strides: of the levels in pixels.
        points: (B, Q, g, P, 3): x and y in pixels, z in octaves of a pixel.

    Returns:
        (B, Q, g, P, c).
    """
    pictures, queries, groups, number, _ = points.shape
    points = points.transpose(1, 2).flatten(0, 1)  # (B * g, Q, P, 3)
    scales = torch.tensor([math.log2(s) for s in strides], dtype=points.dtype, device=points.device)
    shares = (-(points[..., 2:] - scales).square() / _TAU).softmax(-1)
    total = torch.zeros((), dtype=points.dtype, device=points.device)
    for level, (feature, stride) in enumerate(zip(features, strides)):
        height, width = feature.shape[2:]
        size = torch.tensor([width * stride, height * stride], dtype=points.dtype, device=points.device)
        grid = 2 * points[..., :2] / size - 1
        maps = feature.reshape(pictures * groups, -1, height, width)
        total = total + F.grid_sample(maps, grid, align_corners=False) * shares[:, None, :, :, level]
    total = total.reshape(pictures, groups, -1, queries, number)
    return total.permute(0, 3, 1, 4, 2)


def mix(sampled: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Mixes channels, then points: relu(norm(S relu(norm(x M)))), with matrices of each query.

    Args:
        sampled: x (..., P, c).
        channel: M (..., c, c).
        spatial: S (..., p, P).

    Returns:
        (..., p, c). The norm is over points and channels, without weights, as in the released code.
    """
    x = sampled @ channel
    x = F.relu(F.layer_norm(x, x.shape[-2:]))
    x = spatial @ x
    return F.relu(F.layer_norm(x, x.shape[-2:]))


class AdaptiveMixing(nn.Module):
    """Where a query looks, and what it makes of what it sees there.

    Args:
        channels: D, of queries and features.
        groups: g, of channels; each has its own points and matrices.
        points: P of each group; 4 P come out of the mixing.
    """

    def __init__(self, channels: int, groups: int, points: int):
        super().__init__()
        self.groups, self.points, self.width = groups, points, channels // groups
        self.offsets = nn.Linear(channels, groups * points * 3)
        self.sizes = (self.width**2, _WIDEN * points**2)
        self.matrices = nn.Linear(channels, groups * sum(self.sizes))
        self.out = nn.Linear(_WIDEN * points * channels, channels)
        nn.init.zeros_(self.offsets.weight)  # the published start: the same points and matrices for every query
        nn.init.zeros_(self.matrices.weight)
        start = torch.empty(groups * points, 3).uniform_(-_SPREAD, _SPREAD)
        start[:, 2] = _START
        self.offsets.bias.data.copy_(start.flatten())

    def locate(self, content: Tensor, position: Tensor) -> Tensor:
        """The points (B, Q, g, P, 3) of queries ``content`` (B, Q, D) at ``position`` (B, Q, 4)."""
        offsets: Tensor = self.offsets(content).unflatten(-1, (self.groups, self.points, 3))
        unit = torch.cat([sides(position), torch.ones_like(position[..., :1])], -1)
        return position[:, :, None, None, :3] + offsets * unit[:, :, None, None]

    def forward(self, content: Tensor, position: Tensor, features: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
        """What is to be added to ``content``, (B, Q, D)."""
        sampled = sample(features, strides, self.locate(content, position))
        matrices = self.matrices(content).unflatten(-1, (self.groups, -1))
        channel, spatial = matrices.split(self.sizes, -1)
        channel = channel.unflatten(-1, (self.width, self.width))
        spatial = spatial.unflatten(-1, (_WIDEN * self.points, self.points))
        mixed: Tensor = self.out(mix(sampled, channel, spatial).flatten(2))
        return mixed
