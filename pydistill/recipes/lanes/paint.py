"""Paints a road scene, back to front: sky, ground, road, paint, shadows, vehicles, light, camera."""

import cv2
import numpy as np

from pydistill.recipes.lanes.canvas import Bytes, Canvas, Colour
from pydistill.recipes.lanes.road import LANE_WIDTH, Crossing, Floats, Mark, Vehicle, World

_WHITE = (0.95, 0.95, 0.93)
_ASPHALT = np.array([1.0, 0.99, 0.97], np.float32)


def paint(canvas: Canvas, world: World) -> Bytes:
    """The picture of a world, (h, w, 3) uint8 BGR.

    Args:
        canvas: an empty one.
        world: what to draw on it.
    """
    setting = world.setting
    _sky(canvas)
    _land(canvas, world)
    for mark in world.marks:
        _mark(canvas, mark, world.crossing)
    if setting.arrows:
        paint_arrows(canvas, world.marks)
    if setting.shade:
        _shade(canvas)
    elif canvas.rng.random() < 0.25:
        _light_shade(canvas)
    for vehicle in world.vehicles:
        _vehicle(canvas, vehicle)
    if setting.light == "night":
        _night(canvas, world.vehicles)
    elif setting.light == "dazzle":
        _dazzle(canvas, world.vehicles)
    else:
        canvas.image *= canvas.rng.uniform(0.65, 1.15)
    return _camera(canvas)


def _sky(canvas: Canvas) -> None:
    rng, line = canvas.rng, canvas.road.horizon * canvas.scale
    rows = np.arange(canvas.size[0], dtype=np.float32)[:, None, None]
    top = np.array([0.85, 0.62, 0.42], np.float32) * rng.uniform(0.7, 1.1)
    haze = np.array([0.92, 0.88, 0.85], np.float32) * rng.uniform(0.8, 1.05)
    canvas.image[:] = top + np.clip(rows / line, 0, 1) ** 1.5 * (haze - top)
    clouds = np.clip(canvas.noise((3, 5)) - rng.uniform(0.3, 1.5), 0, 1) * 0.6
    canvas.blend(np.asarray(clouds, np.float32), (0.97, 0.96, 0.95))
    for depth in range(2):  # far hills, then trees or houses
        height = np.maximum(6 - 2 * depth + (5 + 5 * depth) * canvas.profile(5 + 14 * depth), 0)
        below = (rows[..., 0] > line - height[None]).astype(np.float32)
        green = np.array([0.55, 0.5, 0.42] if depth == 0 else [0.2, 0.32, 0.25], np.float32)
        canvas.blend(below, green * rng.uniform(0.6, 1.2))


def _land(canvas: Canvas, world: World) -> None:
    """Land, asphalt, and the lines on it that are no lanes."""
    rng, crossing = canvas.rng, world.crossing
    land = np.array([[0.22, 0.42, 0.34], [0.42, 0.55, 0.62], [0.35, 0.45, 0.42]][rng.integers(3)], np.float32)
    canvas.blend(canvas.ground, land * (1 + 0.10 * canvas.noise((12, 8)))[..., None])
    shoulder = rng.uniform(0.4, 2.2, 2)
    edge = [world.marks[0].position - shoulder[0], world.marks[-1].position + shoulder[1]]
    inside = np.minimum(canvas.u - edge[0], edge[1] - canvas.u)
    paved = np.clip(inside / canvas.pixel + 0.5, 0, 1) * canvas.ground
    if crossing:
        paved = np.maximum(paved, canvas.bar(crossing.near, crossing.far))
    wheels = -np.cos(canvas.u * (4 * np.pi / LANE_WIDTH)) * rng.uniform(*world.setting.wheels)
    grey = rng.uniform(0.25, 0.55) * (1 + 0.05 * canvas.noise((10, 6)) + (0 if crossing else wheels))
    canvas.blend(paved, np.asarray(grey[..., None] * _ASPHALT, np.float32))
    if crossing:
        _crossing(canvas, crossing, edge)
        return
    if rng.random() < 0.5:  # the seam of a repair: dark, along the road, not a lane
        canvas.image -= (canvas.stripe(rng.uniform(-3, 3), rng.uniform(0.05, 0.12)) * rng.uniform(0.05, 0.15))[
            ..., None
        ]
    if rng.random() < 0.4:  # a kerb or a barrier: bright, beyond the outermost line
        kerb = canvas.stripe(float(rng.choice(edge)), rng.uniform(0.1, 0.35))
        canvas.image += (kerb * rng.uniform(0.05, 0.25))[..., None]


