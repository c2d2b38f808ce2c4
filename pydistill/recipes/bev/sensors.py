"""What a LiDAR and six cameras tell of a scene: ray casting with occlusion, shading, darkness, blur and loss."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.bev.classes import CLASSES
from pydistill.recipes.bev.rays import GROUND as ON_GROUND
from pydistill.recipes.bev.rays import SKY, Floats, Hits, cast
from pydistill.recipes.bev.scenes import GROUND, LANE, Difficulty, Scene

_SUN = np.array([0.4, 0.3, 0.87], np.float32)
_WHEEL = 0.35  # height below which a vehicle is dark
_WHEELS = {"car", "truck", "construction_vehicle", "bus", "trailer", "motorcycle", "bicycle"}
_WINDOWS = {"car", "truck", "construction_vehicle", "bus"}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        matrix: (3, 3): from the camera's frame (x right, y down, z ahead) to pixels, whose centres are whole numbers.
        position: (3,) of the camera, seen from the LiDAR.
        rotation: (3, 3): its columns are the camera's axes, seen from the LiDAR.
        size: height and width of its pictures.
    """

    matrix: NDArray[np.float64]
    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    size: tuple[int, int]


def six_cameras(size: tuple[int, int]) -> list[Camera]:
    """A ring in the order of ``classes.CAMERAS``, as nuScenes' is: 70 degrees wide, the one that looks back 110."""
    cameras = []
    for yaw, width in zip((0, -55, -110, 180, 110, 55), (70, 70, 70, 110, 70, 70), strict=True):
        h, w = size
        focal = w / 2 / np.tan(np.radians(width) / 2)
        matrix = np.array([[focal, 0, (w - 1) / 2], [0, focal, (h - 1) * 0.45], [0, 0, 1]])
        cos, sin = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        ahead, right, down = (cos, sin, 0), (sin, -cos, 0), (0, 0, -1)
        position = np.array([0.9 * cos, 0.6 * sin, -0.3])
        cameras.append(Camera(matrix, position, np.array([right, down, ahead]).T, size))
    return cameras


def scan(scene: Scene, boxes: Floats, difficulty: Difficulty, turn: int = 0) -> Floats:
    """One turn of the LiDAR: (P, 4) x, y, z and intensity 0..255.

    Args:
        scene: for colours and chance.
        boxes: where the boxes are, as ``scene.boxes``.
        difficulty: for rows, columns and loss.
        turn: number of the turn, of which chance depends.
    """
    rng = np.random.default_rng([scene.seed, 1, turn])
    steep = np.radians(np.linspace(-30, 10, difficulty.beams))
    around = np.linspace(-np.pi, np.pi, difficulty.columns, endpoint=False) + rng.uniform(0, 0.02)
    steep, around = (x.ravel() for x in np.meshgrid(steep, around, indexing="ij"))
    rays = np.stack([np.cos(steep) * np.cos(around), np.cos(steep) * np.sin(around), np.sin(steep)], -1).astype(
        np.float32
    )
    hits = cast(np.zeros(3, np.float32), rays, boxes, GROUND)
    lost = difficulty.dropped * (1 + 2 * np.minimum(hits.distance / difficulty.reach, 1))
    kept = (hits.target != SKY) & (hits.distance < 2 * difficulty.reach) & (rng.random(len(rays)) >= lost)
    distance = hits.distance[kept] + 0.02 * rng.standard_normal(kept.sum())
    shine = np.where(hits.target >= 0, _brightness(scene, hits), 0.15)[kept]
    intensity = 255 * np.clip(shine + 0.1 * rng.standard_normal(kept.sum()), 0, 1)
    return np.concatenate([distance[:, None] * rays[kept], intensity[:, None]], 1).astype(np.float32)


def _brightness(scene: Scene, hits: Hits) -> Floats:
    if not len(scene.boxes):
        return np.zeros(len(hits.target), np.float32)
    grey: Floats = scene.colours.mean(1)[np.maximum(hits.target, 0)]
    return grey


