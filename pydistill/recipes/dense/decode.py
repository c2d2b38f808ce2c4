"""From a detector's output to boxes, scores and labels."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydistill.ops import integral
from pydistill.recipes.dense.anchors import make_grid
from pydistill.recipes.dense.metric import Detections
from pydistill.recipes.dense.network import DenseOutput


def detect(
    output: DenseOutput,
    sizes: Tensor,
    strides: Sequence[int],
    *,
    score: float = 0.05,
    iou: float = 0.6,
    top: int = 100,
    per_level: int = 1000,
) -> list[Detections]:
    """The boxes of each picture, in descending order of score.

    A location's box reaches from its point by the expectation of each side's bins, times the level's stride, and is
    clipped to the picture. A location may give several classes; a box gives way to one of its class, of a higher score,
    whose IoU with it is larger than ``iou``. A score or a box that is not finite gives none.

    Args:
        output: of N pictures, on any device; one copy takes what was selected to the host.
        sizes: heights and widths (N, 2) of the pictures, without padding, in the network's pixels.
        strides: of the levels.
        score: in [0, 1); classes whose probability is not above it are left out.
        iou: in (0, 1].
        top: boxes of a picture.
        per_level: pairs of location and class of a level that take part, those of the highest probabilities.

    Returns:
        N detections in the network's pixels.

    Raises:
        ValueError: unless there are as many strides as levels, and as many sizes as pictures.
    """
    pictures = len(output.logits[0])
    if sizes.shape != (pictures, 2):
        raise ValueError(f"detect: expected sizes of shape [{pictures}, 2], got {list(sizes.shape)}")
    with torch.no_grad():
        found = _candidates(output, sizes, strides, per_level).cpu().numpy()
    return [_suppressed(picture, score, iou, top) for picture in found]


def _candidates(output: DenseOutput, sizes: Tensor, strides: Sequence[int], per_level: int) -> Tensor:
    """The best of each level: x1, y1, x2, y2, probability and label, (N, k, 6), float32, on the output's device."""
    grid = make_grid(output.shapes, strides, device=output.logits[0].device)
    points = torch.split(grid.points, list(grid.level_sizes))
    limits = sizes.to(grid.points).flip(1).repeat(1, 2)[:, None]  # w, h, w, h
    levels = []
    for logits, sides, at, stride in zip(output.logits, output.sides, points, strides):
        pictures, classes = logits.shape[:2]
        rows = logits.permute(0, 2, 3, 1).reshape(pictures, -1)
        best, place = rows.topk(min(per_level, rows.shape[1]))
        location = place // classes
        bins = sides.flatten(2).gather(2, location[:, None].expand(-1, sides.shape[1], -1))  # (N, 4 n, k)
        distances = integral(bins.reshape(pictures, 4, -1, bins.shape[2]).permute(0, 3, 1, 2)) * stride  # (N, k, 4)
        boxes = torch.cat([at[location] - distances[..., :2], at[location] + distances[..., 2:]], 2)
        boxes = boxes.clamp(min=0).minimum(limits)
        probability, label = best.to(at.dtype).sigmoid(), (place % classes).to(at.dtype)
        levels.append(torch.cat([boxes, probability[..., None], label[..., None]], 2))
    return torch.cat(levels, 1)


def _suppressed(found: NDArray[np.float32], score: float, iou: float, top: int) -> Detections:
    extent = found[:, 2:4] - found[:, :2]  # NaN is not above anything
    found = found[(found[:, 4] > score) & (extent > 0).all(1)]
    if len(found):
        corners = found[:, :4].astype(np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)  # x, y, w, h
        labels = found[:, 5].astype(np.int64)
        kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), found[:, 4].tolist(), labels.tolist(), score, iou)
        found = found[np.asarray(kept, np.int64)[:top]]
    return Detections(found[:, :4], found[:, 4], found[:, 5].astype(np.int64))
