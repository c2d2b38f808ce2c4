"""What a generated road scene consists of: the road under a pinhole camera, painted lines, vehicles.

A flat road is seen from ``h`` metres above. At depth ``Z`` metres the ground lies on row ``y = horizon + f h / Z``, and
a point ``X`` metres to the right of the camera's axis on column ``x = middle + f X / Z``. Coordinates are pixels of a
``View``'s frame; pictures are drawn smaller.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FRAME = (720, 1280)  # height, width of the coordinates in TuSimple's label files
SIZE = (180, 320)  # height, width of pictures in that layout
H_SAMPLES = tuple(range(160, 720, 10))
NONE = -2  # TuSimple's mark for "no lane on this row"

LANE_WIDTH = 3.6  # metres
FARTHEST = 70  # metres; lanes are not labelled beyond


@dataclass(frozen=True)
class View:
    """What a data set's camera sees and its labels hold; sizes are (height, width).

    Args:
        frame: size of the picture in whose pixels labels are.
        picture: size of the pictures drawn, of the same proportions.
        rows: rows of the frame on which lanes are labelled, from top to bottom.
        outside: pixels beyond the left and the right side to which lanes are labelled.
        horizon: range of the row of the horizon.
    """

    frame: tuple[int, int]
    picture: tuple[int, int]
    rows: tuple[int, ...]
    outside: int
    horizon: tuple[float, float]

    @property
    def scale(self) -> float:
        """Pixels of the picture per pixel of the frame."""
        return self.picture[1] / self.frame[1]


TUSIMPLE = View(FRAME, SIZE, H_SAMPLES, outside=0, horizon=(225, 275))
CULANE = View((590, 1640), (118, 328), tuple(range(160, 600, 10)), outside=300, horizon=(205, 255))


@dataclass(frozen=True)
class Mark:
    """One line, ``position`` metres right of the ego lane's centre; ``dash`` metres of every ``period`` are painted."""

    position: float
    dash: float
    period: float
    phase: float
    colour: tuple[float, float, float]  # BGR, 0..1
    contrast: float  # 1 fresh paint, 0 gone
    wear: float  # share of the paint that is worn away


@dataclass(frozen=True)
class Vehicle:
    """A car or a lorry: ``position`` of its middle, ``depth``, ``size`` (width, height), all in metres."""

    position: float
    depth: float
    size: tuple[float, float]
    colour: tuple[float, float, float]
    side: bool = False  # seen from the side, else from behind


@dataclass(frozen=True)
class Road:
    """The ego lane's centre lies at ``offset + heading Z + bend Z^2 / 2`` metres.

    ``horizon`` (row), ``middle`` (column) and ``focal`` are in pixels of the frame.
    """

    offset: float
    heading: float
    bend: float
    horizon: float
    middle: float = FRAME[1] / 2
    focal: float = 1000.0
    height: float = 1.5

    def depth(self, y: Floats) -> Floats:
        """Depth in metres of row ``y``, in pixels below the horizon."""
        return np.asarray(self.focal * self.height / np.maximum(y - self.horizon, 1e-3), np.float32)

    def centre(self, depth: Floats | np.float32) -> Floats:
        """Lateral place in metres of the ego lane's centre at ``depth`` metres."""
        return np.asarray(self.offset + self.heading * depth + 0.5 * self.bend * depth**2, np.float32)

    def column(self, position: float, depth: Floats | np.float32) -> Floats:
        """Column in pixels of the line ``position`` metres right of the ego lane's centre."""
        return np.asarray(self.middle + self.focal * (self.centre(depth) + position) / depth, np.float32)

    def box(self, vehicle: Vehicle) -> tuple[float, float, float, float]:
        """Left, bottom, width, height of a vehicle, in pixels."""
        unit = self.focal / vehicle.depth
        x = float(self.column(vehicle.position, np.float32(vehicle.depth)))
        width, height = vehicle.size
        return x - width / 2 * unit, self.horizon + self.height * unit, width * unit, height * unit


@dataclass(frozen=True)
class Crossing:
    """A road across the own one, between two depths in metres, with a stop line before it or without."""

    near: float
    far: float
    stop_line: bool


@dataclass(frozen=True)
class Setting:
    """What makes a category of scenes.

    Args:
        share: of the category in the mix of all.
        bend: range of the road's in 1 / metres; None for a road that is nearly straight.
        contrast: range of that of the paint.
        wheels: range of the brightness of wheel tracks.
        crowd: queues of vehicles on all lanes.
        shade: shadows of trees or of a bridge on the road.
        arrows: arrows and words painted on the lanes.
        crossing: a road crosses.
        light: day, night, or a light into the camera.
    """

    share: float
    bend: tuple[float, float] | None = None
    contrast: tuple[float, float] = (0.35, 1.0)
    wheels: tuple[float, float] = (0.0, 0.03)
    crowd: bool = False
    shade: bool = False
    arrows: bool = False
    crossing: bool = False
    light: Literal["day", "night", "dazzle"] = "day"


