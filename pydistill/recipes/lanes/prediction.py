"""Draws a network's lanes on pictures and videos."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from torch import nn

from pydistill.recipes.lanes.config import LaneConfig
from pydistill.recipes.lanes.data import normalise, resize
from pydistill.recipes.lanes.evaluation import predict
from pydistill.recipes.lanes.scoring import scoring_of
from pydistill.report.pictures import Picture

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def draw_predictions(student: nn.Module, config: LaneConfig, source: Path, target: Path) -> int:
    """Draws the lanes that ``student`` finds.

    Args:
        student: trained network, on the device to run on.
        config: that it was trained with.
        source: a picture, a video, or a folder, whose pictures are taken with those of its subfolders.
        target: file to write for a picture or a video (MP4), folder for a folder.

    Returns:
        The number of pictures or frames.

    Raises:
        OSError: for a source that is missing, holds no picture or cannot be read, or a target that cannot be written.
    """
    if source.suffix.lower() in _VIDEOS:
        return _draw_video(student, config, source, target)
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
        if not cv2.imwrite(str(drawn), draw_prediction(student, config, np.asarray(picture, np.uint8))):
            raise OSError(f"predict: expected a writable picture file, got {drawn}")
    return len(pairs)


def draw_prediction(student: nn.Module, config: LaneConfig, picture: Picture) -> Picture:
    """A copy of ``picture`` (h, w, 3), BGR, with the lanes that ``student`` finds."""
    scoring = scoring_of(config)
    found = predict(student, normalise([resize(picture, config.size)]), scoring)
    return scoring.draw(picture, found[0])


def _draw_video(student: nn.Module, config: LaneConfig, source: Path, target: Path) -> int:
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
        writer.write(draw_prediction(student, config, frame))
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
