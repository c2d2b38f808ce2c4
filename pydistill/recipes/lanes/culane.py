"""CULane: from class probabilities to its ``.lines.txt`` files, and its F1 of lanes, in all and by category.

Reference: Pan et al., Spatial As Deep, AAAI 2018, arXiv:1712.06080; its C++ evaluator with ``-w 30 -t 0.5 -c 1640 -r
590``; decoding as in InhwanBae/ENet-SAD_Pytorch.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import linear_sum_assignment

from pydistill.recipes.faults import Faults, Malformed
from pydistill.recipes.lanes.lists import read_list
from pydistill.recipes.lanes.metric import find_peaks

FRAME = (590, 1640)  # height and width of CULane's pictures, in which all its coordinates are
CATEGORIES = {  # list of list/test_split to the paper's name
    "test0_normal": "normal",
    "test1_crowd": "crowded",
    "test2_hlight": "dazzle",
    "test3_shadow": "shadow",
    "test4_noline": "no line",
    "test5_arrow": "arrow",
    "test6_curve": "curve",
    "test7_cross": "crossroad",
    "test8_night": "night",
}
_ROWS, _GAP = 18, 20  # rows that are decoded and the pixels between them, from the bottom up
_WIDTH = 30  # of a drawn lane in pixels
_SAMPLES = 50  # points drawn between two given ones
_MATCHED = 0.5  # a similarity above this makes a lane found

Lane = NDArray[np.float32]  # (P, 2) points (x, y) in pixels of 1640 x 590


def decode_culane(
    probabilities: NDArray[np.float32],
    existence: Sequence[float] = (1, 1, 1, 1),
    *,
    smooth: int = 9,
    threshold: float = 0.3,
    least: int = 2,
    blank: bool = False,
) -> list[Lane]:
    """Reads off one point per lane and 20 rows of the picture: the column of the largest probability, if large enough.

    Args:
        probabilities: (5, h, w), 0..1, background first, over the whole picture.
        existence: probability of each of the four lanes; one of at most 0.5 is left out.
        smooth: side of the mean filter in pixels, odd; 1 for none.
        threshold: least probability of a point, after smoothing.
        least: a lane with fewer points is left out.
        blank: returns such a lane without points instead, as the released code does: it counts as a false one.

    Returns:
        Lanes of up to 18 points, from the lowest up.
    """
    h, w = probabilities.shape[-2:]
    rows = [int(h - i * _GAP * h / FRAME[0] - 1) for i in range(_ROWS)]
    ys = FRAME[0] - 1 - _GAP * np.arange(_ROWS)
    lanes = []
    for columns in find_peaks(probabilities, existence, rows, smooth, threshold):
        xs = (columns / w * FRAME[1]).astype(int)
        lane = np.stack([xs, ys], 1)[xs > 0].astype(np.float32)
        if len(lane) >= least:
            lanes.append(lane)
        elif blank:
            lanes.append(lane[:0])
    return lanes


def lines_path(folder: Path, picture: str) -> Path:
    """The ``.lines.txt`` file of a picture, named as in CULane's lists."""
    return (folder / picture.lstrip("/")).with_suffix(".lines.txt")


def write_lines(path: Path, lanes: Sequence[Lane], *, blank: bool = False) -> None:
    """Writes a ``.lines.txt`` file: a lane a line, ``x y x y ...`` in pixels of 1640 x 590.

    Args:
        path: file to write; its folder is made where missing.
        lanes: lanes to write.
        blank: writes a blank line for a lane without points, as the released code does. The evaluator counts it as a
            lane, hence as a false one, so that it is left out otherwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (" ".join(f"{v:.7g}" for v in np.ravel(lane)) for lane in lanes if blank or len(lane))
    path.write_text("".join(f"{line}\n" for line in lines))


def read_lines(path: Path, *, malformed: Malformed = "raise") -> list[Lane]:
    """Reads a ``.lines.txt`` file; a blank line is a lane without points, as in the released evaluator.

    Args:
        path: file to read.
        malformed: what becomes of a line that is not pairs of finite numbers: an error, or left out with a warning.

    Raises:
        ValueError: for a malformed line, with file and line.
    """
    faults = Faults("read_lines", malformed)
    lanes = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
                values = np.array(line.split(), np.float64).astype(np.float32)
        except ValueError:
            values = np.array([np.nan], np.float32)
        if len(values) % 2 == 0 and np.isfinite(values).all():
            lanes.append(values.reshape(-1, 2))
        else:
            faults.add(f"expected pairs of numbers in {path}, line {number}, got {line[:60]!r}")
    faults.warn()
    return lanes


def interpolate_lane(lane: Lane) -> Lane:
    """The points between which the evaluator draws: 50 per segment of a natural cubic spline, then the last one.

    The spline runs through x(t) and y(t) with t the length of the chords; two points stay as they are. A point that
    repeats the one before is left out: the released evaluator divides by its chord of length 0.
    """
    points = _without_repeats(np.asarray(lane, np.float64))
    if len(points) < 3:
        return points.astype(np.float32)
    knots = np.concatenate([[0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    fractions = np.arange(_SAMPLES) / _SAMPLES
    t = (knots[:-1, None] + np.diff(knots)[:, None] * fractions).ravel()
    curve = CubicSpline(knots, points, bc_type="natural")(t)
    return np.asarray(np.concatenate([curve, points[-1:]]), np.float32)


def _without_repeats(points: NDArray[Any]) -> NDArray[Any]:
    """Leaves out points (P, 2) that equal the one before."""
    keep = np.ones(len(points), bool)
    keep[1:] = (np.diff(points, axis=0) != 0).any(1)
    return points[keep]


def draw_lane(lane: Lane) -> NDArray[np.uint8]:
    """The mask of a lane, (590, 1640) of 0 and 1: 30 pixels wide, points rounded to whole pixels."""
    mask = np.zeros(FRAME, np.uint8)
    points = _without_repeats(np.rint(interpolate_lane(lane)).astype(np.int32))  # a repeat would draw nothing new
    ends = points if len(points) > 1 else points.repeat(2, 0)  # the two ends of a segment of length 0 draw a disc
    if len(ends):
        cv2.polylines(mask, [ends.reshape(-1, 1, 2)], False, 1, _WIDTH)
    return mask


def lane_similarities(truth: Sequence[Lane], prediction: Sequence[Lane]) -> NDArray[np.float64]:
    """Intersection over union of the masks, (A, D) for A true and D predicted lanes; 0 with fewer than two points."""
    similarities = np.zeros((len(truth), len(prediction)))
    masks = [(j, draw_lane(lane)) for j, lane in enumerate(prediction) if len(lane) >= 2]
    drawn = [(j, mask, cv2.countNonZero(mask)) for j, mask in masks]
    for i, lane in enumerate(truth):
        if len(lane) < 2 or not drawn:
            continue
        mask = draw_lane(lane)
        area = cv2.countNonZero(mask)
        for j, other, other_area in drawn:
            both = cv2.countNonZero(cv2.bitwise_and(mask, other))
            union = area + other_area - both
            similarities[i, j] = both / union if union else 0.0  # a lane outside of the picture draws nothing
    return similarities


@dataclass(frozen=True)
class Counts:
    """Lanes found, false and missed; the sum of two is that of their pictures."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def precision(self) -> float:
        """TP / (TP + FP); -1 without predictions."""
        predicted = self.true_positive + self.false_positive
        return self.true_positive / predicted if predicted else -1.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN); -1 without true lanes."""
        true = self.true_positive + self.false_negative
        return self.true_positive / true if true else -1.0

    @property
    def f1(self) -> float:
        """2 P R / (P + R), nan where both are 0; with a -1 among them, what the released evaluator prints."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else math.nan


