"""What generated scenes are made of: photographs of scikit-image and scikit-learn, handwritten digits of scikit-learn.

All lie in the packages themselves; nothing is downloaded. Training and validation share neither a digit nor a pixel of
a photograph.
"""

from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Split = Literal["train", "val"]

_COLOUR = ("astronaut", "chelsea", "coffee", "immunohistochemistry", "rocket")  # of scikit-image
_GREY = ("brick", "camera", "coins", "grass", "gravel", "moon")
_SAMPLES = ("china.jpg", "flower.jpg")  # of scikit-learn
_SHARE = 0.65  # of the width of a photograph and of the digits: for training. The digits are in order of their writers
_OUTLINE = 64  # side of a digit's shape, in pixels


@cache
def photographs(split: Split) -> tuple[Bytes, ...]:
    """The left parts (h, w, 3) BGR of some photographs for training, the right parts for validation."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    left, _, _ = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call, unused-ignore]
    whole = [getattr(skimage.data, name)() for name in _COLOUR] + [left]
    whole += [np.repeat(getattr(skimage.data, name)()[..., None], 3, 2) for name in _GREY]
    whole += [load_sample_image(name) for name in _SAMPLES]
    places = [round(_SHARE * picture.shape[1]) for picture in whole]
    parts = [p[:, :x] if split == "train" else p[:, x:] for p, x in zip(whole, places)]
    return tuple(np.ascontiguousarray(part[..., ::-1]) for part in parts)


@cache
def digits(split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of scikit-learn's digits a split has: their places there, and the digits 0 to 9 that they are."""
    _, labels = _load_digits()
    first = round(_SHARE * len(labels))
    places = np.arange(first) if split == "train" else np.arange(first, len(labels))
    return places, labels[places]


@cache
def digit_shape(place: int) -> Floats:
    """A digit (64, 64), 0 where there is no ink to 1, smooth; 1/2 is its outline. ``place`` is among all digits."""
    images, _ = _load_digits()
    ink = np.pad(images[place], 1)
    grown = cv2.resize(ink, (_OUTLINE, _OUTLINE), interpolation=cv2.INTER_CUBIC)
    smooth = cv2.GaussianBlur(grown, (0, 0), _OUTLINE / 40)
    return np.asarray(np.clip(smooth / smooth.max(), 0, 1), np.float32)


@cache
def _load_digits() -> tuple[Floats, NDArray[np.int64]]:
    """All digits (k, 8, 8), 0..1, and what they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.asarray(found.images / 16, np.float32), np.asarray(found.target, np.int64)


def cut_photograph(rng: np.random.Generator, split: Split, size: tuple[int, int]) -> Floats:
    """A random part (h, w, 3) of a photograph, BGR 0..1: its place, its scale, mirrored or not, its brightness."""
    pictures = photographs(split)
    picture = pictures[rng.integers(len(pictures))]
    room = min(picture.shape[0] / size[0], picture.shape[1] / size[1])
    scale = room * rng.uniform(0.5, 1)  # of the photograph's pixels to those of the part
    h, w = (max(1, int(side * scale)) for side in size)
    top, left = rng.integers(picture.shape[0] - h + 1), rng.integers(picture.shape[1] - w + 1)
    part = picture[top : top + h, left : left + w]
    kind = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    cut = cv2.resize(part, size[::-1], interpolation=kind).astype(np.float32) / 255
    cut = cut[:, ::-1] if rng.random() < 0.5 else cut
    return np.clip(cut * np.float32(np.exp(rng.uniform(-0.3, 0.3))), 0, 1)
