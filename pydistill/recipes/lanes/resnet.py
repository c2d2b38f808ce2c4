"""ResNet-18-SAD and ResNet-34-SAD: dilated residual networks for lanes.

Reference: Hou et al. 2019, arXiv:1908.00821; Yu et al. 2017, arXiv:1705.09914, for the dilated ResNets.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from pydistill.recipes.lanes.existence import Existence, LaneOutput, check_pictures, check_size
from pydistill.recipes.resnet import ResNet


class ResNetSAD(nn.Module):
    """A dilated ResNet, a dilated 3x3 convolution to 128 channels, a 1x1 classifier, and P1 beside the classifier.

    The stages return ``backbone.layer1`` (N, 64, H/4, W/4), ``backbone.layer2`` (N, 128, H/8, W/8), ``backbone.layer3``
    (N, 256, H/8, W/8) and ``backbone.layer4`` (N, 512, H/8, W/8). The logits are upsampled bilinearly, 8 times.

    Args:
        depth: 18 or 34 in the paper; 50 and 101 have four times the channels in their stages.
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
        self.backbone = ResNet(depth, channels, dilated=True)
        self.neck = nn.Sequential(
            nn.Conv2d(self.backbone.channels[-1], 2 * channels, 3, padding=4, dilation=4, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.Dropout2d(0.1),
        )
        self.head = nn.Conv2d(2 * channels, classes, 1)
        self.p1 = Existence(2 * channels, grid, lanes, dilated)

    def forward(self, pictures: Tensor) -> LaneOutput:
        """Logits of segmentation and existence of normalised ``pictures`` (N, 3, *size)."""
        check_pictures("ResNetSAD", pictures, self.size)
        x = self.neck(self.backbone(pictures)[-1])
        segmentation = F.interpolate(self.head(x), size=self.size, mode="bilinear", align_corners=False)
        return LaneOutput(segmentation, self.p1(x))
