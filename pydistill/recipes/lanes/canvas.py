"""A picture of a road in the making: every pixel knows its place on the ground.

The camera's projection is walked backwards, so that what is painted on the road shrinks with distance by itself.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.lanes.road import Floats, Road, Vehicle, View

Bytes = NDArray[np.uint8]
Colour = tuple[float, float, float]  # BGR, 0..1


class Canvas:
    """Places of the pixels, and the means to draw.

    ``z`` metres ahead, ``u`` metres right of the ego lane's centre; ``pixel`` and ``row`` are the metres that a pixel
    covers across and along the road; ``ground`` is 1 below the horizon, else 0. Each is (h, w); ``image`` is (h, w, 3).
    """

    def __init__(self, rng: np.random.Generator, road: Road, view: View):
        self.rng, self.road = rng, road
        self.size, self.scale = view.picture, view.scale
        y, x = np.mgrid[0 : self.size[0], 0 : self.size[1]].astype(np.float32)
        below = (y + 0.5) / self.scale
        self.ground = (below > road.horizon + 2).astype(np.float32)
        self.z = np.minimum(road.depth(below), 400)
        across = ((x + 0.5) / self.scale - road.middle) * self.z / road.focal
        self.u = np.asarray(across - road.centre(self.z), np.float32)
        self.pixel = np.asarray(self.z / (road.focal * self.scale), np.float32)
        self.row = np.asarray(self.z**2 / (road.focal * road.height * self.scale), np.float32)
        self.image = np.zeros((*self.size, 3), np.float32)

    def noise(self, cells: tuple[int, int], octaves: int = 3) -> Floats:
        """Smooth noise over the picture, mean 0, about unit size."""
        total = np.zeros(self.size, np.float32)
        for octave in range(octaves):
            grid = self.rng.standard_normal((cells[0] << octave, cells[1] << octave)).astype(np.float32)
            total += cv2.resize(grid, self.size[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
        return total

    def ground_noise(self, cell: float) -> Floats:
        """Smooth noise that lies on the ground, mean 0, about unit size; ``cell`` metres from knot to knot."""
        grid = self.rng.standard_normal((64, 64)).astype(np.float32)
        place = [np.asarray(np.mod(metres / cell, 64), np.float32) for metres in (self.u, self.z)]
        noise = cv2.remap(grid, place[0], place[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
        return np.asarray(noise * np.clip(cell / self.row, 0, 1), np.float32)  # far away it blurs

    def profile(self, knots: int) -> Floats:
        """A smooth random curve over the columns, about unit size."""
        grid = self.rng.standard_normal((1, knots)).astype(np.float32)
        return np.asarray(cv2.resize(grid, (self.size[1], 1), interpolation=cv2.INTER_CUBIC)[0], np.float32)

    def blend(self, alpha: Floats, colour: Colour | Floats) -> None:
        """Covers the share ``alpha`` (h, w) of each pixel with a colour."""
        self.image += alpha[..., None] * (np.asarray(colour, np.float32) - self.image)

    def darken(self, share: Floats) -> None:
        """Takes a share (h, w) of each pixel's light away."""
        self.image *= (1 - share)[..., None]

    def stripe(self, position: float, width: float) -> Floats:
        """The share of each pixel that a line along the road covers; sizes in metres."""
        return np.asarray(self.ground * _cover(self.u - np.float32(position), width, self.pixel), np.float32)

    def bar(self, near: float, far: float) -> Floats:
        """The share of each pixel that a bar across the road covers, between two depths in metres."""
        return np.asarray(self.ground * _cover(self.z - np.float32((near + far) / 2), far - near, self.row), np.float32)

    def stamp(self, texture: Floats, position: float, near: float, size: tuple[float, float]) -> Floats:
        """The share of each pixel that ``texture`` covers, 0..1, laid on the road.

        Args:
            texture: (h, w), its last row the nearest to the camera.
            position: of its middle, in metres right of the ego lane's centre.
            near: depth of its last row in metres.
            size: length along the road and width, in metres.
        """
        h, w = texture.shape
        x = ((self.u - position) / size[1] + 0.5) * w - 0.5
        y = (1 - (self.z - near) / size[0]) * h - 0.5
        x, y = (np.clip(place, -2, 1000).astype(np.float32) for place in (x, y))
        return np.asarray(cv2.remap(texture, x, y, cv2.INTER_LINEAR) * self.ground, np.float32)

    def box(self, vehicle: Vehicle) -> tuple[float, float, float, float]:
        """Left, bottom, width, height of a vehicle, in pixels of the picture."""
        x, y, w, h = (self.scale * value for value in self.road.box(vehicle))
        return x, y, w, h

    def rectangle(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        """Fills a rectangle; ``x``, ``y`` are its upper left corner, in pixels of the picture."""
        low, high = (int(x * 16), int(y * 16)), (int((x + w) * 16), int((y + h) * 16))
        cv2.rectangle(self.image, low, high, colour, -1, cv2.LINE_AA, 4)

    def glow(self, centre: tuple[float, float], radius: float, colour: Colour, stretch: float = 1) -> None:
        """Adds light around a point; ``stretch`` makes it taller."""
        y, x = (np.arange(n, dtype=np.float32) for n in self.size)
        down = np.exp(-((y - centre[1]) ** 2) / (2 * (radius * stretch) ** 2))
        across = np.exp(-((x - centre[0]) ** 2) / (2 * radius**2))
        self.image += (np.outer(down, across)[..., None] * np.array(colour)).astype(np.float32)


def _cover(distance: Floats, width: float, pixel: Floats) -> Floats:
    """The share of pixels that a line covers whose middle is ``distance`` away, all in metres."""
    within = np.clip((width / 2 - abs(distance)) / pixel + 0.5, 0, 1)
    return np.asarray(within * np.minimum(width / pixel, 1), np.float32)
