"""Draws a network's lanes on pictures and videos."""

from pathlib import Path

from torch import nn

from pydistill.recipes.drawing import draw_files
from pydistill.recipes.lanes.config import LaneConfig
from pydistill.recipes.lanes.data import normalise, resize
from pydistill.recipes.lanes.evaluation import predict
from pydistill.recipes.lanes.scoring import scoring_of
from pydistill.report.pictures import Picture


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
    return draw_files(lambda picture: draw_prediction(student, config, picture), source, target)


def draw_prediction(student: nn.Module, config: LaneConfig, picture: Picture) -> Picture:
    """A copy of ``picture`` (h, w, 3), BGR, with the lanes that ``student`` finds."""
    scoring = scoring_of(config)
    found = predict(student, normalise([resize(picture, config.size)]), scoring)
    return scoring.draw(picture, found[0])
