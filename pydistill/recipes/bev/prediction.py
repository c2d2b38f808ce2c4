"""Draws what a detector finds on samples of a data set: one picture each, from above and in the six cameras."""

from pathlib import Path

import cv2
import numpy as np
from torch import nn

from pydistill.recipes.bev import drawing
from pydistill.recipes.bev.config import BevConfig
from pydistill.recipes.bev.data import BEVData
from pydistill.recipes.bev.evaluation import find
from pydistill.recipes.generated import encode_picture, write_file
from pydistill.recipes.pictures import read_picture


def draw_predictions(
    student: nn.Module, data: BEVData, config: BevConfig, folder: Path, count: int, least: float
) -> int:
    """Draws the first ``count`` samples, truth green and what is found red; returns how many there were."""
    indices = range(min(count, len(data)))
    for index, (boxes, scores, _) in zip(indices, find(student, data, indices, config.grid), strict=True):
        sample = data.dataset.samples[index]
        truth, found = sample.boxes.astype(np.float64), boxes[scores >= least].double().numpy()
        above = drawing.points_above(data.dataset.points(index), config.reach)
        views = []
        for view in sample.views:
            picture, matrix = read_picture(view.path, "predict"), view.matrix @ view.from_lidar[:3]
            for each, colour in ((truth, drawing.GREEN), (found, drawing.RED)):
                picture = drawing.draw_boxes_in_view(picture, each, matrix, colour)
            views.append(picture)
        for each, colour in ((truth, drawing.GREEN), (found, drawing.RED)):
            above = drawing.draw_boxes_above(above, each, config.reach, colour)
        cameras = drawing.side_by_side(views)
        height = cameras.shape[0]
        square = cv2.resize(above, (height, height), interpolation=cv2.INTER_AREA)
        write_file(
            folder / f"{sample.token}.jpg", encode_picture(np.hstack([cameras, square]).astype(np.uint8), ".jpg")
        )
    return len(indices)
