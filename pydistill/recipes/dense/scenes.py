"""Scenes of handwritten digits on photographs, whose boxes are known exactly, as a pure function of (seed, index).

A digit is filled with a piece of a photograph, turned, stretched and laid over a photograph and over other digits. Its
edges are soft, in x and in y each by its own width, and it may fade to one end: where a side of its box lies is then
truly uncertain, more for one side than for another.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pydistill.recipes.dense.textures import Bytes, Floats, Split, cut_photograph, digit_shape, digits

_OUTLINE = 0.5  # of a digit's shape
_INK = 0.15  # half the range of the shape over which a sharp digit's ink sets in
_TRIES = 8  # places that are tried for a digit


@dataclass(frozen=True)
class Difficulty:
    """What makes a scene hard; each pair is a range that is drawn from evenly unless said otherwise.

    Attributes:
        sides: of a picture, in pixels.
        objects: digits that are laid down; one that finds no place is left out.
        length: the longer side of a digit's box in pixels, evenly on a logarithmic scale.
        stretch: largest change of a digit's width against its height, as logarithm.
        turn: largest angle in degrees, either way.
        soft: width of the edges (standard deviation), as share of the longer side, for x and y each,
            evenly on a logarithmic scale.
        fade: least strength of a digit's ink at the end to which it fades; at the other end it is 1.
        contrast: distance of a digit's mean colour from what is below it, the root mean square over channels 0..1.
        texture: how much of a photograph shows in a digit.
        near: probability that a digit is laid beside or over an earlier one.
        covered: largest share of a box that a later digit's box covers.
        outside: largest share of a digit's side that is outside the picture.
        hidden: a digit of which a larger share is hidden or outside is marked as crowd: neither to be learnt nor wrong.
        defocus: blur of the photograph below the digits (standard deviation), in pixels.
        blur: of the whole picture at the end (standard deviation), in pixels.
        noise: of the camera (standard deviation), 0..1.
    """

    sides: tuple[int, int] = (112, 128)
    objects: tuple[int, int] = (1, 4)
    length: tuple[float, float] = (32.0, 80.0)
    stretch: float = 0.2
    turn: float = 10.0
    soft: tuple[float, float] = (0.005, 0.05)
    fade: tuple[float, float] = (0.6, 1.0)
    contrast: tuple[float, float] = (0.4, 0.7)
    texture: float = 0.35
    near: float = 0.2
    covered: float = 0.75
    outside: float = 0.1
    hidden: float = 0.4
    defocus: tuple[float, float] = (0.5, 2.5)
    blur: tuple[float, float] = (0.0, 0.6)
    noise: tuple[float, float] = (0.0, 0.02)


@dataclass(frozen=True)
class Digit:
    """One digit of a scene.

    Attributes:
        label: 0 to 9.
        box: left, top, right, bottom in pixels: the extent of its outline, the middle of its soft edges, whether or not
            another digit lies over it, clipped to the picture.
        hidden: share of its ink that is under other digits or outside the picture.
        sample: its place among scikit-learn's digits.
    """

    label: int
    box: tuple[float, float, float, float]
    hidden: float
    sample: int


@dataclass(frozen=True)
class Scene:
    """A picture (h, w, 3) uint8 BGR and its digits, from the lowest to the topmost."""

    picture: Bytes
    digits: tuple[Digit, ...]


def generate_scene(
    seed: int, index: int, split: Split, classes: int = 10, difficulty: Difficulty | None = None
) -> Scene:
    """Draws scene ``index`` of the world ``seed``; the same arguments always give the same bytes.

    Args:
        seed: names the world, >= 0.
        index: names the scene in it, >= 0.
        split: whose digits and photographs to use.
        classes: how many digits there are, from 0 on.
        difficulty: of the scene; None for the default.
    """
    hard = difficulty or Difficulty()
    rng = np.random.default_rng((seed, index, ("train", "val").index(split)))
    size = (int(rng.integers(hard.sides[0], hard.sides[1] + 1)), int(rng.integers(hard.sides[0], hard.sides[1] + 1)))
    defocus = rng.uniform(*hard.defocus)
    image = _blur(cut_photograph(rng, split, size), defocus, defocus)
    laid: list[tuple[int, int, Floats, Floats, float]] = []  # label, sample, box, ink, ink with what is outside
    for _ in range(rng.integers(hard.objects[0], hard.objects[1] + 1)):
        label, sample = _draw_digit(rng, split, classes)
        found = _find_place(rng, digit_shape(sample), size, [box for _, _, box, _, _ in laid], hard)
        if found is not None:
            matrix, box = found
            ink, whole = _draw_ink(rng, digit_shape(sample), matrix, box, size, hard)
            image = _lay(rng, image, ink, split, hard)
            laid.append((label, sample, box, ink, whole))
    seen = np.ones(size, np.float32)
    boxes = []
    for label, sample, box, ink, whole in reversed(laid):
        hidden = 1 - float((ink * seen).sum()) / whole
        seen = seen * (1 - ink)
        boxes.append(Digit(label, _clip(box, size), min(max(hidden, 0.0), 1.0), sample))
    return Scene(_finish(rng, image, hard), tuple(reversed(boxes)))


def _draw_digit(rng: np.random.Generator, split: Split, classes: int) -> tuple[int, int]:
    """A digit below ``classes``, and one of its samples."""
    places, labels = digits(split)
    label = int(rng.integers(classes))
    return label, int(rng.choice(places[labels == label]))


def _find_place(
    rng: np.random.Generator, shape: Floats, size: tuple[int, int], others: list[Floats], hard: Difficulty
) -> tuple[Floats, Floats] | None:
    """The 2 x 3 matrix from places in ``shape`` to the picture, both from pixel edges, and the box; None without room.

    The outline is moved exactly, so that the box has no grain.
    """
    length = math.exp(rng.uniform(*np.log(hard.length)))
    angle, stretch = math.radians(rng.uniform(-hard.turn, hard.turn)), rng.uniform(-hard.stretch, hard.stretch)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.diag([math.exp(stretch / 2), math.exp(-stretch / 2)])
    outline = _outline(shape) @ linear.T
    low, high = outline.min(0), outline.max(0)
    factor = length / (high - low).max()
    linear, low, high = linear * factor, low * factor, high * factor
    room = np.array([size[1], size[0]]) - (high - low)
    beyond = hard.outside * (high - low)
    least, most = np.minimum(-beyond, room / 2), np.maximum(room + beyond, room / 2)
    if others and rng.random() < hard.near:
        other = others[rng.integers(len(others))]
        near, far = np.clip([other[:2] - (high - low) * 0.7, other[2:] - (high - low) * 0.3], least, most)
        least, most = near, far
    for _ in range(_TRIES):
        start = rng.uniform(least, most)
        box = np.concatenate([start, start + high - low]).astype(np.float32)
        if all(_share(other, box) <= hard.covered for other in others):
            return np.column_stack([linear, start - low]).astype(np.float32), box
    return None


def _outline(shape: Floats) -> Floats:
    """Points (P, 2) where the shape crosses its outline between two neighbours, from the pixel edges."""
    points = []
    for flipped, image in ((False, shape), (True, shape.T)):
        before, after = image[:, :-1], image[:, 1:]
        row, column = np.nonzero((before < _OUTLINE) != (after < _OUTLINE))
        first, second = before[row, column], after[row, column]
        place = np.stack([column + (_OUTLINE - first) / (second - first), row], 1) + 0.5
        points.append(place[:, ::-1] if flipped else place)
    return np.concatenate(points).astype(np.float32)


def _draw_ink(
    rng: np.random.Generator, shape: Floats, matrix: Floats, box: Floats, size: tuple[int, int], hard: Difficulty
) -> tuple[Floats, float]:
    """How much of each pixel (h, w) a digit covers, 0..1, and the sum of that with what is outside the picture."""
    margin = math.ceil(float((box[2:] - box[:2]).max()) * (hard.outside + 3 * hard.soft[1])) + 2
    moved = matrix.astype(np.float64)
    moved[:, 2] += margin + (moved[:, :2] @ [0.5, 0.5]) - 0.5  # OpenCV counts from pixel centres
    canvas = (size[1] + 2 * margin, size[0] + 2 * margin)
    drawn = cv2.warpAffine(shape, moved, canvas, flags=cv2.INTER_LINEAR)
    ink = np.clip((drawn - _OUTLINE) / (2 * _INK) + 0.5, 0, 1)
    length = float((box[2:] - box[:2]).max())
    soft = length * np.exp(rng.uniform(math.log(hard.soft[0]), math.log(hard.soft[1]), 2))
    ink = _blur(ink, *soft)
    y, x = np.mgrid[0 : canvas[1], 0 : canvas[0]].astype(np.float32) - margin + 0.5
    angle, least = rng.uniform(0, 2 * math.pi), rng.uniform(*hard.fade)
    along = ((x - (box[0] + box[2]) / 2) * math.cos(angle) + (y - (box[1] + box[3]) / 2) * math.sin(angle)) / length
    ink = ink * (least + (1 - least) * np.clip(along + 0.5, 0, 1))
    inside = ink[margin : margin + size[0], margin : margin + size[1]]
    return np.ascontiguousarray(inside, np.float32), float(ink.sum())


def _lay(rng: np.random.Generator, image: Floats, ink: Floats, split: Split, hard: Difficulty) -> Floats:
    """The picture with a digit over it, of another colour than what was there."""
    below = (image * ink[..., None]).sum((0, 1)) / max(float(ink.sum()), 1e-6)
    way = rng.standard_normal(3) * 0.6 + rng.choice([-1, 1])  # rather brighter or darker than of another hue
    way *= math.sqrt(3) / np.linalg.norm(way)
    colour = below + rng.uniform(*hard.contrast) * way
    colour = np.where(
        (colour < 0) | (colour > 1), below - (colour - below), colour
    )  # the other way, where there is room
    photograph = cut_photograph(rng, split, (ink.shape[0], ink.shape[1]))
    filling = np.clip(colour + hard.texture * (photograph - photograph.mean((0, 1))), 0, 1)
    return np.asarray(image + ink[..., None] * (filling - image), np.float32)


def _finish(rng: np.random.Generator, image: Floats, hard: Difficulty) -> Bytes:
    """What a camera makes of it."""
    blur = rng.uniform(*hard.blur)
    noise = rng.uniform(*hard.noise) * rng.standard_normal(image.shape).astype(np.float32)
    return np.round(np.clip(_blur(image, blur, blur) + noise, 0, 1) * 255).astype(np.uint8)


def _blur(image: Floats, across: float, down: float) -> Floats:
    """``image`` blurred by standard deviations in pixels; those below a fifth of a pixel count as that."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigmaX=max(across, 0.2), sigmaY=max(down, 0.2)), np.float32)


def _share(other: Floats, box: Floats) -> float:
    """The share of ``other`` that ``box`` covers."""
    sides = np.minimum(other[2:], box[2:]) - np.maximum(other[:2], box[:2])
    return float(np.prod(np.maximum(sides, 0)) / np.prod(other[2:] - other[:2]))


def _clip(box: Floats, size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, right, bottom = np.clip(box, 0, [size[1], size[0], size[1], size[0]]).tolist()
    return left, top, right, bottom