def photograph(scene: Scene, camera: Camera, difficulty: Difficulty, number: int) -> NDArray[np.uint8]:
    """What a camera sees: (H, W, 3) RGB. ``number``: of the camera, of which chance depends."""
    rng = np.random.default_rng([scene.seed, 2, number])
    h, w = camera.size
    y, x = np.mgrid[:h, :w].reshape(2, -1).astype(np.float64)
    rays = np.linalg.solve(camera.matrix, np.stack([x, y, np.ones_like(x)])).T @ camera.rotation.T
    rays = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
    hits = cast(camera.position.astype(np.float32), rays, scene.boxes, GROUND)
    colour = _sky(rays)
    ground, boxes = hits.target == ON_GROUND, hits.target >= 0
    colour[ground] = _road(scene, hits.place[ground], hits.distance[ground])
    if boxes.any():
        colour[boxes] = _surface(scene, hits, boxes)
    picture: Any = colour.reshape(h, w, 3)
    if scene.night:
        lit = np.exp(-hits.distance / 9).reshape(h, w, 1) * (number in (0, 1, 5))  # the headlights
        picture = picture * (0.12 + 0.8 * lit)
    sigma = rng.uniform(0, difficulty.blur)
    if sigma > 0.1:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    gain = rng.uniform(0.8, 1.15, 3)
    picture = picture * gain + difficulty.noise * rng.standard_normal(picture.shape)
    return np.asarray(255 * np.clip(picture, 0, 1), np.uint8)


def _sky(rays: Floats) -> Floats:
    up = np.clip(rays[:, 2:3] * 2, 0, 1)
    sky: Floats = ((1 - up) * np.array([0.75, 0.8, 0.85]) + up * np.array([0.35, 0.55, 0.85])).astype(np.float32)
    return sky


def _road(scene: Scene, place: Floats, distance: Floats) -> Floats:
    """Asphalt with lines between lanes, and grass beside it, with a grain that fades into the distance."""
    x, y = place[:, 0], place[:, 1] - scene.middle
    edge = scene.lanes * LANE
    on = np.abs(y) < edge
    line = on & (np.abs(y - np.round(y / LANE) * LANE) < 0.08) & ((np.mod(x, 6) < 3) | (np.abs(y) < 0.2))
    grain = 0.06 * np.sin(7.3 * x + 1.7 * np.floor(5 * y)) * np.exp(-distance / 12)
    colour = np.where(on[:, None], [0.33, 0.33, 0.35], [0.36, 0.42, 0.25]) + grain[:, None]
    colour[line] = 0.85
    road: Floats = colour.astype(np.float32)
    return road


def _surface(scene: Scene, hits: Hits, rows: NDArray[np.bool_]) -> Floats:
    """Boxes: their colour under the sun, dark wheels, windows and stripes that tell front from side."""
    target, place, face = hits.target[rows], hits.place[rows], hits.face[rows]
    yaw, height = scene.boxes[target, 6], scene.boxes[target, 5]
    axis = np.zeros((len(target), 3), np.float32)
    axis[np.arange(len(target)), face] = np.sign(place[np.arange(len(target)), face])
    cos, sin = np.cos(yaw), np.sin(yaw)
    normal = np.stack([cos * axis[:, 0] - sin * axis[:, 1], sin * axis[:, 0] + cos * axis[:, 1], axis[:, 2]], -1)
    shade = 0.45 + 0.55 * np.clip(normal @ _SUN, 0, 1)
    colour = scene.colours[target] * shade[:, None]
    names = np.array(CLASSES)[scene.labels[target]]
    up, along = (place[:, 2] + 0.5) * height, place[:, 0]
    wheel = np.isin(names, list(_WHEELS)) & (up < _WHEEL) & (np.abs(np.abs(along) - 0.32) < 0.12)
    window = np.isin(names, list(_WINDOWS)) & (place[:, 2] > 0.1) & (place[:, 2] < 0.4) & (face != 2)
    window &= (face == 1) | (place[:, 0] > 0)  # none behind
    stripe = np.isin(names, ["barrier", "traffic_cone"]) & (np.mod(4 * place[:, 2] + 2 * place[:, 1], 1) < 0.4)
    skin = (names == "pedestrian") & (place[:, 2] > 0.34)
    trousers = (names == "pedestrian") & (place[:, 2] < -0.05)
    colour[wheel] = 0.05
    colour[window] = 0.15 * shade[window, None] + 0.05
    colour[stripe] = 0.92 * shade[stripe, None]
    colour[skin] = np.array([0.75, 0.55, 0.45]) * shade[skin, None]
    colour[trousers] *= 0.4
    return colour.astype(np.float32)
