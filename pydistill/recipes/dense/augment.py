"""Augmentation of pictures together with their boxes: zoom, crop, horizontal flip, colour."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class Item(NamedTuple):
    """A picture (h, w, 3) uint8 BGR, its boxes (k, 4) float32 xyxy in pixels and their labels (k,) int64."""

    picture: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Augment:
    """Draws a zoom, the part of the picture that is kept where it has grown too large, a flip, and a change of colour.

    Args:
        flip: probability of a horizontal flip.
        zoom: smallest and largest factor of both sides.
        visible: a box that keeps a smaller share of its area is left out.
        colour: largest change of a channel's strength, as logarithm: 0.2 is from 0.82 to 1.22 times.
        brightness: largest change of all channels alike, as logarithm.

    Raises:
        ValueError: for arguments out of range.
    """

    flip: float = 0.5
    zoom: tuple[float, float] = (1.0, 1.0)
    visible: float = 0.3
    colour: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"Augment: expected flip in 0..1, got {self.flip}")
        if not 0.25 <= self.zoom[0] <= self.zoom[1] <= 4:
            raise ValueError(f"Augment: expected 0.25 <= low <= high <= 4 as zoom, got {self.zoom}")
        if not 0 < self.visible <= 1:
            raise ValueError(f"Augment: expected visible in (0, 1], got {self.visible}")
        if not (0 <= self.colour <= 2 and 0 <= self.brightness <= 2):
            got = f"{self.colour} and {self.brightness}"
            raise ValueError(f"Augment: expected colour and brightness in 0..2, got {got}")

    def __call__(self, item: Item, size: tuple[int, int], rng: np.random.Generator) -> Item:
        """A changed copy of ``item``, at most ``size`` large.

        Args:
            item: picture and boxes.
            size: height and width of the network's input.
            rng: eight numbers are drawn, whatever the settings.
        """
        zoom, down, across, flip, brightness, *colour = rng.random(8)
        item = rescale(item, float(np.exp(_between(zoom, *np.log(self.zoom)))))
        item = crop(item, size, (down, across), self.visible)
        if flip < self.flip:
            item = mirror(item)
        gains = self.brightness * (2 * brightness - 1) + self.colour * (2 * np.array(colour) - 1)
        if not gains.any():
            return item
        changed = np.clip(item.picture * np.exp(gains).astype(np.float32), 0, 255)
        return item._replace(picture=np.round(changed).astype(np.uint8))


def rescale(item: Item, factor: float) -> Item:
    """``item`` larger by ``factor``; a pixel at x comes to ``factor`` x, counted from the picture's edge."""
    if factor == 1:
        return item
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    if round(min(item.picture.shape[:2]) * factor) == 0:
        grown = cv2.resize(item.picture, [max(round(side * factor), 1) for side in item.picture.shape[1::-1]])
    else:  # by the factors, not by the ratio of whole sides
        grown = cv2.resize(item.picture, None, fx=factor, fy=factor, interpolation=kind)
    return Item(np.asarray(grown, np.uint8), item.boxes * np.float32(factor), item.labels)


def crop(item: Item, size: tuple[int, int], place: tuple[float, float], visible: float) -> Item:
    """The part of ``item`` that fits ``size``; of a picture that is smaller, all.

    Args:
        item: picture and boxes.
        size: largest height and width.
        place: of the part from top to bottom and from left to right, 0..1.
        visible: least share of a box's area inside.
    """
    h, w = item.picture.shape[:2]
    top, left = (int(p * (max(side - most, 0) + 1)) for p, side, most in zip(place, (h, w), size))
    picture = item.picture[top : top + size[0], left : left + size[1]]
    shifted = item.boxes - np.array([left, top, left, top], np.float32)
    limit = np.array([picture.shape[1], picture.shape[0]] * 2, np.float32)
    boxes = np.clip(shifted, 0, limit)
    kept = _area(boxes) >= visible * _area(shifted)
    return Item(picture, boxes[kept], item.labels[kept])


def mirror(item: Item) -> Item:
    """``item`` seen in a mirror."""
    w = np.float32(item.picture.shape[1])
    left, top, right, bottom = item.boxes.T
    boxes = np.stack([w - right, top, w - left, bottom], 1)
    return Item(item.picture[:, ::-1], boxes, item.labels)


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)


PRESETS = {
    "none": None,
    "flip": Augment(),  # mmdetection's schedules of COCO, the released LD among them
    "digits": Augment(flip=0, zoom=(0.85, 1.2), colour=0.15, brightness=0.2),  # no digit is a mirrored digit
}
