"""ResNet-18-SAD and ResNet-34-SAD: dilated residual networks for lanes, in torch alone.

Reference: He et al. 2016, arXiv:1512.03385; Yu et al. 2017, arXiv:1705.09914; Hou et al. 2019, arXiv:1908.00821.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pydistill.recipes.lanes.existence import Existence, LaneOutput, check_pictures, check_size

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_CLASSIFIER = ("fc.weight", "fc.bias")  # of torchvision's ResNets; a backbone has no use for it
_NAMED = 8  # keys that a message lists


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the input, which a 1x1 convolution brings to the shape where that changes.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution.
        dilations: of the two convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dilations: tuple[int, int]):
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=first, dilation=first, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=second, dilation=second, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if inputs != outputs or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """A feature (N, outputs, h / stride, w / stride) of ``x`` (N, inputs, h, w)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The convolutions of a ResNet, with torchvision's names, whose last two stages keep an eighth of the picture.

    Dilation stands in for the strides of ``layer3`` and ``layer4``: at every second (fourth) pixel the result is that
    of the strided network with the same weights, so that weights trained on ImageNet keep their meaning.

    Args:
        depth: 18 or 34.
        channels: of the first stage; each of the others has twice as many as the one before.

    Raises:
        ValueError: for another depth.
    """

    def __init__(self, depth: int, channels: int = 64):
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"ResNet: expected depth in {tuple(_BLOCKS)}, got {depth}")
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        one, two, three, four = _BLOCKS[depth]
        self.layer1 = _stage(channels, channels, one)
        self.layer2 = _stage(channels, 2 * channels, two, stride=2)
        self.layer3 = _stage(2 * channels, 4 * channels, three, dilation=2)
        self.layer4 = _stage(4 * channels, 8 * channels, four, dilation=4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """The last stage's feature (N, 8 * channels, H/8, W/8) of pictures (N, 3, H, W)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]


def _stage(inputs: int, outputs: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Basic blocks of one resolution.

    With a dilation the stage's stride, 2 in the strided network, is what its first convolution leaves out: that one
    still sees the grid of the stage before, and only those after it see the finer grid.
    """
    before = max(dilation // 2, 1)
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, (before, dilation)),
        *(BasicBlock(outputs, outputs, 1, (dilation, dilation)) for _ in range(blocks - 1)),
    )


class ResNetSAD(nn.Module):
    """A dilated ResNet, a dilated 3x3 convolution to 128 channels, a 1x1 classifier, and P1 beside the classifier.

    The stages return ``backbone.layer1`` (N, 64, H/4, W/4), ``backbone.layer2`` (N, 128, H/8, W/8), ``backbone.layer3``
    (N, 256, H/8, W/8) and ``backbone.layer4`` (N, 512, H/8, W/8). The logits are upsampled bilinearly, 8 times.

    Args:
        depth: 18 or 34.
        size: height and width of the pictures in pixels, multiples of 8 from 16 on.
        classes: channels of the segmentation.
        lanes: that P1 tells about.
        dilated: P1 with a dilated convolution.
        width: share of the channels, in (0, 1], for small machines. Weights of torchvision fit 1 only.

    Raises:
        ValueError: for another depth, size or width.
    """

    stages = ("backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4")  # shallow to deep

    def __init__(
        self,
        depth: int,
        size: tuple[int, int],
        classes: int = 5,
        lanes: int = 4,
        dilated: bool = False,
        width: float = 1.0,
    ):
        super().__init__()
        grid = check_size("ResNetSAD", size)
        if not 0 < width <= 1:
            raise ValueError(f"ResNetSAD: expected width in (0, 1], got {width}")
        channels = max(1, round(64 * width))
        self.size = size
        self.backbone = ResNet(depth, channels)
        self.neck = nn.Sequential(
            nn.Conv2d(8 * channels, 2 * channels, 3, padding=4, dilation=4, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.Dropout2d(0.1),
        )
        self.head = nn.Conv2d(2 * channels, classes, 1)
        self.p1 = Existence(2 * channels, grid, lanes, dilated)

    def forward(self, pictures: Tensor) -> LaneOutput:
        """Logits of segmentation and existence of normalised ``pictures`` (N, 3, *size)."""
        check_pictures("ResNetSAD", pictures, self.size)
        x = self.neck(self.backbone(pictures))
        segmentation = F.interpolate(self.head(x), size=self.size, mode="bilinear", align_corners=False)
        return LaneOutput(segmentation, self.p1(x))


def load_backbone(model: ResNetSAD, path: str | Path) -> tuple[str, ...]:
    """Loads a state dict of torchvision's ResNet of the same depth into the backbone of ``model``.

    All of the backbone is loaded, or nothing. Files of old versions, without ``num_batches_tracked``, will do.

    Args:
        model: to load into; neck, head and P1 keep their weights.
        path: of a file that ``torch.save`` has written. It is read with ``weights_only``, so that it cannot run code.

    Returns:
        The keys of the file that were left out: those of the classifier.

    Raises:
        ValueError: names the keys that are missing, unknown, or of another shape.
    """
    state = _read_state(path)
    own = model.backbone.state_dict()
    fitting = {key: value for key, value in state.items() if key not in _CLASSIFIER}
    problems = {
        "missing": [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")],
        "unknown": [key for key in fitting if key not in own],
        "of another shape": [
            f"{key} {list(value.shape)} for {list(own[key].shape)}"
            for key, value in fitting.items()
            if key in own and value.shape != own[key].shape
        ],
    }
    found = "; ".join(f"{len(keys)} {what}: {_listed(keys)}" for what, keys in problems.items() if keys)
    if found:
        raise ValueError(f"load_backbone: expected torchvision's ResNet of the same depth in {path}, got {found}")
    model.backbone.load_state_dict(own | fitting)
    return tuple(key for key in state if key in _CLASSIFIER)


def _read_state(path: str | Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"load_backbone: expected a dict of tensors in {path}, got {type(state).__name__}")
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"load_backbone: expected a dict of tensors in {path}, got others at {_listed(others)}")
    return dict(state)


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
