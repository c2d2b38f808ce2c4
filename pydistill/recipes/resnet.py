"""ResNets with torchvision's names and weights, in torch alone: strided for boxes, dilated for lanes.

Reference: He et al. 2016, arXiv:1512.03385; Yu et al. 2017, arXiv:1705.09914, for the dilated form.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from pydistill.recipes.files import read_saved

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_CLASSIFIER = ("fc.weight", "fc.bias")  # of torchvision's ResNets; a backbone has no use for it
_NAMED = 8  # keys that a message lists
_NARROW = 16  # input channels; with fewer oneDNN is not to be given a strided 1x1 convolution


class _Pointwise(nn.Conv2d):
    """A strided 1x1 convolution; one of few channels takes the pixels that count first, which gives the same.

    On CPUs with AVX-512 (AVX2: below 8 channels) oneDNN's gradient of the weights writes past its buffer where such a
    convolution's pictures lie channels last: github.com/uxlfoundation/oneDNN/issues/6035, with torch 2.13 too.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels >= _NARROW:
            return super().forward(x)
        down, right = self.stride
        return F.conv2d(x[..., ::down, ::right], self.weight, self.bias)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(_Pointwise(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the input, which a 1x1 convolution brings to the shape where that changes.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution.
        dilations: of the two convolutions.
    """

    expansion = 1

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)):
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=first, dilation=first, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=second, dilation=second, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """A feature (N, outputs, h / stride, w / stride) of ``x`` (N, inputs, h, w)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 1x1 convolution to a quarter of the outputs, a 3x3 one with the stride, a 1x1 one back, beside the input.

    Args:
        inputs, outputs: channels.
        stride: of the 3x3 convolution.
        dilations: the first is the 3x3 convolution's.
    """

    expansion = 4

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)):
        super().__init__()
        inner, dilation = outputs // self.expansion, dilations[0]
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """A feature (N, outputs, h / stride, w / stride) of ``x`` (N, inputs, h, w)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The convolutions of a ResNet, with torchvision's names.

    Dilated, dilation stands in for the strides of ``layer3`` and ``layer4``: at every second (fourth) pixel the result
    is that of the strided network with the same weights, so that weights trained on ImageNet keep their meaning.

    Args:
        depth: 18, 34, 50 or 101.
        channels: of the stem; torchvision has 64.
        dilated: the last two stages keep an eighth of the picture.

    Attributes:
        channels: of the four stages.

    Raises:
        ValueError: for another depth.
    """

    def __init__(self, depth: int, channels: int = 64, *, dilated: bool = False):
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"ResNet: expected depth in {tuple(_BLOCKS)}, got {depth}")
        block = BasicBlock if depth < 50 else Bottleneck
        self.channels = tuple(channels * block.expansion * 2**i for i in range(4))
        self.frozen = False
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        one, two, three, four = self.channels
        a, b, c, d = _BLOCKS[depth]
        self.layer1 = _stage(block, channels, one, a)
        self.layer2 = _stage(block, one, two, b, stride=2)
        self.layer3 = _stage(block, two, three, c, dilation=2) if dilated else _stage(block, two, three, c, stride=2)
        self.layer4 = _stage(block, three, four, d, dilation=4) if dilated else _stage(block, three, four, d, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four stages' features of pictures (N, 3, H, W), at strides 4, 8, 16 and 32; dilated: 4, 8, 8 and 8."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        one = self.layer1(x)
        two = self.layer2(one)
        three = self.layer3(two)
        return one, two, three, self.layer4(three)

    def freeze(self, stages: int = 1) -> None:
        """Stops the stem and the first stages from learning, and all batch norms from gathering statistics.

        As detectors with ImageNet's weights are trained; the batch norms of later stages still learn their affine part.

        Args:
            stages: 0..4, whose parameters get no gradient from now on.
        """
        self.frozen = True
        for part in (self.conv1, self.bn1, self.layer1, self.layer2, self.layer3, self.layer4)[: 2 + stages]:
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ResNet":
        """As for every module, but batch norms keep their statistics after ``freeze``."""
        super().train(mode)
        if self.frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    outputs: int,
    blocks: int,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    """Blocks of one resolution.

    With a dilation the stage's stride, 2 in the strided network, is what its first convolution leaves out: that one
    still sees the grid of the stage before, and only those after it see the finer grid.
    """
    before = max(dilation // 2, 1)
    return nn.Sequential(
        block(inputs, outputs, stride, (before, dilation)),
        *(block(outputs, outputs, 1, (dilation, dilation)) for _ in range(blocks - 1)),
    )


def load_backbone(model: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Loads a state dict of torchvision's ResNet of the same depth into ``model.backbone``.

    All of the backbone is loaded, or nothing. Files of old versions, without ``num_batches_tracked``, will do.

    Args:
        model: whose submodule ``backbone`` is a ``ResNet``; what else it has keeps its weights.
        path: of a file that ``torch.save`` has written. It is read with ``weights_only``, so that it cannot run code.

    Returns:
        The keys of the file that were left out: those of the classifier.

    Raises:
        ValueError: names the keys that are missing, unknown, or of another shape.
    """
    backbone = model.get_submodule("backbone")
    state = _read_state(path)
    own = backbone.state_dict()
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
    backbone.load_state_dict(own | fitting)
    return tuple(key for key in state if key in _CLASSIFIER)


def _read_state(path: str | Path) -> dict[str, Tensor]:
    state = read_saved(Path(path), "load_backbone: expected a dict of tensors")
    if not isinstance(state, Mapping):
        raise ValueError(f"load_backbone: expected a dict of tensors in {path}, got {type(state).__name__}")
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"load_backbone: expected a dict of tensors in {path}, got others at {_listed(others)}")
    return dict(state)


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
