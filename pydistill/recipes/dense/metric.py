"""COCO's average precision of detections, by pycocotools.

Reference: Lin et al. 2014, arXiv:1405.0312, and https://cocodataset.org/#detection-eval.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pydistill.recipes.dense.coco import CocoDataset

METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the first six numbers of COCOeval.summarize


@dataclass(frozen=True)
class Detections:
    """What was found in a picture: boxes (k, 4) float32 xyxy in its own pixels, scores (k,), labels (k,) int64."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        k = len(self.labels)
        if self.boxes.shape != (k, 4) or self.scores.shape != (k,) or self.labels.shape != (k,):
            shapes = ", ".join(str(list(value.shape)) for value in (self.boxes, self.scores, self.labels))
            raise ValueError(f"Detections: expected shapes [k, 4], [k] and [k], got {shapes}")


def coco_scores(dataset: CocoDataset, indices: Sequence[int], detections: Sequence[Detections]) -> dict[str, float]:
    """Average precision over classes and, unless named otherwise, over IoU thresholds 0.50, 0.55, ..., 0.95.

    Args:
        dataset: the truth, as its file has it: a detection in a crowd box is neither right nor wrong.
        indices: of the pictures that count.
        detections: of each of them; of a picture and a class the 100 of the highest scores count.

    Returns:
        ``ap``, ``ap50`` and ``ap75``; ``ap_small``, ``ap_medium`` and ``ap_large`` of objects of areas below 32 x 32,
        up to 96 x 96 and from there on, in pixels of the pictures. Each in 0..1; NaN where the pictures have no such
        object.

    Raises:
        ValueError: if there are not as many detections as pictures, or a label is no class.
    """
    if len(indices) != len(detections):
        raise ValueError(f"coco_scores: expected detections of {len(indices)} pictures, got {len(detections)}")
    truth = [
        _entry(a.id, dataset.image_id(i), a.category, a.box, a.area, a.crowd)
        for i in indices
        for a in dataset.annotations(i)
    ]
    found: list[dict[str, Any]] = []
    for i, picture in zip(indices, detections):
        if len(picture.labels) and not 0 <= picture.labels.min() <= picture.labels.max() < len(dataset.classes):
            expected = f"labels in 0..{len(dataset.classes) - 1}"
            raise ValueError(f"coco_scores: expected {expected}, got {picture.labels.min()}..{picture.labels.max()}")
        for box, score, label in zip(picture.boxes.astype(np.float64), picture.scores, picture.labels):
            x, y, w, h = (float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
            entry = _entry(len(found) + 1, dataset.image_id(i), dataset.categories[label], (x, y, w, h), w * h, False)
            found.append(entry | {"score": float(score)})
    ids = [dataset.image_id(i) for i in indices]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        evaluation = COCOeval(_index(dataset, ids, truth), _index(dataset, ids, found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) if value >= 0 else float("nan") for name, value in zip(METRICS, evaluation.stats)}


def _entry(
    id: int, image: int, category: int, box: tuple[float, float, float, float], area: float, crowd: bool
) -> dict[str, Any]:
    """An annotation as pycocotools has it."""
    return {
        "id": id,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": area,
        "iscrowd": int(crowd),
    }


def _index(dataset: CocoDataset, ids: Sequence[int], annotations: list[dict[str, Any]]) -> Any:
    """The annotations of some pictures as pycocotools' index."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": id} for id in ids],
        "categories": [{"id": id, "name": name} for id, name in zip(dataset.categories, dataset.classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