def _crossing(canvas: Canvas, crossing: Crossing, edge: list[float]) -> None:
    """A stop line, and a zebra on each side of the crossing road."""
    rng = canvas.rng
    contrast = rng.uniform(0.4, 0.9)
    road = np.asarray((canvas.u > edge[0]) & (canvas.u < edge[1]), np.float32)
    worn = np.clip(canvas.ground_noise(0.6) * 0.6 + 0.8, 0, 1)
    bars = [canvas.bar(crossing.near - 1.6, crossing.near - 1.2)] if crossing.stop_line else []
    period = rng.uniform(0.9, 1.3)
    bands = np.clip((abs((canvas.u % period) / period - 0.5) - 0.25) * period / canvas.pixel + 0.5, 0, 1)
    bands = np.where(canvas.pixel < period / 2, bands, 0.5)
    for near in (crossing.near, crossing.far - 3):
        if rng.random() < 0.8 or near == crossing.near:
            bars.append(np.asarray(canvas.bar(near, near + 3) * bands, np.float32))
    for bar in bars:
        canvas.blend(bar * road * worn * contrast, _WHITE)


def _mark(canvas: Canvas, mark: Mark, crossing: Crossing | None) -> None:
    cover = canvas.stripe(mark.position, 0.17)
    if np.isfinite(mark.dash):
        place = (canvas.z + mark.phase) % mark.period
        painted = np.clip((mark.dash / 2 - abs(place - mark.dash / 2)) / canvas.row + 0.5, 0, 1)
        cover *= np.where(canvas.row < mark.period / 2, painted, mark.dash / mark.period)
    if crossing:
        cover *= canvas.z > crossing.far + 1
    worn = np.clip((canvas.noise((24, 20), 2) - np.float32(1.6 - 4.2 * mark.wear)) * 2, 0, 1)
    canvas.blend(cover * (1 - worn) * mark.contrast, mark.colour)


def paint_arrows(canvas: Canvas, marks: list[Mark]) -> None:
    """Arrows and words on the lanes; the nearest one is well in sight."""
    rng = canvas.rng
    first, last = marks[0].position, marks[-1].position
    first_depth = rng.uniform(4.5, 8)
    for lane in (-1, 0, 1):
        if not first < lane * LANE_WIDTH < last:
            continue
        contrast = rng.uniform(0.55, 1.0)
        depth = first_depth if lane == 0 else first_depth + rng.uniform(-1, 4)
        while depth < 50:
            word = rng.random() < 0.3
            texture, size = (_word(rng), (rng.uniform(4, 6), 2.4)) if word else (_arrow(rng), (rng.uniform(6, 9), 2.0))
            cover = canvas.stamp(texture, lane * LANE_WIDTH + rng.normal(0, 0.1), depth, size)
            worn = np.clip(canvas.ground_noise(0.5) * 0.6 + 0.9, 0, 1)
            canvas.blend(np.asarray(cover * worn * contrast, np.float32), _WHITE)
            depth += rng.uniform(14, 24)


