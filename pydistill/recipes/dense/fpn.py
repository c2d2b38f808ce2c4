"""Feature pyramid: every level sees the picture through the deepest one.

Reference: Lin et al. 2017, arXiv:1612.03144; extra levels as in Tian et al. 2019 (FCOS), arXiv:1904.01355.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """1x1 convolutions, sums from the deepest level down (nearest neighbour), 3x3 convolutions, extra coarse levels.

    Args:
        inputs: channels of the backbone's features, fine to coarse.
        channels: of all levels.
        levels: at least ``len(inputs)``; what goes beyond comes from the level before by 3x3 convolutions of stride 2.
    """

    def __init__(self, inputs: Sequence[int], channels: int, levels: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in inputs)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        self.extra = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(levels - len(inputs))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Levels (N, channels, h, w) of ``features`` [(N, c, h, w), ...], fine to coarse; extra ones after them."""
        sums = [lateral(feature) for lateral, feature in zip(self.lateral, features)]
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] = sums[i - 1] + F.interpolate(sums[i], size=sums[i - 1].shape[2:], mode="nearest")
        levels = [output(x) for output, x in zip(self.output, sums)]
        for convolution in self.extra:
            levels.append(convolution(levels[-1]))
        return levels
