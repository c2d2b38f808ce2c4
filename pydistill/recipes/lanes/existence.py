"""P1, the branch that says which lanes exist, and what a lane network with it returns.

Reference: Pan et al. 2018, arXiv:1712.06080; Hou et al. 2019, arXiv:1908.00821.
"""

from typing import NamedTuple

from torch import Tensor, nn

_HIDDEN = 128


class LaneOutput(NamedTuple):
    """What a lane network returns.

    Attributes:
        segmentation: logits (N, classes, H, W).
        existence: logits (N, lanes); a lane exists where its sigmoid is above 0.5.
    """

    segmentation: Tensor
    existence: Tensor


class Existence(nn.Module):
    """Coarse lane probabilities, pooled 2x2 and read by two linear layers.

    The linear layers fix the grid, so that a network with this branch has one input size.

    Args:
        inputs: channels of the feature.
        grid: height and width of the feature, >= 2 each.
        lanes: that may exist; the probabilities have one channel more, for the background.
        dilated: a 3x3 convolution of dilation 4 to 32 channels, with batch normalisation and dropout, and max-pooled
            probabilities (cardwing/Codes-for-Lane-Detection, ERFNet) instead of one 1x1 convolution and averaged
            probabilities (InhwanBae/ENet-SAD_Pytorch).
    """

    def __init__(self, inputs: int, grid: tuple[int, int], lanes: int = 4, dilated: bool = False):
        super().__init__()
        layers: list[nn.Module] = []
        if dilated:
            layers += [
                nn.Conv2d(inputs, 32, 3, padding=4, dilation=4, bias=False),
                nn.BatchNorm2d(32, eps=1e-3),
                nn.ReLU(),
                nn.Dropout2d(0.1),
            ]
        self.coarse = nn.Sequential(
            *layers,
            nn.Conv2d(32 if dilated else inputs, lanes + 1, 1),
            nn.Softmax(1),
            nn.MaxPool2d(2) if dilated else nn.AvgPool2d(2),
        )
        cells = (grid[0] // 2) * (grid[1] // 2)
        self.read = nn.Sequential(
            nn.Flatten(), nn.Linear((lanes + 1) * cells, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, lanes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Existence logits (N, lanes) of ``x`` (N, inputs, *grid)."""
        return self.read(self.coarse(x))  # type: ignore[no-any-return]


def check_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """The grid of the stages at an eighth of ``size`` (height, width).

    Raises:
        ValueError: for a size that has none, or one of a single row or column, which P1 cannot pool.
    """
    if any(side % 8 or side < 16 for side in size):
        raise ValueError(f"{name}: expected height and width that are multiples of 8 from 16 on, got {list(size)}")
    return size[0] // 8, size[1] // 8


def check_pictures(name: str, pictures: Tensor, size: tuple[int, int]) -> None:
    """Raises ValueError for pictures of another size than the network was made for."""
    if pictures.dim() != 4 or tuple(pictures.shape[1:]) != (3, *size):
        raise ValueError(f"{name}: expected pictures of shape (N, 3, {size[0]}, {size[1]}), got {list(pictures.shape)}")
