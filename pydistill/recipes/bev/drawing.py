"""Samples and boxes as pictures: from above and through the cameras."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.report.pictures import GREEN, RED, Picture

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]  # BGR

_SIDE = 480  # pixels of a view from above
_INK, _GROUND = (150, 150, 150), (24, 24, 24)
_EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
_SIGNS = np.array([(x, y, z) for z in (-1, 1) for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1))], float)
__all__ = [
    "GREEN",
    "RED",
    "corners",
    "draw_boxes_above",
    "draw_boxes_in_view",
    "draw_marks",
    "heat_above",
    "points_above",
]


def corners(boxes: Floats) -> Floats:
    """(M, 8, 3): of boxes (M, 7 or more), the lower four first, counter-clockwise from the rear right one."""
    half = boxes[:, None, 3:6] / 2 * _SIGNS
    cos, sin = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x = boxes[:, 0:1] + cos * half[..., 0] - sin * half[..., 1]
    y = boxes[:, 1:2] + sin * half[..., 0] + cos * half[..., 1]
    return np.stack([x, y, boxes[:, 2:3] + half[..., 2]], -1)


def _above(places: Floats, reach: float) -> NDArray[np.int64]:
    """Pixels (..., 2) of places (..., 2 or more) in metres: x ahead is up, y to the left."""
    scaled = np.stack([reach - places[..., 1], reach - places[..., 0]], -1) * (_SIDE / (2 * reach))
    return np.round(np.clip(scaled, -(2**20), 2**20)).astype(np.int64)


def points_above(points: NDArray[np.float32], reach: float) -> Picture:
    """A cloud (P, 3 or more) from above, ``reach`` metres to each side."""
    canvas = np.full((_SIDE, _SIDE, 3), _GROUND, np.uint8)
    at = _above(points[:, :2].astype(float), reach)
    inside = ((at >= 0) & (at < _SIDE)).all(1)
    canvas[at[inside, 1], at[inside, 0]] = _INK
    return canvas


def heat_above(values: NDArray[np.float32], largest: float | None = None) -> Picture:
    """A map (rows along y, columns along x) from above, from black to yellow as its square root."""
    most = float(values.max()) if largest is None else largest
    strength = np.sqrt(np.clip(values / max(most, 1e-30), 0, 1))
    turned = np.ascontiguousarray(strength.T[::-1, ::-1])  # x up, y to the left
    heat = cv2.applyColorMap((255 * turned).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(cv2.resize(heat, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST), np.uint8)


def draw_boxes_above(picture: Picture, boxes: Floats, reach: float, colour: Colour) -> Picture:
    """Outlines of boxes, with a line to the middle of the front, on a copy of a view from above."""
    canvas = picture.copy()
    for box, ring in zip(boxes, _above(corners(boxes)[:, :4], reach), strict=True):
        cv2.polylines(canvas, [ring.astype(np.int32)], True, colour, 2, cv2.LINE_AA)
        front, centre = (ring[2] + ring[3]) // 2, _above(box[:2], reach)
        cv2.line(canvas, centre.tolist(), front.tolist(), colour, 2, cv2.LINE_AA)
    return canvas


def draw_marks(picture: Picture, places: Floats, reach: float, colour: Colour) -> Picture:
    """Dots at places (..., 2) in metres, on a copy of a view from above."""
    canvas = picture.copy()
    for at in _above(places.reshape(-1, 2), reach).tolist():
        cv2.circle(canvas, at, 2, colour, cv2.FILLED, cv2.LINE_AA)
    return canvas


def draw_boxes_in_view(picture: Picture, boxes: Floats, to_pixels: Floats, colour: Colour, factor: int = 1) -> Picture:
    """The edges of boxes as a camera (3, 4) sees them, on a copy of its picture that is ``factor`` times as large."""
    canvas = picture.copy()
    placed = corners(boxes)
    seen = np.concatenate([placed, np.ones((*placed.shape[:2], 1))], -1) @ to_pixels.T
    for box in seen:
        if box[:, 2].min() < 0.1:  # reaches behind the camera
            continue
        at = np.round(((box[:, :2] / box[:, 2:]) + 0.5) * factor).astype(int)
        if np.abs(at).max() > 2**14:
            continue
        for a, b in _EDGES:
            cv2.line(canvas, at[a].tolist(), at[b].tolist(), colour, 1, cv2.LINE_AA)
    return canvas


def side_by_side(views: Sequence[Picture]) -> Picture:
    """Six cameras as two rows: those that look ahead, and those that look back."""
    order = [views[i] for i in (5, 0, 1, 4, 3, 2)]
    return np.vstack([np.hstack(order[:3]), np.hstack(order[3:])])
