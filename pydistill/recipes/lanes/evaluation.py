"""Scores a lane network on a data set."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pydistill.recipes.faults import Malformed
from pydistill.recipes.lanes import bdd100k, culane, tusimple
from pydistill.recipes.lanes.config import Format, LaneConfig
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.lists import read_list
from pydistill.recipes.lanes.scoring import (
    Row,
    Scoring,
    bdd100k_numbers,
    number_table,
    scoring_of,
    tusimple_numbers,
)
from pydistill.recipes.lanes.splits import split_files
from pydistill.recipes.pictures import UnreadablePicture


@dataclass(frozen=True)
class Evaluation:
    """What a network scores.

    Attributes:
        numbers: of the data set, as fractions; TuSimple: accuracy, fp, fn, f1; CULane: f1, precision, recall; BDD100K:
            accuracy, iou.
        scores: of each picture: ``Score``, ``Counts`` or ``Overlap``.
        predictions: of each picture, as the data set's decoder gives them.
        milliseconds: per picture, network and decoder.
        table: the numbers as Markdown, by category where the data set has some.
    """

    numbers: Row
    scores: list[Any]
    predictions: list[Any]
    milliseconds: float
    table: str


def evaluate(
    student: nn.Module | None,
    data: LaneData[Any],
    config: LaneConfig,
    count: int | None = None,
    *,
    batch: int = 16,
    folder: Path | None = None,
) -> Evaluation:
    """Scores ``student`` on the first ``count`` pictures of ``data``.

    Args:
        student: network; None predicts no lane anywhere.
        data: what to score on.
        config: says the layout and its decoder.
        count: None for all.
        batch: pictures at once.
        folder: where prediction files go, as the data set's own evaluator reads them; None: nowhere.

    Raises:
        ValueError: for no pictures.
    """
    indices = list(range(len(data)))[:count]
    if not indices:
        raise ValueError("evaluate: expected at least one picture, got none")
    scoring = scoring_of(config)
    scored, seconds = list[int](), 0.0
    scores, predictions = list[Any](), list[Any]()
    for first in range(0, len(indices), batch):
        some, pictures = _read(data, indices[first : first + batch])
        began = time.perf_counter()
        found = predict(student, pictures, scoring)
        seconds += time.perf_counter() - began
        scores += [scoring.score(data.dataset, i, prediction) for i, prediction in zip(some, found)]
        scored, predictions = scored + some, predictions + found
    milliseconds = 1000 * seconds / max(len(scored), 1)
    if folder:
        scoring.write(data.dataset, folder, scored, predictions, milliseconds)
    return Evaluation(
        scoring.numbers(scores), scores, predictions, milliseconds, scoring.table(data.dataset, scored, scores)
    )


def _read(data: LaneData[Any], indices: list[int]) -> tuple[list[int], Tensor]:
    """The pictures that can be read and their indices; the others raise, or are left out with a warning each."""
    try:
        return indices, data.pictures(indices)
    except UnreadablePicture as error:
        if data.unreadable == "raise":
            raise
        if len(indices) == 1:
            warnings.warn(f"evaluate: left out: {error}", stacklevel=3)
            return [], torch.empty(0, 3, *data.size)
    parts = [_read(data, [i]) for i in indices]
    return [i for some, _ in parts for i in some], torch.cat([pictures for _, pictures in parts])


def predict(student: nn.Module | None, pictures: Tensor, scoring: Scoring) -> list[Any]:
    """The decoded prediction for each of the normalised ``pictures`` (N, 3, H, W)."""
    if student is None:
        return [scoring.nothing() for _ in pictures]
    probabilities, existence = infer(student, pictures)
    return [scoring.decode(p, e) for p, e in zip(probabilities, existence)]


@torch.no_grad()
def infer(student: nn.Module, pictures: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Class probabilities (N, K, H, W) and existence (N, 4) of normalised ``pictures``, on the host."""
    training = student.training
    student.eval()
    device = next(student.parameters()).device
    output = student(pictures.to(device, memory_format=torch.channels_last))
    student.train(training)
    probabilities = output.segmentation.float().softmax(1).contiguous().cpu().numpy()
    return probabilities, output.existence.float().sigmoid().cpu().numpy()


def score_predictions(layout: Format, root: Path, split: str, predictions: Path, malformed: Malformed = "raise") -> str:
    """Scores prediction files that lie on disk, whoever made them; returns a Markdown table.

    Args:
        layout: of the data set.
        root: folder of the data set.
        split: ``"train"``, ``"val"``, ``"test"``, or a list (TuSimple: label) file below ``root``. CULane's test set
            is scored by category.
        predictions: TuSimple's JSON file; CULane's folder of ``.lines.txt`` files; BDD100K's of masks.
        malformed: what becomes of lines that cannot be used, in lists and CULane's files.
    """
    file = root / split_files(layout, root, split)[0]
    if layout == "tusimple":
        found = tusimple.score_file(predictions, file)
        return number_table(len(tusimple.read_labels([file])), tusimple_numbers(found))
    if layout == "bdd100k":
        name = str(file.relative_to(root))
        overlap = bdd100k.score_pictures(root, predictions, name, workers=2, malformed=malformed)
        return number_table(len(read_list(file, malformed=malformed)), bdd100k_numbers(overlap))
    if split == "test" and (root / "list" / "test_split").is_dir():
        return culane.category_table(culane.score_categories(root, predictions, workers=2, malformed=malformed))
    pictures = [entry.picture for entry in read_list(file, malformed=malformed)]
    counts = culane.score_pictures(pictures, root, predictions, workers=2, malformed=malformed)
    return culane.category_table({split: counts})
