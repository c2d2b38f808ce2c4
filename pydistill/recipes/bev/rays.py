"""Where rays first meet the boxes and the ground of a scene: what a LiDAR measures and a camera sees."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

GROUND, SKY = -1, -2  # what a ray meets that meets no box


class Hits(NamedTuple):
    """Of each ray."""

    distance: Floats
    """Along the ray, in lengths of its direction; infinity for the sky."""
    target: Ints
    """Index of the box, ``GROUND`` or ``SKY``."""
    place: Floats
    """(R, 3): where on the box, each coordinate from -1/2 to 1/2 of its side; on the ground x, y in metres and 0."""
    face: Ints
    """Axis of the box (0, 1, 2) whose side is met, or 2 for the ground."""


def cast(origin: Floats, directions: Floats, boxes: Floats, ground: float) -> Hits:
    """Follows rays from one point.

    Args:
        origin: (3,).
        directions: (R, 3), of any length.
        boxes: (M, 7 or more): x, y, z of the centre, l, w, h, yaw.
        ground: height of the ground, a plane.
    """
    rays = len(directions)
    distance = np.full(rays, np.inf, np.float32)
    target = np.full(rays, SKY, np.int32)
    place = np.zeros((rays, 3), np.float32)
    face = np.full(rays, 2, np.int32)
    down = directions[:, 2] < 0
    distance[down] = (ground - origin[2]) / directions[down, 2]
    target[down] = GROUND
    place[down, :2] = origin[:2] + distance[down, None] * directions[down, :2]
    for index, box in enumerate(boxes):
        cos, sin = np.cos(box[6]), np.sin(box[6])
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)  # columns: the axes of the box
        sides = np.maximum(box[3:6], 1e-3).astype(np.float32)
        start = ((origin - box[:3]) @ turn / sides).astype(np.float32)
        along = _candidates(directions, origin, box)
        step = directions[along] @ turn / sides
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = (-0.5 - start) / step, (0.5 - start) / step
        near, far = np.minimum(first, second), np.maximum(first, second)
        outside = (step == 0) & (np.abs(start) > 0.5)
        near, far = np.where(step == 0, -np.inf, near), np.where(step == 0, np.inf, far)
        enter, leave = near.max(1), far.min(1)
        met = (enter <= leave) & (enter > 0) & (enter < distance[along]) & ~outside.any(1)
        rows = along[met]
        distance[rows], target[rows] = enter[met], index
        face[rows] = near[met].argmax(1)
        place[rows] = start + enter[met, None] * step[met]
    return Hits(distance, target, place, face)


def _candidates(directions: Floats, origin: Floats, box: Floats) -> NDArray[np.int64]:
    """The rays within the cone around a box's sphere; all of them from inside it."""
    to = box[:3] - origin
    radius, length = 0.5 * np.linalg.norm(box[3:6]), np.linalg.norm(to)
    if length <= radius:
        return np.arange(len(directions))
    cosine = directions @ (to / length).astype(np.float32) / np.linalg.norm(directions, axis=1)
    return np.flatnonzero(cosine >= np.sqrt(1 - (radius / length) ** 2) - 1e-4)
