"""Backbones of dense detectors: one feature a stride, from 4 on."""

from typing import Literal, get_args

from torch import Tensor, nn

from pydistill.recipes.resnet import BasicBlock, ResNet

Backbone = Literal["compact", "resnet18", "resnet34", "resnet50", "resnet101"]
BACKBONES: tuple[Backbone, ...] = get_args(Backbone)
_STAGES = (64, 128, 192, 256)  # channels of the compact backbone at width 1


class Compact(nn.Module):
    """A small residual backbone for small pictures: a 3x3 stem, then stages of basic blocks, each at twice the stride.

    Args:
        width: share of 64, 128, 192 and 256 channels, rounded to multiples of 8.
        blocks: of each stage.
        stages: 1..4, at strides 4, 8, 16 and 32.

    Attributes:
        channels: of the stages.
    """

    def __init__(self, width: float, blocks: int = 1, stages: int = 4):
        super().__init__()
        self.channels = tuple(eights(c * width) for c in _STAGES[:stages])
        stem = self.channels[0]
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(inputs, outputs, 2), *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))
            for inputs, outputs in zip((stem, *self.channels), self.channels)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The stages' features of pictures (N, 3, H, W), (N, c, ceil(H / stride), ceil(W / stride)) each."""
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)


def build_backbone(name: Backbone, width: float, blocks: int, stages: int) -> Compact | ResNet:
    """The backbone called ``name``; a ResNet always has its four stages, and its blocks are given by its depth.

    Raises:
        ValueError: for another name.
    """
    if name == "compact":
        return Compact(width, blocks, stages)
    if name not in BACKBONES:
        raise ValueError(f"build_backbone: expected one of {BACKBONES}, got {name!r}")
    return ResNet(int(name.removeprefix("resnet")), max(1, round(64 * width)))


def eights(channels: float) -> int:
    """The multiple of 8 closest to ``channels``, 8 at least: as wide as vector registers and as groups of channels."""
    return max(8, 8 * round(channels / 8))
