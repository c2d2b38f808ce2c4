"""Pictures for reports: lanes and attention drawn on a photograph, and images as text that a page can embed."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (h, w, 3), BGR

GREEN, RED = (90, 210, 60), (40, 40, 235)


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
    canvas = picture.copy()
    scale = np.array([picture.shape[1] / frame[1], picture.shape[0] / frame[0]])
    width = max(1, round(picture.shape[1] / 200))
    for lane in lanes:
        points = [np.round(scale * (x, y) * 16).astype(int) for x, y in zip(lane, rows) if x >= 0]
        for a, b in zip(points[:-1], points[1:]):
            if abs(int(a[1]) - int(b[1])) < 16 * scale[1] * 40:  # a longer gap is a gap
                cv2.line(canvas, a.tolist(), b.tolist(), colour, width, cv2.LINE_AA, 4)
    return canvas


def overlay(picture: Picture, attention: NDArray[np.float32]) -> Picture:
    """Lays the square root of an attention map (h, w) over a dimmed ``picture``; its largest value is yellow."""
    size = (picture.shape[1], picture.shape[0])
    strength = np.sqrt(np.clip(attention / max(float(attention.max()), 1e-30), 0, 1))
    strength = np.clip(cv2.resize(strength.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0, 1)
    heat = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(grey, 0.3, heat, 0.9, 0).astype(np.uint8)


def enlarge(picture: Picture, factor: int) -> Picture:
    """``picture`` magnified, smoothly."""
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def data_uri(picture: Picture, quality: int = 85) -> str:
    """``picture`` as a JPEG in a ``data:`` address."""
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def write_montage(path: str, rows: Sequence[Sequence[Picture]], titles: Sequence[str], width: int = 1200) -> None:
    """Writes a grid of equally large pictures with a title over each column as one PNG, ``width`` pixels wide."""
    gap, head = 8, 34
    each = (width - gap * (len(titles) + 1)) // len(titles)
    tall = round(each * rows[0][0].shape[0] / rows[0][0].shape[1])
    sheet = np.full((head + (tall + gap) * len(rows), width, 3), 255, np.uint8)
    for c, title in enumerate(titles):
        x = gap + c * (each + gap)
        cv2.putText(sheet, title, (x, head - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.52, (50, 40, 30), 1, cv2.LINE_AA)
        for r, row in enumerate(rows):
            y = head + r * (tall + gap)
            sheet[y : y + tall, x : x + each] = cv2.resize(row[c], (each, tall), interpolation=cv2.INTER_AREA)
    palette = _quantise(sheet)
    if not cv2.imwrite(path, palette, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise OSError(f"write_montage: expected a writable path, got {path}")


def _quantise(picture: Picture, bits: int = 4) -> Picture:
    """Blurs a little and keeps the highest ``bits`` of each channel, without which a PNG of photographs is large."""
    smooth = cv2.medianBlur(picture, 3)
    step = 256 >> bits
    return np.asarray(np.minimum(smooth // step * step + step // 2, 255), np.uint8)
