"""Roads with boxes of nuScenes' ten classes, as a pure function of (seed, index).

The ego stands on a straight road along x. Vehicles keep to lanes, or stand parked beside them; pedestrians walk on
pavements and cross; barriers and cones line works beside the road. At the first moment boxes do not overlap; later,
those that move may.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.bev.classes import CLASSES

GROUND = -1.84  # height below the LiDAR, in metres
LANE = 3.6
_TRIES = 12

# length, width, height in metres and the spread of each as a share
_SIZES = {
    "car": (4.6, 1.95, 1.7, 0.08),
    "truck": (7.0, 2.5, 2.8, 0.15),
    "construction_vehicle": (6.4, 2.8, 3.2, 0.15),
    "bus": (11.0, 2.9, 3.4, 0.08),
    "trailer": (12.0, 2.9, 3.8, 0.1),
    "barrier": (0.5, 2.5, 1.0, 0.08),
    "motorcycle": (2.1, 0.8, 1.5, 0.08),
    "bicycle": (1.7, 0.6, 1.3, 0.08),
    "pedestrian": (0.7, 0.67, 1.77, 0.08),
    "traffic_cone": (0.45, 0.45, 1.05, 0.08),
}
_SHARES = {
    "car": 0.18, "truck": 0.09, "construction_vehicle": 0.08, "bus": 0.08, "trailer": 0.07, "barrier": 0.1,
    "motorcycle": 0.09, "bicycle": 0.09, "pedestrian": 0.12, "traffic_cone": 0.1,
}  # fmt: skip
_SPEEDS = {"car": 12.0, "truck": 9.0, "bus": 8.0, "motorcycle": 10.0, "bicycle": 4.0, "pedestrian": 1.4}


@dataclass(frozen=True)
class Difficulty:
    """What makes a scene hard.

    Attributes:
        reach: largest distance of a box's centre along x and y, in metres.
        objects: boxes that are laid down, from and to; one that finds no place is left out.
        moving: share of what can move that does.
        night: share of scenes at night, when cameras see little.
        blur: largest blur of pictures (standard deviation), in pixels.
        noise: of the cameras (standard deviation), 0..1.
        beams: rows of the LiDAR.
        columns: its directions in a turn.
        dropped: share of a LiDAR's returns that is lost near by; it grows to three times that at ``reach``.
    """

    reach: float = 15.5
    objects: tuple[int, int] = (5, 11)
    moving: float = 0.5
    night: float = 0.1
    blur: float = 0.6
    noise: float = 0.02
    beams: int = 24
    columns: int = 360
    dropped: float = 0.05


@dataclass(frozen=True)
class Scene:
    """What stands around the ego.

    Attributes:
        boxes: (M, 9) float32: x, y, z of the centre, l, w, h, yaw, and the velocity vx, vy in metres and seconds, seen
            from the LiDAR.
        labels: (M,) index into ``CLASSES``.
        colours: (M, 3) of each box, 0..1.
        night: whether it is dark.
        lanes: how many lie on each side of the road's middle.
        middle: y of the middle of the road.
        seed: of what sensors add.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    colours: NDArray[np.float32]
    night: bool
    lanes: int
    middle: float
    seed: int

    def after(self, seconds: float) -> NDArray[np.float32]:
        """Where the boxes are a little later; a negative number of seconds: where they were."""
        moved = self.boxes.copy()
        moved[:, :2] += seconds * moved[:, 7:9]
        return moved


def make_scene(seed: int, index: int, split: int, difficulty: Difficulty) -> Scene:
    """Scene ``index`` of a split (a number of its own); equal arguments give equal scenes."""
    rng = np.random.default_rng([seed, split, index])
    lanes, middle = int(rng.integers(1, 3)), LANE / 2
    count = int(rng.integers(difficulty.objects[0], difficulty.objects[1] + 1))
    boxes: list[NDArray[np.float64]] = []
    labels: list[int] = []
    for label in rng.choice(len(CLASSES), count, p=[_SHARES[name] for name in CLASSES]):
        for _ in range(_TRIES):
            box = _place(rng, CLASSES[label], lanes, middle, difficulty)
            if np.abs(box[:2]).max() <= difficulty.reach and not any(_near(box, other) for other in [_EGO, *boxes]):
                boxes.append(box)
                labels.append(int(label))
                break
    colours = rng.uniform(0.08, 0.95, (len(boxes), 3))
    kinds = np.array(labels, dtype=np.int64)
    for name, colour in (("traffic_cone", (0.95, 0.4, 0.05)), ("construction_vehicle", (0.9, 0.75, 0.1))):
        colours[kinds == CLASSES.index(name)] = colour
    return Scene(
        np.array(boxes, dtype=np.float32).reshape(-1, 9),
        kinds,
        colours.astype(np.float32),
        bool(rng.random() < difficulty.night),
        lanes,
        middle,
        int(rng.integers(2**31)),
    )


_EGO = np.array([0, 0, 0, 5.5, 2.6, 2, 0, 0, 0], dtype=np.float64)  # nothing stands where the ego does


def _place(rng: np.random.Generator, name: str, lanes: int, middle: float, d: Difficulty) -> NDArray[np.float64]:
    """A box of a class where one would stand, with its velocity."""
    *size, spread = _SIZES[name]
    length, w, h = np.array(size) * np.exp(rng.uniform(-1, 1, 3) * spread)
    edge, side = lanes * LANE, rng.choice([-1.0, 1.0])
    x, wobble = rng.uniform(-d.reach, d.reach), 0.05 * rng.standard_normal()
    speed = _SPEEDS.get(name, 0.0) * rng.uniform(0.3, 1.0) * (rng.random() < d.moving)
    if name in ("barrier", "traffic_cone"):
        y, yaw = middle + side * (edge + rng.uniform(0.2, 1.2)), rng.choice([0.0, np.pi / 2]) + wobble
    elif name == "pedestrian":
        y, yaw = middle + side * (edge + rng.uniform(1.5, 6.0)), rng.uniform(-np.pi, np.pi)
        if rng.random() < 0.15:  # crossing
            y = middle + rng.uniform(-edge, edge)
    elif name == "construction_vehicle" or speed == 0:
        y, yaw = middle + side * (edge + w / 2 + rng.uniform(0.2, 1.5)), np.pi * (rng.random() < 0.5) + 3 * wobble
    else:
        lane = rng.integers(lanes)
        y, yaw = (
            middle + side * (lane + 0.5) * LANE + 0.3 * rng.standard_normal(),
            (np.pi if side > 0 else 0.0) + wobble,
        )
    return np.array([x, y, GROUND + h / 2, length, w, h, yaw, speed * np.cos(yaw), speed * np.sin(yaw)])


def _near(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two boxes may touch: their extents along x and y do, 0.2 m between them."""
    reach = [
        (
            abs(box[3] * np.cos(box[6])) + abs(box[4] * np.sin(box[6])),
            abs(box[3] * np.sin(box[6])) + abs(box[4] * np.cos(box[6])),
        )
        for box in (a, b)
    ]
    return all(abs(a[axis] - b[axis]) < (reach[0][axis] + reach[1][axis]) / 2 + 0.2 for axis in (0, 1))
