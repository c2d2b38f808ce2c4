"""ENet, a small real-time segmentation network, and ENet-SAD, its extension for lanes.

Stages ``e1``, ``e2``, ... are modules that return one feature each, so that a tap finds them by name.

Reference: Paszke et al. 2016, arXiv:1606.02147; as the lane network of Hou et al. 2019, arXiv:1908.00821.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pydistill.recipes.lanes.existence import Existence, LaneOutput, check_pictures, check_size


def _normed(layer: nn.Module, channels: int, activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), *([activation] if activation else []))


def _activation(relu: bool) -> nn.Module:
    return nn.ReLU() if relu else nn.PReLU()


class InitialBlock(nn.Module):
    """A strided convolution beside a pooled copy of the picture: (N, 3, H, W) to (N, 16, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.out = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 16, H/2, W/2) of the picture ``x`` (N, 3, H, W)."""
        pooled = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.out(torch.cat([self.conv(x), pooled], 1))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Residual block: 1x1 to a quarter of the channels, a 3x3 (dilated) or 5x1 and 1x5 convolution, 1x1 back.

    Args:
        channels: of input and output.
        dilation: of the 3x3 convolution, >= 1.
        asymmetric: 5x1 then 1x5 instead of 3x3.
        dropout: share of channels dropped, 0..1.
        relu: ReLU instead of PReLU, as in the decoder.
    """

    def __init__(self, channels: int, dropout: float, dilation: int = 1, asymmetric: bool = False, relu: bool = False):
        super().__init__()
        inner = channels // 4
        middle: nn.Module = nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)
        if asymmetric:
            tall = nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False)
            wide = nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False)
            middle = nn.Sequential(_normed(tall, inner, _activation(relu)), wide)
        self.branch = nn.Sequential(
            _normed(nn.Conv2d(channels, inner, 1, bias=False), inner, _activation(relu)),
            _normed(middle, inner, _activation(relu)),
            _normed(nn.Conv2d(inner, channels, 1, bias=False), channels, _activation(relu)),
            nn.Dropout2d(dropout),
        )
        self.out = _activation(relu)

    def forward(self, x: Tensor) -> Tensor:
        """A feature of the shape of ``x`` (N, channels, h, w)."""
        return self.out(x + self.branch(x))  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Halves the grid: a max-pooled branch, padded with zero channels, plus a strided bottleneck."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        inner = inputs // 4
        self.extra = outputs - inputs
        self.branch = nn.Sequential(
            _normed(nn.Conv2d(inputs, inner, 2, stride=2, bias=False), inner, nn.PReLU()),
            _normed(nn.Conv2d(inner, inner, 3, padding=1, bias=False), inner, nn.PReLU()),
            _normed(nn.Conv2d(inner, outputs, 1, bias=False), outputs, nn.PReLU()),
            nn.Dropout2d(dropout),
        )
        self.out = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The feature (N, outputs, h/2, w/2), and the indices of the pooled maxima, which the decoder unpools with."""
        pooled, indices = F.max_pool2d(x, 2, stride=2, return_indices=True)
        return self.out(F.pad(pooled, (0, 0, 0, 0, 0, self.extra)) + self.branch(x)), indices


class Upsample(nn.Module):
    """Doubles the grid: a 1x1 convolution unpooled at the encoder's indices plus a transposed bottleneck."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        inner = inputs // 4
        self.main = _normed(nn.Conv2d(inputs, outputs, 1, bias=False), outputs)
        self.branch = nn.Sequential(
            _normed(nn.Conv2d(inputs, inner, 1, bias=False), inner, nn.ReLU()),
            _normed(nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False), inner, nn.ReLU()),
            _normed(nn.Conv2d(inner, outputs, 1, bias=False), outputs),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """The feature (N, outputs, 2h, 2w) of ``x`` (N, inputs, h, w)."""
        return F.relu(F.max_unpool2d(self.main(x), indices, [2, 2]) + self.branch(x))


