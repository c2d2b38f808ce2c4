"""What differs between the data sets when a network is scored: decoder, metric, prediction files, table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from typing_extensions import override  # comes with torch

from pydistill.recipes.files import write_whole
from pydistill.recipes.lanes import culane
from pydistill.recipes.lanes.bdd100k import Overlap, decode_mask, encode_mask, mask_path, mean_overlap, score_masks
from pydistill.recipes.lanes.config import Format, LaneConfig
from pydistill.recipes.lanes.culane import (
    CATEGORIES,
    Counts,
    Lane,
    category_table,
    decode_culane,
    lines_path,
    score_lanes,
    write_lines,
)
from pydistill.recipes.lanes.datasets import BDD100K, CULane, TuSimple
from pydistill.recipes.lanes.lists import read_list
from pydistill.recipes.lanes.metric import Score, decode_lanes, mean_score, score_frame
from pydistill.recipes.lanes.road import FRAME, H_SAMPLES, NONE
from pydistill.recipes.lanes.tusimple import Record, prediction_line
from pydistill.report.pictures import RED, Picture, draw_lanes, draw_points

Row = dict[str, float]
Maps = NDArray[np.float32]


class Scoring(Protocol):
    """Of one layout; ``Any`` stands for its own data set, predictions and scores."""

    def nothing(self) -> Any:
        """The prediction of no lane."""

    def decode(self, probabilities: Maps, existence: Sequence[float]) -> Any:
        """The prediction for one picture: class probabilities (K, h, w), probability of each of the four lanes."""

    def score(self, dataset: Any, index: int, prediction: Any) -> Any:
        """The score of one picture."""

    def numbers(self, scores: Sequence[Any]) -> Row:
        """The data set's numbers from the scores of its pictures, as fractions."""

    def table(self, dataset: Any, indices: Sequence[int], scores: Sequence[Any]) -> str:
        """The same as a Markdown table, by category where the data set has some."""

    def draw(self, picture: Picture, prediction: Any) -> Picture:
        """A copy of ``picture``, of any size, with the prediction on it."""

    def write(
        self,
        dataset: Any,
        folder: Path,
        indices: Sequence[int],
        predictions: Sequence[Any],
        milliseconds: float,
    ) -> None:
        """Writes prediction files as the data set's own evaluator reads them."""


class TuSimpleScoring(Scoring):
    """Points on given rows; accuracy, FP, FN."""

    def __init__(self, config: LaneConfig):
        self.config = config

    @override
    def nothing(self) -> list[list[int]]:
        return []

    @override
    def decode(self, probabilities: Maps, existence: Sequence[float]) -> list[list[int]]:
        exists = existence if self.config.trains_existence else (1, 1, 1, 1)
        return decode_lanes(probabilities, exists, smooth=self.config.smooth)

    @override
    def score(self, dataset: TuSimple, index: int, prediction: list[list[int]]) -> Score:
        record = dataset.records[index]
        return score_frame(_at_rows(prediction, record), record.lanes, record.h_samples)

    @override
    def numbers(self, scores: Sequence[Score]) -> Row:
        return tusimple_numbers(mean_score(scores))

    @override
    def table(self, dataset: TuSimple, indices: Sequence[int], scores: Sequence[Score]) -> str:
        return number_table(len(scores), self.numbers(scores))

    @override
    def draw(self, picture: Picture, prediction: list[list[int]]) -> Picture:
        return draw_lanes(picture, prediction, H_SAMPLES, FRAME, RED)

    @override
    def write(
        self,
        dataset: TuSimple,
        folder: Path,
        indices: Sequence[int],
        predictions: Sequence[list[list[int]]],
        milliseconds: float,
    ) -> None:
        records = (dataset.records[i] for i in indices)
        lines = "".join(prediction_line(r, _at_rows(p, r), milliseconds) for r, p in zip(records, predictions))
        write_whole(folder / "predictions.json", lines.encode())


def _at_rows(lanes: list[list[int]], record: Record) -> list[list[int]]:
    """Lanes at the rows of a record; some of TuSimple's pictures have 48 of the 56."""
    return [[dict(zip(H_SAMPLES, lane)).get(y, NONE) for y in record.h_samples] for lane in lanes]


