"""Draws on pictures, folders of pictures and videos."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from pydistill.report.pictures import Picture

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
Draw = Callable[[Picture], Picture]


def draw_files(draw: Draw, source: Path, target: Path) -> int:
    """Writes what ``draw`` makes of each picture (h, w, 3), BGR.

    Args:
        draw: returns a changed copy.
        source: a picture, a video, or a folder, whose pictures are taken with those of its subfolders.
        target: file to write for a picture or a video (MP4), folder for a folder.

    Returns:
        The number of pictures or frames.

    Raises:
        OSError: for a source that is missing, holds no picture or cannot be read, or a target that cannot be written.
    """
    if source.suffix.lower() in _VIDEOS:
        return _draw_video(draw, source, target)
    pairs = [(source, target)]
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in _PICTURES)
        if not files:
            raise FileNotFoundError(f"predict: expected pictures ({', '.join(_PICTURES)}) in {source}, got none")
        pairs = [(path, target / path.relative_to(source)) for path in files]
    for path, drawn in pairs:
        picture = cv2.imread(str(path))
        if picture is None:
            raise OSError(f"predict: expected a picture, a video or a folder, got {path}")
        drawn.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(drawn), draw(np.asarray(picture, np.uint8))):
            raise OSError(f"predict: expected a writable picture file, got {drawn}")
    return len(pairs)


def _draw_video(draw: Draw, source: Path, target: Path) -> int:
    video = cv2.VideoCapture(str(source))
    frames = _frames(video)
    first = next(frames, None)
    if first is None:
        raise OSError(f"predict: expected a video, got {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, first.shape[1::-1])
    if not writer.isOpened():
        raise OSError(f"predict: expected a writable video file, e.g. of type .mp4, got {target}")
    count = 0
    for frame in chain([first], frames):
        writer.write(draw(frame))
        count += 1
    writer.release()
    video.release()
    return count


def _frames(video: cv2.VideoCapture) -> Iterator[Picture]:
    while True:
        found, frame = video.read()
        if not found:
            return
        yield np.asarray(frame, np.uint8)
