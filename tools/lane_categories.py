"""Draws the picture of the documentation that shows every category of generated scenes.

    python tools/lane_categories.py docs/images/lane-categories.png

The right half of each has the lanes.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from pydistill.recipes.lanes.canvas import Bytes
from pydistill.recipes.lanes.road import CULANE
from pydistill.recipes.lanes.scenes import CATEGORIES, generate_scene

COLOURS = ((60, 60, 255), (60, 220, 60), (255, 140, 40), (40, 220, 255))  # BGR of classes 1 to 4
ZOOM = 1.2


def tile(index: int, category: str) -> Bytes:
    """A scene under its name, without and with its lanes, side by side."""
    scene = generate_scene(6, index, category, CULANE)
    plain = cv2.resize(scene.picture, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    plain = cv2.bilateralFilter(plain, 5, 25, 3)  # without the camera's noise, which does not compress
    labelled = plain.copy()
    for lane, points in scene.lanes.items():
        fixed = np.round(points * CULANE.scale * ZOOM * 16).astype(np.int32)
        cv2.polylines(labelled, [fixed.reshape(-1, 1, 2)], False, COLOURS[lane - 1], 2, cv2.LINE_AA, 4)
    both = np.hstack([plain, labelled])
    title = np.full((20, both.shape[1], 3), 255, np.uint8)
    cv2.putText(title, category, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return np.asarray(np.vstack([title, both]), np.uint8)


def main() -> None:
    """Writes the picture to the path that the command names."""
    tiles = [tile(index, category) for index, category in enumerate(CATEGORIES)]
    tiles.append(np.full_like(tiles[0], 255))
    picture = np.vstack([np.hstack(tiles[row : row + 2]) for row in range(0, len(tiles), 2)])
    shades = np.asarray(picture // 8 * 8 + 4, np.uint8)  # 32 of each colour: a third of the file
    Path(sys.argv[1]).write_bytes(cv2.imencode(".png", shades, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


if __name__ == "__main__":
    main()