def _arrow(rng: np.random.Generator) -> Floats:
    """An arrow ahead, to a side, or both, (128, 64)."""
    texture = np.zeros((128, 64), np.uint8)
    ahead, turn = [(True, False), (False, True), (True, True)][rng.integers(3)]
    shapes = [[(28, 127), (36, 127), (36, 45), (28, 45)]] if ahead else [[(28, 127), (36, 127), (36, 56), (28, 56)]]
    if ahead:
        shapes.append([(32, 2), (16, 48), (48, 48)])
    if turn:
        shapes += [[(28, 70), (48, 52), (48, 38), (28, 56)], [(46, 26), (62, 40), (46, 64)]]
    for shape in shapes:
        cv2.fillPoly(texture, [np.array(shape, np.int32)], 255, cv2.LINE_AA)
    return np.ascontiguousarray(texture[:, ::-1] if rng.random() < 0.5 else texture, np.float32) / np.float32(255)


def _word(rng: np.random.Generator) -> Floats:
    """Painted letters, (64, 96)."""
    texture = np.zeros((64, 96), np.uint8)
    word = ["BUS", "60", "80", "STOP", "SLOW", "TAXI"][rng.integers(6)]
    (width, _), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1.2, 5)
    scale = 1.2 * 90 / width if width > 90 else 1.2
    cv2.putText(texture, word, (3, 52), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 5, cv2.LINE_AA)
    return np.asarray(texture / 255, np.float32)


def _light_shade(canvas: Canvas) -> None:
    """A few soft shadows of trees beside the road."""
    dark = np.clip((canvas.noise((8, 5)) - canvas.rng.uniform(-0.2, 0.8)) * 4, 0, 1) * canvas.ground
    canvas.darken(np.asarray(canvas.rng.uniform(0.3, 0.6) * dark, np.float32))


def _shade(canvas: Canvas) -> None:
    """Trees over the road with sun between the leaves, or a bridge across it, or both."""
    rng = canvas.rng
    trees, bridge = [(True, False), (True, True), (False, True)][rng.choice(3, p=(0.5, 0.3, 0.2))]
    if trees:
        crowns = canvas.ground_noise(rng.uniform(1.5, 3.5)) + 0.6 * canvas.ground_noise(0.5)
        side = np.clip(canvas.u / 8 * rng.choice((-1, 1)), -1, 1) * 0.5  # more on one side
        dark = np.clip((crowns + side + rng.uniform(-0.4, 0.5)) * 4, 0, 1) * canvas.ground
        canvas.darken(np.asarray(rng.uniform(0.5, 0.72) * dark, np.float32))
    if bridge:
        near, slant = rng.uniform(4, 10), rng.uniform(-0.5, 0.5)
        place = canvas.z + slant * canvas.u
        band = np.asarray((place > near) & (place < near + rng.uniform(6, 14)), np.float32) * canvas.ground
        canvas.darken(cv2.GaussianBlur(band, (0, 0), 0.7) * np.float32(rng.uniform(0.55, 0.75)))


def _vehicle(canvas: Canvas, vehicle: Vehicle) -> None:
    x, y, w, h = canvas.box(vehicle)
    lateral = abs(canvas.u - vehicle.position) / vehicle.size[0]
    along = abs(canvas.z - vehicle.depth) / (0.06 * vehicle.depth + 1)
    shadow = np.clip(1.6 - np.maximum(2 * lateral, along) * 1.4, 0, 1) * canvas.ground
    canvas.darken(np.asarray(0.75 * shadow, np.float32))
    body, dark, glass = vehicle.colour, (0.08, 0.07, 0.07), (0.25, 0.22, 0.2)
    wheels = ((0.13, 0.15), (0.72, 0.15)) if vehicle.side else ((0.04, 0.2), (0.76, 0.2))
    for left, width in wheels:
        canvas.rectangle(x + left * w, y - 0.2 * h, width * w, 0.2 * h, dark)
    canvas.rectangle(x, y - 0.62 * h, w, 0.5 * h, body)
    left, width = (0.2, 0.55) if vehicle.side else (0.1, 0.8)
    canvas.rectangle(x + left * w, y - h, width * w, 0.45 * h, body)
    if vehicle.size[1] < 2.5:
        canvas.rectangle(x + (left + 0.06) * w, y - 0.93 * h, (width - 0.12) * w, 0.3 * h, glass)
    if not vehicle.side:
        for lamp in (0.03, 0.82):
            canvas.rectangle(x + lamp * w, y - 0.52 * h, 0.15 * w, 0.12 * h, (0.12, 0.1, 0.75))