@dataclass(frozen=True)
class World:
    """All that a scene shows; marks from left to right, the farthest vehicle first."""

    setting: Setting
    road: Road
    marks: list[Mark]
    vehicles: list[Vehicle]
    crossing: Crossing | None = None


def random_road(rng: np.random.Generator, view: View, bend: tuple[float, float] | None = None) -> Road:
    """A road whose two nearest lines lie left and right of the camera.

    Args:
        rng: source of chance.
        view: the camera.
        bend: range of its size in 1 / metres, to either side; None for a road that is nearly straight.
    """
    while True:
        amount = rng.normal(0, 0.0018) if bend is None else rng.uniform(*bend) * rng.choice((-1, 1))
        road = Road(
            offset=rng.uniform(-0.7, 0.7),
            heading=rng.uniform(-0.03, 0.03),
            bend=float(amount),
            horizon=rng.uniform(*view.horizon),
            middle=view.frame[1] / 2,
        )
        if _keeps_sides(road, view):
            return road


def _keeps_sides(road: Road, view: View) -> bool:
    """Whether the chords of the nearest lines lean to their own sides, by which labels are given their classes."""
    rows = np.array(view.rows, np.float32)
    depth = road.depth(rows)
    lean = []
    for side in (-1, 1):
        columns = road.column(side * LANE_WIDTH / 2, depth)
        seen = columns[(depth < FARTHEST) & (columns >= 0) & (columns < view.frame[1])]
        lean.append(seen[-1] - seen[0])
    return bool(lean[0] < 0 < lean[1])


def random_marks(rng: np.random.Generator, contrast: tuple[float, float] = (0.35, 1.0)) -> list[Mark]:
    """Two to four lines, from left to right: solid or dashed, white or yellow, fresh or worn.

    Args:
        rng: source of chance.
        contrast: range of that of the paint.
    """
    left, right = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 2)][rng.integers(5)]
    lines = [i + 0.5 for i in range(-left, right)]  # in lane widths from the ego lane's centre
    white, yellow = (0.95, 0.95, 0.93), (0.35, 0.75, 0.95)
    tired = rng.uniform(0, 0.35)
    marks = []
    for line in lines:
        outer = line in (lines[0], lines[-1])
        dashed = rng.random() < (0.25 if outer else 0.75)
        period = rng.uniform(8, 13)
        marks.append(
            Mark(
                position=line * LANE_WIDTH,
                dash=rng.uniform(2.5, 5) if dashed else np.inf,
                period=period,
                phase=rng.uniform(0, period),
                colour=yellow if line == lines[0] and rng.random() < 0.5 else white,
                contrast=rng.uniform(*contrast),
                wear=float(np.clip(tired + rng.uniform(-0.1, 0.25), 0, 0.6)),
            )
        )
    return marks


def random_vehicles(rng: np.random.Generator) -> list[Vehicle]:
    """Up to one vehicle in each of three lanes, the farthest first."""
    vehicles = [
        _random_vehicle(rng, lane, rng.uniform(14 if lane == 0 else 9, 60)) for lane in (-1, 0, 1) if rng.random() < 0.5
    ]
    return sorted(vehicles, key=lambda v: -v.depth)


def random_queues(rng: np.random.Generator) -> list[Vehicle]:
    """A queue of vehicles in each of three lanes, the farthest first."""
    vehicles = []
    for lane in (-1, 0, 1):
        depth = rng.uniform(8.5, 14) if lane == 0 else rng.uniform(6, 12)
        while depth < 65:
            vehicles.append(_random_vehicle(rng, lane, depth, lorries=0.25))
            depth += rng.uniform(6, 12)
    return sorted(vehicles, key=lambda v: -v.depth)


def _random_vehicle(rng: np.random.Generator, lane: int, depth: float, lorries: float = 0.2) -> Vehicle:
    """A vehicle from behind in the middle of a lane, more or less; ``lorries`` is their share."""
    low, high = ((2.3, 2.8), (2.6, 3.6)) if rng.random() < lorries else ((1.7, 1.4), (2.0, 1.8))
    width, height = rng.uniform(low, high)
    position = lane * LANE_WIDTH + rng.normal(0, 0.35)
    return Vehicle(position, depth, (width, height), _random_colour(rng))


def random_crossers(rng: np.random.Generator, depths: tuple[float, float]) -> list[Vehicle]:
    """Up to three cars seen from the side, within a range of depths, the farthest first."""
    places = sorted(rng.uniform(*depths, rng.integers(4)).tolist(), reverse=True)
    return [
        Vehicle(rng.uniform(-14, 14), depth, (rng.uniform(4.0, 4.9), rng.uniform(1.4, 1.8)), _random_colour(rng), True)
        for depth in places
    ]


def _random_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    blue, green, red = np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.1, 3), 0, 1)
    return float(blue), float(green), float(red)
