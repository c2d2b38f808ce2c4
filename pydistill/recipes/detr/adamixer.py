"""AdaMixer: a detector by queries without an encoder, in plain torch.

Reference: Gao et al. 2022, arXiv:2203.16507; https://github.com/MCG-NJU/AdaMixer.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pydistill.losses.detr.prediction import SetPrediction
from pydistill.recipes.dense.backbone import Compact
from pydistill.recipes.detr.lending import DetrOutput, Queries
from pydistill.recipes.detr.mixing import AdaptiveMixing, sides
from pydistill.recipes.resnet import ResNet

_PRIOR = 0.01  # what every class has at the start
_STEEP = 4.0  # the largest weight of overlap in attention at the start
_EPS = 1e-7  # of overlap, under the logarithm


class AdaMixer(nn.Module):
    """Backbone, one projection a level, and stages that sample and mix what each query asks for.

    Args:
        classes: C, with a sigmoid each.
        backbone: its features are at strides 4, 8, 16 and 32.
        strides: of the levels that are read, each twice the one before; one beyond 32 is made of the level before it.
        channels: D.
        queries: Q.
        layers: L.
        heads: of attention between queries.
        feedforward: hidden units.
        points: P of each group of channels, 32 in the paper.
        groups: of channels, 4 in the paper.
        dropout: in attention and the feed-forward part.
    """

    def __init__(
        self,
        classes: int,
        backbone: Compact | ResNet,
        strides: Sequence[int],
        *,
        channels: int,
        queries: int,
        layers: int,
        heads: int,
        feedforward: int,
        points: int,
        groups: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.channels, self.strides = channels, tuple(strides)
        self.backbone = backbone
        first = (4, 8, 16, 32).index(self.strides[0])
        inputs = backbone.channels[first : first + len(self.strides)]
        self.stages = slice(first, first + len(inputs))
        extra = len(self.strides) - len(inputs)
        self.projections = nn.ModuleList(
            [_projection(c, channels, 1) for c in inputs] + [_projection(channels, channels, 3) for _ in range(extra)]
        )
        self.content = nn.Embedding(queries, channels)
        self.reference = nn.Parameter(torch.tensor([0.5, 0.5, 0.0, 0.0]).repeat(queries, 1))
        self.layers = nn.ModuleList(
            Stage(classes, channels, heads, feedforward, points, groups, dropout) for _ in range(layers)
        )

    def forward(self, pictures: Tensor, *, lent: Queries | None = None) -> DetrOutput:
        """What it says of normalised pictures (B, 3, H, W), and with ``lent`` what it says by those queries.

        Its queries are states (Q, D) and references (Q, 4): the centre x, y in shares of the picture, and z and r of a
        box 2^(z - r) of its width and 2^(z + r) of its height. They are learned; all start as the whole picture.

        Raises:
            ValueError: for pictures or queries of another shape.
        """
        if pictures.dim() != 4 or pictures.shape[1] != 3:
            raise ValueError(f"AdaMixer: expected pictures of shape (B, 3, H, W), got {list(pictures.shape)}")
        number, size = pictures.shape[0], (pictures.shape[3], pictures.shape[2])
        features: list[Tensor] = []
        inputs = self.backbone(pictures)[self.stages]
        for level, projection in enumerate(self.projections):
            features.append(projection(inputs[level] if level < len(inputs) else features[-1]))
        queries = Queries(self.content.weight, reference=self.reference)
        content, reference = (x.expand(number, -1, -1) for x in (self.content.weight, self.reference))
        prediction = self._decode(features, content, reference, size)
        group = None
        if lent is not None:
            own = lent.expanded(number, self.channels, position=None, reference=4)
            assert own.reference is not None
            group = self._decode(features, own.content, own.reference, size)
        return DetrOutput(SetPrediction(*prediction, features), queries, group and SetPrediction(*group))

    def _decode(
        self, features: Sequence[Tensor], content: Tensor, reference: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, boxes and states of all stages, for queries of each picture of ``size`` (W, H)."""
        picture = reference.new_tensor([*size, *size])
        wide, high = (math.log2(n) for n in size)
        position = reference * picture[:2].new_tensor([*size, 1, 1])
        position = position + picture.new_tensor([0, 0, (wide + high) / 2, (high - wide) / 2])
        stages = []
        for layer in self.layers:
            content, logits, position = layer(content, position, features, self.strides)
            stages.append((logits, torch.cat([position[..., :2], sides(position)], -1) / picture, content))
            position = position.detach()
        logits, boxes, states = (torch.stack(parts) for parts in zip(*stages))
        return logits, boxes, states


class Stage(nn.Module):
    """Attention between queries, sampling and mixing, a feed-forward part, and heads of classes and position."""

    def __init__(
        self, classes: int, channels: int, heads: int, feedforward: int, points: int, groups: int, dropout: float
    ):
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.steepness = nn.Parameter(torch.empty(heads).uniform_(0, _STEEP))
        self.mixing = AdaptiveMixing(channels, groups, points)
        self.feedforward = nn.Sequential(
            nn.Linear(channels, feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feedforward, channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        scores, moves = nn.Linear(channels, classes), nn.Linear(channels, 4)
        nn.init.constant_(scores.bias, -math.log(1 / _PRIOR - 1))
        nn.init.zeros_(moves.weight)
        nn.init.zeros_(moves.bias)
        self.classes, self.moves = _head(channels, scores), _head(channels, moves)

    def forward(
        self, content: Tensor, position: Tensor, features: Sequence[Tensor], strides: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next states (B, Q, D), their logits (B, Q, C), and the next positions (B, Q, 4)."""
        fixed = position.detach()
        asked = content + _waves(fixed, content.shape[-1])
        bias = self.steepness[:, None, None] * (overlap(fixed) + _EPS).log()[:, None]  # (B, heads, Q, Q)
        attended, _ = self.attention(asked, asked, content, attn_mask=bias.flatten(0, 1), need_weights=False)
        content = self.norms[0](content + attended)
        content = self.norms[1](content + self.mixing(content, position, features, strides))
        content = self.norms[2](content + self.feedforward(content))
        moves = self.moves(content)
        unit = torch.cat([sides(position), torch.ones_like(position[..., 2:])], -1)
        return content, self.classes(content), position + moves * unit


def overlap(position: Tensor) -> Tensor:
    """The share of box i that box j covers, (B, Q, Q), of positions (B, Q, 4)."""
    half = sides(position) / 2
    low, high = position[..., :2] - half, position[..., :2] + half
    common = torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None], low[:, None])
    return common.clamp(min=0).prod(-1) / (4 * half.prod(-1))[..., None]


def _waves(position: Tensor, channels: int) -> Tensor:
    """Sines and cosines of positions (B, Q, 4), a quarter of the channels each."""
    half = channels // 8
    periods = 10000 ** (torch.arange(half, dtype=position.dtype, device=position.device) / half)
    scaled = position * position.new_tensor([1 / 8, 1 / 8, math.tau, math.tau])
    angles = scaled[..., None] / periods
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


def _projection(inputs: int, channels: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, channels, kernel, 1 if kernel == 1 else 2, kernel // 2, bias=False)
    nn.init.xavier_uniform_(convolution.weight)
    return nn.Sequential(convolution, nn.GroupNorm(channels // 8, channels))


def _head(channels: int, last: nn.Linear) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(), last)
