"""A dense one-stage detector whose box sides are distributions.

Reference: Li et al. 2020 (Generalized Focal Loss), arXiv:2006.04388, on Zhang et al. 2020 (ATSS), arXiv:1912.02424.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pydistill.recipes.dense.backbone import Backbone, build_backbone, eights
from pydistill.recipes.dense.fpn import FPN

_PRIOR = 0.01  # what every class has at the start, so that the background does not drown the first steps


class DenseOutput(NamedTuple):
    """What a detector says of N pictures, a tensor a level, fine to coarse.

    Attributes:
        logits: of the classes, (N, C, h, w).
        sides: logits of the bins, (N, 4 * n, h, w), side-major: left, top, right, bottom, in units of the stride.
        features: of the pyramid, (N, c, h, w).
    """

    logits: list[Tensor]
    sides: list[Tensor]
    features: list[Tensor]

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each level."""
        return tuple((x.shape[2], x.shape[3]) for x in self.logits)


def _tower(channels: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.normal_(convolution.weight, std=0.01 * math.sqrt(256 / channels))  # GFL's 0.01 at its 256 channels
        layers += [convolution, nn.GroupNorm(channels // 8, channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _prediction(channels: int, outputs: int, bias: float = 0.0) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, outputs, 3, padding=1)
    nn.init.normal_(convolution.weight, std=0.01)
    nn.init.constant_(convolution.bias, bias)  # type: ignore[arg-type]
    return convolution


class GFLHead(nn.Module):
    """Two towers of convolutions with group norm, one to class logits, one to bin logits; all levels share them.

    Args:
        channels: of the pyramid, a multiple of 8.
        classes: C.
        bins: n of each side.
        levels: each has a learned factor of its bin logits.
        convolutions: of each tower.
    """

    def __init__(self, channels: int, classes: int, bins: int, levels: int, convolutions: int):
        super().__init__()
        self.class_tower = _tower(channels, convolutions)
        self.side_tower = _tower(channels, convolutions)
        self.classes = _prediction(channels, classes, -math.log(1 / _PRIOR - 1))
        self.sides = _prediction(channels, 4 * bins)
        self.scales = nn.Parameter(torch.ones(levels))

    def forward(self, features: Sequence[Tensor]) -> DenseOutput:
        """Logits (N, C, h, w) and (N, 4 * n, h, w) of each level (N, channels, h, w)."""
        logits = [self.classes(self.class_tower(x)) for x in features]
        sides = [self.sides(self.side_tower(x)) * self.scales[i] for i, x in enumerate(features)]
        return DenseOutput(logits, sides, list(features))


class GFLDetector(nn.Module):
    """Backbone, feature pyramid and head of Generalized Focal Loss, from a toy's size to the paper's.

    ``GFLDetector(80, 1.0, "resnet50", (8, 16, 32, 64, 128))`` has the layers of the published detector, and takes
    torchvision's weights by ``load_backbone``. The compact backbone is for pictures of about 128 x 128 on a CPU.

    Args:
        classes: C.
        width: share of the channels, in backbone and pyramid, > 0. Weights of torchvision fit 1 only.
        backbone: ``"compact"``, ``"resnet18"``, ``"resnet34"``, ``"resnet50"`` or ``"resnet101"``.
        strides: of the levels in pixels: from 4 or 8 on, each twice the one before. Those beyond 32 are made by the
            pyramid. A ResNet's reach 32 at least.
        reg_max: the largest side that the bins reach, in strides; there are n = reg_max + 1 of them.
        fpn_channels: of the pyramid and the head; None: 256 times ``width``, for the compact backbone 128 times.
        convolutions: of each tower; None: 4, for the compact backbone 2.
        blocks: of each stage of the compact backbone.

    Raises:
        ValueError: for another backbone, strides as above, or numbers below 1.
    """

    def __init__(
        self,
        classes: int,
        width: float = 0.25,
        backbone: Backbone = "compact",
        strides: Sequence[int] = (8, 16, 32),
        reg_max: int = 16,
        *,
        fpn_channels: int | None = None,
        convolutions: int | None = None,
        blocks: int = 1,
    ):
        super().__init__()
        self.strides = _checked(tuple(strides), backbone)
        if min(classes, reg_max, blocks) < 1 or width <= 0:
            raise ValueError(
                f"GFLDetector: expected classes, reg_max and blocks >= 1 and width > 0, "
                f"got {classes}, {reg_max}, {blocks} and {width}"
            )
        compact = backbone == "compact"
        first = (4, 8).index(self.strides[0])
        used = sum(stride <= 32 for stride in self.strides)
        self.classes, self.reg_max, self.stages = classes, reg_max, slice(first, first + used)
        self.backbone = build_backbone(backbone, width, blocks, self.stages.stop)
        channels = eights(width * (128 if compact else 256)) if fpn_channels is None else fpn_channels
        if channels < 8 or channels % 8:
            raise ValueError(f"GFLDetector: expected fpn_channels a multiple of 8, got {channels}")
        self.fpn = FPN(self.backbone.channels[self.stages], channels, len(self.strides))
        towers = (2 if compact else 4) if convolutions is None else convolutions
        self.head = GFLHead(channels, classes, reg_max + 1, len(self.strides), towers)

    def forward(self, pictures: Tensor) -> DenseOutput:
        """What it says of normalised pictures (N, 3, H, W): h = ceil(H / stride), w = ceil(W / stride) a level."""
        if pictures.dim() != 4 or pictures.shape[1] != 3:
            raise ValueError(f"GFLDetector: expected pictures of shape (N, 3, H, W), got {list(pictures.shape)}")
        features = self.backbone(pictures)[self.stages]
        return self.head(self.fpn(features))  # type: ignore[no-any-return]


def _checked(strides: tuple[int, ...], backbone: str) -> tuple[int, ...]:
    doubling = strides and all(b == 2 * a for a, b in zip(strides, strides[1:]))
    if not doubling or strides[0] not in (4, 8) or (backbone != "compact" and strides[-1] < 32):
        to = "" if backbone == "compact" else " to 32 or more"
        raise ValueError(f"GFLDetector: expected strides that double, from 4 or 8 on{to}, got {list(strides)}")
    return strides
