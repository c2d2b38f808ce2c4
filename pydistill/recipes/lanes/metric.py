"""From class probabilities to lanes, and TuSimple's accuracy of lanes.

Reference: the TuSimple benchmark's ``lane.py``; decoding as in InhwanBae/ENet-SAD_Pytorch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.lanes.road import FRAME, H_SAMPLES, NONE

_PIXELS = 20  # how far a point may lie from the truth, across the lane, in pixels of 1280 x 720
_MATCHED = 0.85  # share of right points that makes a lane found
_SLOWEST = 200  # milliseconds; slower predictions score nothing
_ABSENT = -100.0


def decode_lanes(
    probabilities: NDArray[np.float32],
    existence: Sequence[float] = (1, 1, 1, 1),
    *,
    smooth: int = 9,
    threshold: float = 0.3,
    least: int = 2,
    samples: Sequence[int] = H_SAMPLES,
) -> list[list[int]]:
    """Reads off one point per lane and row: the column of the largest probability, if that is large enough.

    Args:
        probabilities: (5, h, w), 0..1, background first.
        existence: probability of each of the four lanes; one of at most 0.5 is left out.
        smooth: side of the mean filter in pixels, odd; 1 for none. The released decoders use 9 at 640 columns.
        threshold: least probability of a point, after smoothing.
        least: a lane with fewer points is left out.
        samples: the y of each value in 1280 x 720 pixels; some TuSimple pictures have 48, from 240 on.

    Returns:
        Lanes in the TuSimple form: an x per row of ``samples`` in 1280 x 720 pixels, -2 where there is none.
    """
    h, w = probabilities.shape[-2:]
    rows = [int(y * h / FRAME[0]) for y in samples]
    lanes = []
    for columns in find_peaks(probabilities, existence, rows, smooth, threshold):
        xs = (columns / w * FRAME[1]).astype(int)
        if np.count_nonzero(xs > 0) >= least:
            lanes.append(np.where(xs > 0, xs, NONE).tolist())
    return lanes


def find_peaks(
    probabilities: NDArray[np.float32], existence: Sequence[float], rows: Sequence[int], smooth: int, threshold: float
) -> Iterator[NDArray[np.int64]]:
    """Yields, for each lane that exists, the column of the largest probability in each row, or -1 if it is too small.

    Args:
        probabilities: (5, h, w), background first.
        existence: probability of each of the four lanes; one of at most 0.5 is left out.
        rows: rows of the map to look at.
        smooth: side of the mean filter in pixels, odd; 1 for none.
        threshold: the probability has to be above it, after smoothing.
    """
    if probabilities.ndim != 3 or probabilities.shape[0] != 5:
        raise ValueError(f"find_peaks: expected probabilities of shape (5, h, w), got {list(probabilities.shape)}")
    for lane in range(4):
        if existence[lane] <= 0.5:
            continue
        heat = np.asarray(probabilities[lane + 1])
        if smooth > 1:
            heat = cv2.blur(heat, (smooth, smooth), borderType=cv2.BORDER_REPLICATE)
        columns = heat[rows].argmax(1)
        yield np.where(heat[rows, columns] > threshold, columns, -1)


@dataclass(frozen=True)
class Score:
    """TuSimple's three numbers: share of right points, of false lanes (may be negative), of missed lanes."""

    accuracy: float
    false_positive: float
    false_negative: float

    @property
    def f1(self) -> float:
        """Harmonic mean of 1 - FP and 1 - FN; TuSimple does not rank by it."""
        precision, recall = 1 - self.false_positive, 1 - self.false_negative
        return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def lane_tolerance(lane: Sequence[float], rows: Sequence[float]) -> float:
    """Largest horizontal distance of a right point: 20 pixels across the lane, ``20 / cos(angle)`` along the row."""
    xs, ys = np.asarray(lane, np.float64), np.asarray(rows, np.float64)
    xs, ys = xs[np.asarray(lane) >= 0], ys[np.asarray(lane) >= 0]
    if len(xs) < 2:
        return float(_PIXELS)
    slope = np.sum((ys - ys.mean()) * (xs - xs.mean())) / np.sum((ys - ys.mean()) ** 2)
    return float(_PIXELS / np.cos(np.arctan(slope)))


def score_frame(
    prediction: Sequence[Sequence[float]],
    truth: Sequence[Sequence[float]],
    rows: Sequence[float],
    run_time: float = 0.0,
) -> Score:
    """Scores the lanes of one picture as TuSimple does.

    A point is right within ``lane_tolerance``, and where both say "none". Each true lane takes its best prediction,
    and is found if 85% of its points are right. Of more than four true lanes the worst is forgiven. More than two
    predictions too many, or more than 200 ms, score (0, 0, 1). Predictions are not assigned one to one, so that FP can
    be negative, as in the released evaluator.

    Args:
        prediction: lanes of ``len(rows)`` values of x in pixels each; negative: none.
        truth: the same.
        rows: the y of each value.
        run_time: milliseconds.
    """
    if any(len(lane) != len(rows) for lane in prediction):
        lengths = sorted({len(lane) for lane in prediction})
        raise ValueError(f"score_frame: expected lanes of {len(rows)} values, got {lengths}")
    if run_time > _SLOWEST or len(prediction) > len(truth) + 2:
        return Score(0.0, 0.0, 1.0)
    guesses = [np.where(np.asarray(p) >= 0, p, _ABSENT) for p in prediction]
    best = []
    for lane in truth:
        real = np.where(np.asarray(lane) >= 0, lane, _ABSENT)
        tolerance = lane_tolerance(lane, rows)
        best.append(max((float(np.mean(np.abs(g - real) < tolerance)) for g in guesses), default=0.0))
    found = sum(b >= _MATCHED for b in best)
    missed, total = len(truth) - found, sum(best)
    if len(truth) > 4:
        missed, total = max(missed - 1, 0), total - min(best)
    counted = max(min(4, len(truth)), 1)
    false = (len(prediction) - found) / len(prediction) if prediction else 0.0
    return Score(total / counted, false, missed / counted)


def mean_score(scores: Sequence[Score]) -> Score:
    """The score of a data set: the mean over its pictures."""
    rows = np.array([(s.accuracy, s.false_positive, s.false_negative) for s in scores], np.float64)
    if len(rows) == 0:
        raise ValueError("mean_score: expected at least one score, got none")
    return Score(*(float(v) for v in rows.mean(0)))
