"""Augmentation of lane pictures together with their labels: horizontal flip, rotation, crop.

The paper names the three without numbers. ``PRESETS`` has those of the released codes.

Reference: Hou et al. 2019, arXiv:1908.00821.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

IGNORED = 255  # label of a pixel that no loss counts
MEAN, STD = (0.3598, 0.3653, 0.3662), (0.2573, 0.2663, 0.2756)  # of RGB in 0..1, over TuSimple and CULane
_FILL = tuple(255 * value for value in reversed(MEAN))  # BGR; 0 once normalised
_LARGEST_CROP = 2.0

Item = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]  # picture BGR, label, existence


@dataclass(frozen=True)
class Augment:
    """Draws a flip, then a rotation and a crop, which are one warp. Picture and label move alike.

    Args:
        flip: probability of a horizontal flip. Class c becomes K - c, lane 1 on the left being lane K - 1 of the
            mirrored picture, and the existence vector is reversed.
        rotate: largest angle in degrees, either way, about the centre of the picture at the network's size.
        crop: smallest and largest share of both sides that is kept, in (0, 2]; the place is uniform. Above 1 the
            picture shrinks.

    Raises:
        ValueError: for arguments out of range.
    """

    flip: float = 0.5
    rotate: float = 1.0
    crop: tuple[float, float] = (0.9, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"Augment: expected flip in 0..1, got {self.flip}")
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"Augment: expected rotate in 0..180 degrees, got {self.rotate}")
        low, high = self.crop
        if not 0 < low <= high <= _LARGEST_CROP:
            raise ValueError(f"Augment: expected 0 < low <= high <= {_LARGEST_CROP:g} as crop, got {self.crop}")

    def __call__(self, item: Item, classes: int, rng: np.random.Generator) -> Item:
        """A changed copy of ``item``.

        Args:
            item: picture (H, W, 3) uint8 BGR; label (H, W) uint8, 0 background, 255 ignored; existence (L,).
            classes: K, of the label, with the background.
            rng: five numbers are drawn, whatever the settings.

        Returns:
            Picture, label and existence of the same shapes. Where there is no picture the label is 255. A lane that
            has left the picture no longer exists, if each lane has a class of its own (K = L + 1).
        """
        flip, angle, share, *place = rng.random(5)
        if flip < self.flip:
            item = mirror(item, classes)
        degrees = (2 * angle - 1) * self.rotate
        kept = self.crop[0] + share * (self.crop[1] - self.crop[0])
        if degrees == 0 and kept == 1:
            return item
        return warp(item, classes, degrees, kept, (place[0], place[1]))


def mirror(item: Item, classes: int) -> Item:
    """``item`` seen in a mirror: left and right lanes change names."""
    picture, label, existence = item
    names = np.arange(256, dtype=np.uint8)
    names[1:classes] = names[1:classes][::-1]
    return picture[:, ::-1], names[label[:, ::-1]], existence[::-1]


def warp(item: Item, classes: int, degrees: float, kept: float, place: tuple[float, float]) -> Item:
    """``item`` rotated and cropped.

    Args:
        item: as ``Augment`` takes it.
        classes: K, of the label, with the background.
        degrees: to turn about the centre, anticlockwise.
        kept: share of the sides that is kept.
        place: of the crop in x and in y; 0 is the left and the top, 1 the right and the bottom.

    Returns:
        As ``Augment`` returns it.
    """
    picture, label, existence = item
    to_source = _to_source(label.shape, degrees, kept, place)

    def warped(image: NDArray[np.uint8], interpolation: int, fill: tuple[float, ...]) -> NDArray[np.uint8]:
        flags = interpolation | cv2.WARP_INVERSE_MAP
        size = (label.shape[1], label.shape[0])
        moved = cv2.warpAffine(
            np.ascontiguousarray(image), to_source, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
        )
        return np.asarray(moved, np.uint8)

    moved = warped(label, cv2.INTER_NEAREST, (IGNORED,))
    if classes == len(existence) + 1:
        gone = [c for c in range(1, classes) if (label == c).any() and not (moved == c).any()]
        existence = existence.copy()
        existence[[c - 1 for c in gone]] = 0
    return warped(picture, cv2.INTER_LINEAR, _FILL), moved, existence


def _to_source(size: tuple[int, ...], degrees: float, kept: float, place: tuple[float, float]) -> NDArray[np.float64]:
    """The 2 x 3 matrix from a pixel of the result to one of the source, both counted from pixel centres.

    A pixel p of the result is in the crop at q = kept (p + 1/2) + place (1 - kept) side - 1/2, and comes from
    c + R (q - c), with the centre c = (side - 1) / 2.
    """
    side = np.array([size[1], size[0]], np.float64)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])  # clockwise on the screen, as y points down: from result to source
    centre = (side - 1) / 2
    start = kept / 2 + np.array(place) * (1 - kept) * side - 0.5
    return np.column_stack((kept * turn, centre + turn @ (start - centre)))


PRESETS = {
    "flip": Augment(flip=0.5, rotate=0, crop=(1, 1)),
    "paper": Augment(flip=0.5, rotate=1, crop=(0.958, 1)),  # all three, rotation and crop as in "erfnet"
    "port": Augment(flip=0, rotate=1, crop=(1, 1)),  # InhwanBae/ENet-SAD_Pytorch
    "erfnet": Augment(flip=0, rotate=1, crop=(0.958, 1)),  # ERFNet-CULane-PyTorch: 976 columns of 1640 x (0.595..0.621)
    "enet-label": Augment(flip=0, rotate=1, crop=(0.959, 1.043)),  # ENet-Label-Torch: 976 columns of 936..1018
}
