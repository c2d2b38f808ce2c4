"""Pictures for reports: lanes and attention drawn on a photograph, and images as text that a page can embed."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image  # a dependency of matplotlib

Picture = NDArray[np.uint8]  # (h, w, 3), BGR

GREEN, RED = (90, 210, 60), (40, 40, 235)
_GAP = 40  # rows of the frame; points farther apart are not joined


def draw_lanes(
    picture: Picture,
    lanes: Sequence[Sequence[int]],
    rows: Sequence[int],
    frame: tuple[int, int],
    colour: tuple[int, int, int],
) -> Picture:
    """Draws lanes on a copy of ``picture``.

    Args:
        picture: what to draw on.
        lanes: for each, one x per row; negative: none. Neighbouring points are joined.
        rows: the y of each value.
        frame: height and width of the picture that the coordinates belong to.
        colour: BGR.
    """
    points = [[(x, y) for x, y in zip(lane, rows) if x >= 0] for lane in lanes]
    return draw_points(picture, points, frame, colour)


def draw_points(
    picture: Picture,
    lanes: Sequence[Sequence[tuple[float, float]] | NDArray[np.float32]],
    frame: tuple[int, int],
    colour: tuple[int, int, int],
) -> Picture:
    """Draws lanes, each of points (x, y), on a copy of ``picture``, as ``draw_lanes`` does."""
    canvas = picture.copy()
    scale = np.array([picture.shape[1] / frame[1], picture.shape[0] / frame[0]])
    width = max(1, round(picture.shape[1] / 200))
    for lane in lanes:
        points = [np.round(scale * point * 16).astype(int) for point in np.asarray(lane, np.float64).reshape(-1, 2)]
        for a, b in zip(points[:-1], points[1:]):
            if abs(int(a[1]) - int(b[1])) < 16 * scale[1] * _GAP:
                cv2.line(canvas, a.tolist(), b.tolist(), colour, width, cv2.LINE_AA, 4)
    return canvas


def overlay(
    picture: Picture, attention: NDArray[np.float32], *, largest: float | None = None, smooth: bool = True
) -> Picture:
    """Lays the square root of an attention map (h, w) over a dimmed ``picture``.

    Args:
        picture: what to lay it over.
        attention: values >= 0.
        largest: the value that is yellow; None: the largest.
        smooth: between the map's positions; else each is a rectangle.
    """
    size = (picture.shape[1], picture.shape[0])
    most = float(attention.max()) if largest is None else largest
    strength = np.sqrt(np.clip(attention / max(most, 1e-30), 0, 1))
    kind = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    strength = np.clip(cv2.resize(strength.astype(np.float32), size, interpolation=kind), 0, 1)
    heat = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(grey, 0.3, heat, 0.9, 0).astype(np.uint8)


def enlarge(picture: Picture, factor: int) -> Picture:
    """``picture`` magnified, smoothly."""
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def resize(picture: Picture, size: Sequence[int]) -> Picture:
    """``picture`` at ``size``, width and height in pixels, smoothly."""
    return np.asarray(cv2.resize(picture, list(size), interpolation=cv2.INTER_CUBIC), np.uint8)


def draw_point(picture: Picture, at: Sequence[float], colour: tuple[int, int, int] = GREEN) -> Picture:
    """Draws a disc at ``at`` (x, y) in pixels on a copy of ``picture``."""
    canvas = picture.copy()
    centre = [round(v) for v in at]
    cv2.circle(canvas, centre, max(2, round(max(picture.shape) / 100)), colour, cv2.FILLED, cv2.LINE_AA)
    return canvas


def data_uri(picture: Picture, quality: int = 85) -> str:
    """``picture`` as a JPEG in a ``data:`` address."""
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def write_montage(
    target: Path, rows: Sequence[Sequence[Picture]], titles: Sequence[str], *, width: int = 1200, colours: int = 256
) -> None:
    """Writes a grid of equally large pictures with a title over each column as one PNG.

    Args:
        target: the file.
        rows: pictures, as many a row as there are titles.
        titles: one a column.
        width: of the PNG in pixels.
        colours: size of its palette; a PNG of photographs is large without one.
    """
    ratio = rows[0][0].shape[0] / rows[0][0].shape[1]
    height = 0.3 + ratio * width / 100 / len(titles) * len(rows)  # inches at 100 dots an inch
    figure = Figure(figsize=(width / 100, height), dpi=100)
    axes = figure.subplots(len(rows), len(titles), squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.03})
    figure.subplots_adjust(left=0.004, right=0.996, bottom=0.008, top=1 - 0.28 / height)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            axes[r, c].imshow(picture[..., ::-1], aspect="auto", interpolation="antialiased")
            axes[r, c].set_axis_off()
            if r == 0:
                axes[r, c].set_title(titles[c], fontsize=11, pad=5)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(drawn).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)


def draw_boxes(
    picture: Picture,
    boxes: NDArray[np.float32],
    names: Sequence[str] = (),
    colour: tuple[int, int, int] = GREEN,
    width: int | None = None,
) -> Picture:
    """Draws boxes (k, 4), left, top, right, bottom in pixels, on a copy of ``picture``, each under its name, if any."""
    canvas = picture.copy()
    thick = width or max(1, round(max(picture.shape) / 250))
    size = max(picture.shape) / 900 + 0.15
    for i, box in enumerate(np.round(np.nan_to_num(boxes) * 8).astype(int)):
        left, top, right, bottom = box.tolist()
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thick, cv2.LINE_AA, 3)
        if i < len(names):
            at = (left // 8 + thick, max(top // 8 - 2 * thick, round(20 * size)))
            for ink, stroke in (((0, 0, 0), thick + 3), (colour, thick)):
                cv2.putText(canvas, names[i], at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, stroke, cv2.LINE_AA)
    return canvas
