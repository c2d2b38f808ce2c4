"""Draws a network's boxes on pictures and videos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from pydistill.recipes.dense.data import to_inputs
from pydistill.recipes.dense.evaluation import Finder, find
from pydistill.recipes.drawing import draw_files
from pydistill.recipes.training import Config
from pydistill.report.pictures import Picture, draw_boxes


def draw_predictions(
    student: nn.Module,
    config: Config,
    classes: Sequence[str],
    source: Path,
    target: Path,
    score: float = 0.3,
    finder: Finder | None = None,
) -> int:
    """Draws the boxes that ``student`` finds, with their classes and scores.

    Args:
        student: trained network, on the device to run on.
        config: that it was trained with.
        classes: names.
        source: a picture, a video, or a folder, whose pictures are taken with those of its subfolders.
        target: file to write for a picture or a video (MP4), folder for a folder.
        score: boxes of a lower one are not drawn.
        finder: what the network finds on some pictures; None: what a dense detector does.

    Returns:
        The number of pictures or frames.

    Raises:
        OSError: for a source that is missing, holds no picture or cannot be read, or a target that cannot be written.
    """

    def draw(picture: Picture) -> Picture:
        found = (finder or find)(student, to_inputs([picture], config.size))[0]
        kept = found.scores >= np.float32(score)
        names = [f"{classes[label]} {s:.2f}" for label, s in zip(found.labels[kept], found.scores[kept])]
        return draw_boxes(picture, found.boxes[kept], names)

    return draw_files(draw, source, target)