class CULaneScoring(Scoring):
    """Lanes as points from the bottom up; F1 by category."""

    def __init__(self, config: LaneConfig):
        self.config = config

    @override
    def nothing(self) -> list[Lane]:
        return []

    @override
    def decode(self, probabilities: Maps, existence: Sequence[float]) -> list[Lane]:
        exists = existence if self.config.trains_existence else (1, 1, 1, 1)
        return decode_culane(probabilities, exists, smooth=self.config.smooth)

    @override
    def score(self, dataset: CULane, index: int, prediction: list[Lane]) -> Counts:
        return score_lanes(dataset.lanes(index), prediction)

    @override
    def numbers(self, scores: Sequence[Counts]) -> Row:
        total = sum(scores, Counts())
        return {"f1": total.f1, "precision": total.precision, "recall": total.recall}

    def table(self, dataset: CULane, indices: Sequence[int], scores: Sequence[Counts]) -> str:
        """By category where ``list/test_split`` names the pictures' categories, else of them all."""
        categories: dict[str, str] = {}
        for file, category in CATEGORIES.items():
            path = dataset.root / "list" / "test_split" / f"{file}.txt"
            categories |= {entry.picture: category for entry in read_list(path)} if path.exists() else {}
        found: dict[str, Counts] = dict.fromkeys((c for c in CATEGORIES.values() if c in categories.values()), Counts())
        for index, counts in zip(indices, scores):
            category = categories.get(dataset.name(index), "no category")
            found[category] = found.get(category, Counts()) + counts
        return category_table(found)

    @override
    def draw(self, picture: Picture, prediction: list[Lane]) -> Picture:
        return draw_points(picture, prediction, culane.FRAME, RED)

    @override
    def write(
        self,
        dataset: CULane,
        folder: Path,
        indices: Sequence[int],
        predictions: Sequence[list[Lane]],
        milliseconds: float,
    ) -> None:
        for index, lanes in zip(indices, predictions):
            write_lines(lines_path(folder, dataset.name(index)), lanes)


class BDD100KScoring(Scoring):
    """Masks of the lanes at 720 x 1280, as PNG files; accuracy (recall of pixels) and IoU."""

    def __init__(self, config: LaneConfig):
        self.config = config

    @override
    def nothing(self) -> bytes:
        return encode_mask(np.zeros(FRAME, np.uint8))

    @override
    def decode(self, probabilities: Maps, existence: Sequence[float]) -> bytes:
        return encode_mask(decode_mask(probabilities[1:].sum(0)))

    @override
    def score(self, dataset: BDD100K, index: int, prediction: bytes) -> Overlap:
        return score_masks(_mask(prediction), dataset.label(index, FRAME, 1)[0] == 1)

    @override
    def numbers(self, scores: Sequence[Overlap]) -> Row:
        return bdd100k_numbers(mean_overlap(scores))

    @override
    def table(self, dataset: BDD100K, indices: Sequence[int], scores: Sequence[Overlap]) -> str:
        return number_table(len(scores), self.numbers(scores))

    @override
    def draw(self, picture: Picture, prediction: bytes) -> Picture:
        mask = cv2.resize(_mask(prediction), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        drawn = picture.copy()
        drawn[mask > 0] = RED
        return drawn

    @override
    def write(
        self,
        dataset: BDD100K,
        folder: Path,
        indices: Sequence[int],
        predictions: Sequence[bytes],
        milliseconds: float,
    ) -> None:
        for index, mask in zip(indices, predictions):
            write_whole(mask_path(folder, dataset.name(index)), mask)


def _mask(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def tusimple_numbers(score: Score) -> Row:
    """TuSimple's numbers and F1."""
    return {"accuracy": score.accuracy, "fp": score.false_positive, "fn": score.false_negative, "f1": score.f1}


def bdd100k_numbers(overlap: Overlap) -> Row:
    """BDD100K's two numbers."""
    return {"accuracy": overlap.accuracy, "iou": overlap.iou}


def number_table(pictures: int, numbers: Row) -> str:
    """One row of numbers as Markdown."""
    head = f"| pictures | {' | '.join(numbers)} |\n|{'---|' * (len(numbers) + 1)}\n"
    return head + f"| {pictures} | {' | '.join(f'{value:.4f}' for value in numbers.values())} |\n"


def scoring_of(config: LaneConfig) -> Scoring:
    """The decoder and metric of the layout of ``config``."""
    kinds: dict[Format, type[TuSimpleScoring | CULaneScoring | BDD100KScoring]] = {
        "tusimple": TuSimpleScoring,
        "culane": CULaneScoring,
        "bdd100k": BDD100KScoring,
    }
    return kinds[config.format](config)
