"""Scores a detector on a data set."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pydistill.recipes.dense.coco import CocoDataset
from pydistill.recipes.dense.data import DenseData, Inputs
from pydistill.recipes.dense.decode import detect
from pydistill.recipes.dense.metric import Detections, coco_scores
from pydistill.recipes.dense.network import DenseOutput
from pydistill.recipes.files import write_whole

_TITLES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large"
}  # fmt: skip
Finder = Callable[[nn.Module, Inputs], list[Detections]]


@dataclass(frozen=True)
class Evaluation:
    """What a network scores.

    Attributes:
        numbers: of COCO, as fractions; NaN for a size of which there is no object.
        detections: of each picture, in its own pixels.
        milliseconds: per picture, network and decoder.
    """

    numbers: dict[str, float]
    detections: list[Detections]
    milliseconds: float

    @property
    def finite(self) -> dict[str, float]:
        """The numbers of sizes that there are."""
        return {name: value for name, value in self.numbers.items() if not np.isnan(value)}

    @property
    def table(self) -> str:
        """The numbers as Markdown."""
        titles = " | ".join(_TITLES[name] for name in self.numbers)
        values = " | ".join("" if np.isnan(v) else f"{100 * v:.2f}" for v in self.numbers.values())
        rule = "---|" * (len(self.numbers) + 1)
        return f"| pictures | {titles} |\n|{rule}\n| {len(self.detections)} | {values} |"


def evaluate(
    student: nn.Module,
    data: DenseData,
    indices: Sequence[int] | None = None,
    *,
    batch: int = 16,
    finder: Finder | None = None,
) -> Evaluation:
    """Scores ``student`` on some pictures of ``data``, or on all.

    Args:
        student: the network.
        data: pictures with their truth.
        indices: those that count; None: all.
        batch: pictures at a time.
        finder: what the network finds on some pictures, in pixels of their files; None: ``find``.

    Raises:
        ValueError: for no pictures.
    """
    chosen = list(range(len(data)) if indices is None else indices)
    if not chosen:
        raise ValueError("evaluate: expected at least one picture, got none")
    found, seconds = list[Detections](), 0.0
    for first in range(0, len(chosen), batch):
        some = chosen[first : first + batch]
        inputs = data.pictures(some)
        began = time.perf_counter()
        found += (finder or find)(student, inputs)
        seconds += time.perf_counter() - began
    return Evaluation(coco_scores(data.dataset, chosen, found), found, 1000 * seconds / len(chosen))


def write_detections(dataset: CocoDataset, detections: Sequence[Detections], path: Path) -> None:
    """Writes the detections of all pictures of ``dataset`` as COCO's evaluator reads them: a list in JSON."""
    rows = [
        {
            "image_id": dataset.image_id(i),
            "category_id": dataset.categories[label],
            "bbox": [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(score), 5),
        }
        for i, found in enumerate(detections)
        for (x1, y1, x2, y2), score, label in zip(found.boxes, found.scores, found.labels)
    ]
    write_whole(path, json.dumps(rows).encode())


def find(student: nn.Module, inputs: Inputs) -> list[Detections]:
    """What ``student`` finds on each picture, in pixels of its file."""
    output = infer(student, inputs.pictures)
    strides = cast(tuple[int, ...], student.strides)
    return [
        Detections(found.boxes / np.float32(scale), found.scores, found.labels)
        for found, scale in zip(
            detect(output, inputs.sizes.to(output.logits[0].device), strides), inputs.scales.tolist()
        )
    ]


@torch.no_grad()
def infer(student: nn.Module, pictures: Tensor) -> DenseOutput:
    """What ``student`` says of normalised ``pictures``, float32."""
    training = student.training
    student.eval()
    device = next(student.parameters()).device
    output = student(pictures.to(device, memory_format=torch.channels_last))
    student.train(training)
    return DenseOutput(*([x.float() for x in levels] for levels in output))
