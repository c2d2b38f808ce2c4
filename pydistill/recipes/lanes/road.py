"""What a generated road scene consists of: the road under a pinhole camera, painted lines, vehicles.

A flat road is seen from ``h`` metres above. At depth ``Z`` metres the ground lies on row ``y = horizon + f h / Z``, and
a point ``X`` metres to the right of the camera's axis on column ``x = cx + f X / Z``. Coordinates are pixels of a
1280 x 720 picture, TuSimple's; pictures are drawn at ``SIZE``, a quarter of that.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FRAME = (720, 1280)  # height, width of the coordinates in the label files
SIZE = (180, 320)  # height, width of the pictures
H_SAMPLES = tuple(range(160, 720, 10))
NONE = -2  # TuSimple's mark for "no lane on this row"

LANE_WIDTH = 3.6  # metres


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
    """A car or a lorry from behind: ``position`` of its middle, ``depth``, ``size`` (width, height), all in metres."""

    position: float
    depth: float
    size: tuple[float, float]
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Road:
    """The ego lane's centre lies at ``offset + heading Z + bend Z^2 / 2`` metres; ``horizon``, ``focal`` in pixels."""

    offset: float
    heading: float
    bend: float
    horizon: float
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
        return np.asarray(FRAME[1] / 2 + self.focal * (self.centre(depth) + position) / depth, np.float32)


def random_road(rng: np.random.Generator) -> Road:
    """A road whose two nearest lines lie left and right of the camera."""
    return Road(
        offset=rng.uniform(-0.7, 0.7),
        heading=rng.uniform(-0.03, 0.03),
        bend=rng.normal(0, 0.0018),
        horizon=rng.uniform(225, 275),
    )


def random_marks(rng: np.random.Generator) -> list[Mark]:
    """Two to four lines, from left to right: solid or dashed, white or yellow, fresh or worn."""
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
                contrast=rng.uniform(0.35, 1.0),
                wear=float(np.clip(tired + rng.uniform(-0.1, 0.25), 0, 0.6)),
            )
        )
    return marks


def random_vehicles(rng: np.random.Generator) -> list[Vehicle]:
    """Up to one vehicle in each of three lanes, the farthest first."""
    vehicles = []
    for lane in (-1, 0, 1):
        if rng.random() < 0.5:
            lorry = rng.random() < 0.2
            low, high = ((2.3, 2.8), (2.6, 3.6)) if lorry else ((1.7, 1.4), (2.0, 1.8))
            width, height = rng.uniform(low, high)
            shade = rng.uniform(0.05, 0.95)
            depth = rng.uniform(14, 60) if lane == 0 else rng.uniform(9, 60)
            blue, green, red = np.clip(shade + rng.normal(0, 0.1, 3), 0, 1)
            position = lane * LANE_WIDTH + rng.normal(0, 0.35)
            vehicles.append(Vehicle(position, depth, (width, height), (blue, green, red)))
    return sorted(vehicles, key=lambda v: -v.depth)