def _night(canvas: Canvas, vehicles: list[Vehicle]) -> None:
    """The own headlights, tail lights, street lamps."""
    rng = canvas.rng
    beam = np.exp(-((canvas.u / (2.5 + 0.12 * canvas.z)) ** 2)) * np.exp(-canvas.z / 28) * canvas.ground
    light = (rng.uniform(0.10, 0.22) + rng.uniform(0.5, 0.9) * beam) * np.where(canvas.ground > 0, 1, 0.6)
    canvas.image *= light[..., None].astype(np.float32) * np.array([0.95, 0.95, 1], np.float32)
    for vehicle in vehicles:
        x, y, w, h = canvas.box(vehicle)
        for side in (0.1, 0.9):
            canvas.glow((x + side * w, y - 0.46 * h), 0.12 * w + 1, (0.15, 0.12, 0.9))
    if rng.random() < 0.6:
        _lamps(canvas, float(rng.choice((-1, 1)) * rng.uniform(7, 11)), (0.5, 0.75, 0.9))


def _lamps(canvas: Canvas, position: float, colour: Colour) -> None:
    """A row of street lamps beside the road."""
    first, step = canvas.rng.uniform(14, 30), canvas.rng.uniform(20, 30)
    for depth in first + step * np.arange(5):
        x = float(canvas.road.column(position, np.float32(depth))) * canvas.scale
        y = (canvas.road.horizon - canvas.road.focal * 5.5 / depth) * canvas.scale
        canvas.glow((x, y), 28 / depth + 0.8, colour)


def _dazzle(canvas: Canvas, vehicles: list[Vehicle]) -> None:
    """A low sun over the road, or oncoming headlights at night."""
    rng, scale = canvas.rng, canvas.size[1] / 320
    line = canvas.road.horizon * canvas.scale
    if rng.random() < 0.7:
        canvas.image *= rng.uniform(0.5, 0.8)
        x, y = rng.uniform(0.3, 0.7) * canvas.size[1], line - rng.uniform(5, 25)
        canvas.glow((x, y), rng.uniform(7, 11) * scale, (2.2, 2.4, 2.5))
        canvas.glow((x, y), rng.uniform(35, 60) * scale, (0.5, 0.6, 0.66))
        canvas.glow((x, canvas.size[0]), rng.uniform(15, 30) * scale, (0.28, 0.34, 0.38), stretch=2.5)  # on the road
        canvas.image += np.float32(rng.uniform(0.05, 0.15))  # the veil of light in the lens
        return
    _night(canvas, vehicles)
    for depth in rng.uniform(9, 35, rng.integers(1, 4)):
        unit = canvas.road.focal / depth * canvas.scale
        x = float(canvas.road.column(-LANE_WIDTH * rng.uniform(0.9, 1.6), np.float32(depth))) * canvas.scale
        for side in (-0.7, 0.7):
            lamp = (x + side * unit, line + 0.8 * unit)
            canvas.glow(lamp, 0.2 * unit + 2, (2.0, 2.2, 2.2))
            canvas.glow(lamp, 0.6 * unit + 12, (0.3, 0.34, 0.35))


def _camera(canvas: Canvas) -> Bytes:
    rng, image = canvas.rng, canvas.image
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.0)), np.float32)
    image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0.005, 0.035))
    return np.asarray(np.clip(image, 0, 1) * 255, np.uint8)