def context_block(channels: int = 128, dropout: float = 0.1) -> nn.Sequential:
    """The eight bottlenecks of a deep stage: regular, dilated 2, 5x1 + 1x5, dilated 4; again with dilations 8, 16."""
    layers: list[nn.Module] = []
    for first, second in ((2, 4), (8, 16)):
        layers += [
            Bottleneck(channels, dropout),
            Bottleneck(channels, dropout, dilation=first),
            Bottleneck(channels, dropout, asymmetric=True),
            Bottleneck(channels, dropout, dilation=second),
        ]
    return nn.Sequential(*layers)


class Decoder(nn.Module):
    """Two upsampling stages and the classifier: (N, inputs, h, w) to logits (N, classes, 8h, 8w)."""

    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.up1 = Upsample(inputs, 64, 0.1)
        self.d1 = nn.Sequential(*(Bottleneck(64, 0.1, relu=True) for _ in range(2)))
        self.up2 = Upsample(64, 16, 0.1)
        self.d2 = Bottleneck(16, 0.1, relu=True)
        self.head = nn.ConvTranspose2d(16, classes, 3, stride=2, padding=1, output_padding=1, bias=False)

    def forward(self, x: Tensor, indices: tuple[Tensor, Tensor]) -> Tensor:
        """Logits of ``x`` (N, inputs, h, w), unpooled with the encoder's ``indices``, finer ones first."""
        x = self.d1(self.up1(x, indices[1]))
        return self.head(self.d2(self.up2(x, indices[0])))  # type: ignore[no-any-return]


class ENetSAD(nn.Module):
    """ENet with a fourth stage, a decoder that reads the last two stages, and the existence branch P1 on the last.

    The stages return ``e1`` (N, 64, H/4, W/4), ``e2``, ``e3`` and ``e4`` (N, 128, H/8, W/8). The weights of ``e2``,
    ``e3``, ``e4`` are in ``context``: with ``shared`` one block runs three times, yet each stage is a module of its own
    that a tap finds by name.

    Args:
        size: height and width of the pictures in pixels, multiples of 8 from 16 on.
        classes: channels of the segmentation.
        lanes: that P1 tells about.
        shared: one set of weights and batch statistics for e2, e3 and e4, the default of InhwanBae/ENet-SAD_Pytorch;
            False: one for each.
        dilated: P1 with a dilated convolution.

    Raises:
        ValueError: for another size.

    Reference:
        Hou et al., ICCV 2019, arXiv:1908.00821, section 3.
    """

    stages = ("e1", "e2", "e3", "e4")  # shallow to deep

    def __init__(
        self, size: tuple[int, int], classes: int = 5, lanes: int = 4, shared: bool = True, dilated: bool = False
    ):
        super().__init__()
        grid = check_size("ENetSAD", size)
        self.size = size
        self.initial = InitialBlock()
        self.down1 = Downsample(16, 64, 0.01)
        self.e1 = nn.Sequential(*(Bottleneck(64, 0.01) for _ in range(4)))
        self.down2 = Downsample(64, 128, 0.1)
        self.context = nn.ModuleList(context_block() for _ in range(1 if shared else 3))
        self.e2, self.e3, self.e4 = nn.Identity(), nn.Identity(), nn.Identity()
        self.p1 = Existence(128, grid, lanes, dilated)
        self.decoder = Decoder(256, classes)

    def forward(self, pictures: Tensor) -> LaneOutput:
        """Logits of segmentation and existence of normalised ``pictures`` (N, 3, *size)."""
        check_pictures("ENetSAD", pictures, self.size)
        x, first = self.down1(self.initial(pictures))
        x, second = self.down2(self.e1(x))
        e2 = self.e2(self.context[0](x))
        e3 = self.e3(self.context[1 % len(self.context)](e2))
        e4 = self.e4(self.context[2 % len(self.context)](e3))
        return LaneOutput(self.decoder(torch.cat([e3, e4], 1), (first, second)), self.p1(e4))