def match_lanes(truth: Sequence[Lane], prediction: Sequence[Lane]) -> list[int]:
    """The predicted lane that finds each true one, or -1: assigned one to one for the largest sum of similarities.

    A similarity of at most 0.5 finds nothing. The released assignment stops within 0.01 of the largest sum, so that it
    may choose another pair there; this one is exact.
    """
    similarities = lane_similarities(truth, prediction)
    found = [-1] * len(truth)
    for i, j in zip(*linear_sum_assignment(similarities, maximize=True), strict=True):
        if similarities[i, j] > _MATCHED:
            found[i] = int(j)
    return found


def score_lanes(truth: Sequence[Lane], prediction: Sequence[Lane]) -> Counts:
    """Scores the lanes of one picture: found, false and missed by ``match_lanes``."""
    found = sum(j >= 0 for j in match_lanes(truth, prediction))
    return Counts(found, len(prediction) - found, len(truth) - found)


def score_pictures(
    pictures: Sequence[str],
    truth: Path,
    prediction: Path,
    *,
    workers: int = 1,
    malformed: Malformed = "raise",
) -> Counts:
    """Sums the counts over pictures whose lanes are in ``.lines.txt`` files.

    Args:
        pictures: paths as in CULane's lists, relative to both folders, with or without a leading slash.
        truth: folder of the true lanes.
        prediction: folder of the predicted ones. In both, a missing file means that there are no lanes.
        workers: threads.
        malformed: as in ``read_lines``.

    Raises:
        NotADirectoryError: if one of the folders is missing.
    """
    for folder in (truth, prediction):
        if not folder.is_dir():
            raise NotADirectoryError(f"score_pictures: expected a folder of .lines.txt files, got {folder}")
    score = partial(_score_picture, truth, prediction, malformed)
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(score, pictures), Counts())


def _score_picture(truth: Path, prediction: Path, malformed: Malformed, picture: str) -> Counts:
    """Scores one picture from its two files."""
    files = [lines_path(folder, picture) for folder in (truth, prediction)]
    lanes = [read_lines(file, malformed=malformed) if file.exists() else [] for file in files]
    return score_lanes(*lanes)


def score_categories(
    root: Path, prediction: Path, *, workers: int = 1, malformed: Malformed = "raise"
) -> dict[str, Counts]:
    """The counts of each of CULane's nine categories.

    Args:
        root: folder of the data set, with ``list/test_split/`` and the true lanes.
        prediction: folder of the predicted lanes.
        workers: threads.
        malformed: as in ``read_lines``.

    Returns:
        Category to counts, in the order of ``CATEGORIES``.
    """
    scores = {}
    for file, category in CATEGORIES.items():
        entries = read_list(root / "list" / "test_split" / f"{file}.txt", malformed=malformed)
        pictures = [entry.picture for entry in entries]
        scores[category] = score_pictures(pictures, root, prediction, workers=workers, malformed=malformed)
    return scores


def category_table(scores: Mapping[str, Counts]) -> str:
    """A Markdown table of categories; crossroads have no lanes, so that only false ones count there.

    The last row has the F1 of the summed counts, crossroads among them. An F1 that is undefined is a dash.
    """
    total = sum(scores.values(), Counts())
    rows = ["| category | F1 in % | TP | FP | FN |", "|---|---|---|---|---|"]
    for category, counts in [*scores.items(), ("total", total)]:
        tp, fp, fn = counts.true_positive, counts.false_positive, counts.false_negative
        f1 = f"{100 * counts.f1:.2f}" if counts.f1 >= 0 else "-"
        cells = ("", "", fp, "") if category == "crossroad" else (f1, tp, fp, fn)
        rows.append("| " + " | ".join(map(str, (category, *cells))) + " |")
    return "\n".join(rows) + "\n"
