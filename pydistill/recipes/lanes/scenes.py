"""Road scenes drawn by a program: pictures whose lanes are known exactly, as a pure function of (seed, index).

A picture is shaded by walking the camera's projection backwards: every pixel below the horizon knows its place on the
road, so that marks, dashes and textures shrink with distance by themselves. Evidence is taken away on purpose (dashes,
wear, vehicles, shadows, night, glare): the lane is still labelled there, as an annotator would, and only its context
tells where it is.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.lanes.road import (
    FRAME,
    H_SAMPLES,
    LANE_WIDTH,
    NONE,
    SIZE,
    Floats,
    Mark,
    Road,
    Vehicle,
    random_marks,
    random_road,
    random_vehicles,
)

Bytes = NDArray[np.uint8]

_MIN_POINTS = 12  # a lane seen on fewer rows is not labelled
_FARTHEST = 70  # metres; lanes are not labelled beyond


@dataclass(frozen=True)
class Scene:
    """A picture (180, 320, 3) uint8 BGR and its lanes, each an x per entry of ``H_SAMPLES`` in 1280 x 720 pixels."""

    picture: Bytes
    lanes: list[list[int]]


def generate_scene(seed: int, index: int) -> Scene:
    """Draws scene ``index`` of the world ``seed``; the same two numbers always give the same bytes.

    Args:
        seed: names the world, >= 0.
        index: names the scene in it, >= 0.
    """
    rng = np.random.default_rng((seed, index))
    road, marks, vehicles = random_road(rng), random_marks(rng), random_vehicles(rng)
    picture = _Painter(rng, road).paint(marks, vehicles)
    return Scene(picture, [lane for mark in marks if (lane := _label(road, mark)) is not None])


def _label(road: Road, mark: Mark) -> list[int] | None:
    """One x per row of ``H_SAMPLES``, ``NONE`` where it is out of sight; None for a lane that is hardly seen at all."""
    rows = np.array(H_SAMPLES, np.float32)
    depth = road.depth(rows)
    columns = road.column(mark.position, depth)
    seen = (rows > road.horizon) & (depth < _FARTHEST) & (columns >= 0) & (columns <= FRAME[1] - 1)
    if seen.sum() < _MIN_POINTS:
        return None
    return [int(round(float(x))) if s else NONE for x, s in zip(columns, seen)]


class _Painter:
    """Shades one picture, back to front: sky, ground, road, marks, vehicles, light, camera."""

    def __init__(self, rng: np.random.Generator, road: Road):
        self.rng, self.road = rng, road
        self.scale = SIZE[1] / FRAME[1]
        y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)
        self.ground = (y + 0.5) / self.scale > road.horizon + 2
        self.z = np.minimum(road.depth((y + 0.5) / self.scale), 400)
        across = ((x + 0.5) / self.scale - FRAME[1] / 2) * self.z / road.focal
        self.u = across - road.centre(self.z)  # metres right of the ego lane's centre
        self.pixel = self.z / (road.focal * self.scale)  # metres a pixel covers, across
        self.image = np.zeros((*SIZE, 3), np.float32)

    def paint(self, marks: list[Mark], vehicles: list[Vehicle]) -> Bytes:
        self._sky()
        self._land(marks)
        for mark in marks:
            self._mark(mark)
        self._shadows()
        for vehicle in vehicles:
            self._vehicle(vehicle)
        self._light(vehicles)
        return self._camera()

    def _noise(self, cells: tuple[int, int], octaves: int = 3) -> Floats:
        """Smooth noise over the picture, mean 0, about unit size."""
        total = np.zeros(SIZE, np.float32)
        for octave in range(octaves):
            grid = self.rng.standard_normal((cells[0] << octave, cells[1] << octave)).astype(np.float32)
            total += cv2.resize(grid, SIZE[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
        return total

    def _profile(self, knots: int) -> Floats:
        """A smooth random curve over the columns, about unit size."""
        grid = self.rng.standard_normal((1, knots)).astype(np.float32)
        return np.asarray(cv2.resize(grid, (SIZE[1], 1), interpolation=cv2.INTER_CUBIC)[0], np.float32)

    def _blend(self, alpha: Floats, colour: tuple[float, float, float] | Floats) -> None:
        self.image += alpha[..., None] * (np.asarray(colour, np.float32) - self.image)

    def _sky(self) -> None:
        rows = np.arange(SIZE[0], dtype=np.float32)[:, None, None]
        top = np.array([0.85, 0.62, 0.42], np.float32) * self.rng.uniform(0.7, 1.1)
        haze = np.array([0.92, 0.88, 0.85], np.float32) * self.rng.uniform(0.8, 1.05)
        t = np.clip(rows / (self.road.horizon * self.scale), 0, 1) ** 1.5
        self.image[:] = top + t * (haze - top)
        clouds = np.clip(self._noise((3, 5)) - self.rng.uniform(0.3, 1.5), 0, 1) * 0.6
        self._blend(clouds, (0.97, 0.96, 0.95))
        line = self.road.horizon * self.scale
        for depth in range(2):  # far hills, then trees or houses
            height = np.maximum(6 - 2 * depth + (5 + 5 * depth) * self._profile(5 + 14 * depth), 0)
            below = (rows[..., 0] > line - height[None]).astype(np.float32)
            green = np.array([0.55, 0.5, 0.42] if depth == 0 else [0.2, 0.32, 0.25], np.float32)
            self._blend(below, green * self.rng.uniform(0.6, 1.2))

    def _land(self, marks: list[Mark]) -> None:
        rng = self.rng
        land = np.array([[0.22, 0.42, 0.34], [0.42, 0.55, 0.62], [0.35, 0.45, 0.42]][rng.integers(3)], np.float32)
        texture = 1 + 0.10 * self._noise((12, 8))
        self._blend(self.ground.astype(np.float32), land * texture[..., None])
        shoulder = rng.uniform(0.4, 2.2, 2)
        edge = [marks[0].position - shoulder[0], marks[-1].position + shoulder[1]]
        inside = np.minimum(self.u - edge[0], edge[1] - self.u)
        paved = np.clip(inside / self.pixel + 0.5, 0, 1) * self.ground
        wheels = np.cos(self.u * (4 * np.pi / LANE_WIDTH)) * rng.uniform(0, 0.03)
        grey = rng.uniform(0.25, 0.55) * (1 + 0.05 * self._noise((10, 6)) + wheels)
        self._blend(paved, grey[..., None] * np.array([1.0, 0.99, 0.97], np.float32))
        if rng.random() < 0.5:  # the seam of a repair: dark, along the road, not a lane
            self._line(rng.uniform(-3, 3), rng.uniform(0.05, 0.12), -rng.uniform(0.05, 0.15))
        if rng.random() < 0.4:  # a kerb or a barrier: bright, beyond the outermost line
            self._line(float(rng.choice(edge)), rng.uniform(0.1, 0.35), rng.uniform(0.05, 0.25))

    def _line(self, position: float, width: float, brightness: float) -> None:
        cover = np.clip((width / 2 - abs(self.u - position)) / self.pixel + 0.5, 0, 1)
        cover *= np.minimum(width / self.pixel, 1) * self.ground
        self.image += (cover * brightness)[..., None]

    def _mark(self, mark: Mark) -> None:
        width = 0.17
        cover = np.clip((width / 2 - abs(self.u - mark.position)) / self.pixel + 0.5, 0, 1) * np.minimum(
            width / self.pixel, 1
        )
        if np.isfinite(mark.dash):
            place = (self.z + mark.phase) % mark.period
            row = self.z**2 / (self.road.focal * self.road.height * self.scale)  # metres a pixel covers, along
            painted = np.clip((mark.dash / 2 - abs(place - mark.dash / 2)) / row + 0.5, 0, 1)
            cover *= np.where(row < mark.period / 2, painted, mark.dash / mark.period)
        worn = np.clip((self._noise((24, 20), 2) - np.float32(1.6 - 4.2 * mark.wear)) * 2, 0, 1)
        self._blend(cover * (1 - worn) * mark.contrast * self.ground, mark.colour)

    def _shadows(self) -> None:
        if self.rng.random() < 0.35:  # trees beside the road
            dark = np.clip((self._noise((8, 5)) - self.rng.uniform(-0.2, 0.8)) * 4, 0, 1) * self.ground
            self.image *= (1 - self.rng.uniform(0.3, 0.6) * dark)[..., None]
        if self.rng.random() < 0.2:  # a bridge
            near = self.rng.uniform(6, 25)
            band = ((self.z + 0.3 * self.u > near) & (self.z + 0.3 * self.u < near * 1.7) & self.ground).astype(
                np.float32
            )
            self.image *= (1 - self.rng.uniform(0.4, 0.7) * band)[..., None]

    def _box(self, vehicle: Vehicle) -> tuple[float, float, float, float]:
        """x, y of the lower left corner, width, height, in pixels of the picture."""
        depth = np.float32(vehicle.depth)
        unit = self.road.focal / vehicle.depth * self.scale
        x = float(self.road.column(vehicle.position, depth)) * self.scale
        y = (self.road.horizon + self.road.focal * self.road.height / vehicle.depth) * self.scale
        return x - vehicle.size[0] / 2 * unit, y, vehicle.size[0] * unit, vehicle.size[1] * unit

    def _rectangle(self, x: float, y: float, w: float, h: float, colour: tuple[float, float, float]) -> None:
        low, high = (int(x * 16), int(y * 16)), (int((x + w) * 16), int((y + h) * 16))
        cv2.rectangle(self.image, low, high, colour, -1, cv2.LINE_AA, 4)

    def _vehicle(self, vehicle: Vehicle) -> None:
        x, y, w, h = self._box(vehicle)
        lateral, along = (
            abs(self.u - vehicle.position) / vehicle.size[0],
            abs(self.z - vehicle.depth) / (0.06 * vehicle.depth + 1),
        )
        shadow = np.clip(1.6 - np.maximum(2 * lateral, along) * 1.4, 0, 1) * self.ground
        self.image *= (1 - 0.75 * shadow)[..., None]
        body = vehicle.colour
        dark = (0.08, 0.07, 0.07)
        for side in (0.04, 0.76):
            self._rectangle(x + side * w, y - 0.18 * h, 0.2 * w, 0.18 * h, dark)
        self._rectangle(x, y - 0.62 * h, w, 0.5 * h, body)
        self._rectangle(x + 0.1 * w, y - h, 0.8 * w, 0.45 * h, body)
        if vehicle.size[1] < 2.5:
            self._rectangle(x + 0.16 * w, y - 0.93 * h, 0.68 * w, 0.3 * h, (0.25, 0.22, 0.2))
        for side in (0.03, 0.82):
            self._rectangle(x + side * w, y - 0.52 * h, 0.15 * w, 0.12 * h, (0.12, 0.1, 0.75))

    def _light(self, vehicles: list[Vehicle]) -> None:
        rng = self.rng
        if rng.random() < 0.2:  # night: own headlights, tail lights
            beam = np.exp(-((self.u / (2.5 + 0.12 * self.z)) ** 2)) * np.exp(-self.z / 28) * self.ground
            self.image *= (rng.uniform(0.10, 0.22) + rng.uniform(0.5, 0.9) * beam)[..., None] * np.array(
                [0.95, 0.95, 1], np.float32
            )
            for vehicle in vehicles:
                x, y, w, h = self._box(vehicle)
                for side in (0.1, 0.9):
                    self._glow((x + side * w, y - 0.46 * h), 0.12 * w + 1, (0.15, 0.12, 0.9))
            return
        self.image *= rng.uniform(0.65, 1.15)
        if rng.random() < 0.12:  # low sun
            centre = (rng.uniform(0.2, 0.8) * SIZE[1], self.road.horizon * self.scale - rng.uniform(0, 20))
            self._glow(centre, rng.uniform(25, 60), (0.7, 0.85, 0.95))

    def _glow(self, centre: tuple[float, float], radius: float, colour: tuple[float, float, float]) -> None:
        y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)
        alpha = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * radius**2))
        self.image += alpha[..., None].astype(np.float32) * np.array(colour, np.float32)

    def _camera(self) -> Bytes:
        rng = self.rng
        if rng.random() < 0.3:
            self.image[:] = cv2.GaussianBlur(self.image, (0, 0), rng.uniform(0.4, 1.0))
        self.image += rng.standard_normal(self.image.shape, dtype=np.float32) * np.float32(rng.uniform(0.005, 0.035))
        return np.asarray(np.clip(self.image, 0, 1) * 255, np.uint8)
