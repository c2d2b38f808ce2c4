"""nuScenes' detection score: average precision by the distance of centres, five errors of true positives, and NDS.

Reference: Caesar et al. 2020, arXiv:1903.11027, section 3.2, and nuscenes-devkit, ``eval/detection``, whose numbers
these are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.bev.classes import CLASSES, RANGES

Floats = NDArray[np.float64]

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # of the centres along the ground, below which a detection finds an object
ERRORS = ("translation", "scale", "orientation", "velocity", "attribute")
MOST = 500  # detections of a sample
_MATCHED = 2.0  # the distance at which errors are measured
_RECALLS = np.linspace(0, 1, 101)
_LEAST = 0.1  # recall and precision below which nothing counts
_UNDEFINED = {"traffic_cone": ("orientation", "velocity", "attribute"), "barrier": ("velocity", "attribute")}


@dataclass(frozen=True)
class Objects:
    """Annotated or detected objects of one sample, seen from the ego.

    Attributes:
        boxes: (M, 9): x, y, z, l, w, h, yaw, vx, vy; velocities may be NaN where they are not known.
        labels: (M,) index into ``CLASSES``.
        scores: (M,) of detections.
        attributes: (M,) names, "" for none; None: no attribute is known, and its error is 1.
    """

    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats | None = None
    attributes: list[str] | None = None


@dataclass(frozen=True)
class Scores:
    """What a detector reaches.

    Attributes:
        mean_ap: mean of ``ap`` over classes.
        nds: half of it the mean of ``1 - error`` of the five errors, none of which is more than 1, half ``mean_ap``.
        ap: (classes,) mean over the distances.
        errors: mean over the classes for which an error is defined, by name.
        class_errors: (classes, 5), NaN where an error is not defined.
    """

    mean_ap: float
    nds: float
    ap: Floats
    errors: dict[str, float]
    class_errors: Floats

    def table(self) -> str:
        """All of it, a line a class."""
        lines = [f"{'':22}{'AP':>6}" + "".join(f"{name:>13}" for name in ERRORS)]
        for name, ap, errors in zip(CLASSES, self.ap, self.class_errors, strict=True):
            lines.append(f"{name:22}{ap:6.3f}" + "".join(f"{error:13.3f}" for error in errors))
        lines.append(f"{'mean':22}{self.mean_ap:6.3f}" + "".join(f"{x:13.3f}" for x in self.errors.values()))
        return "\n".join([*lines, f"NDS {self.nds:.4f}"])


def score(truth: list[Objects], found: list[Objects]) -> Scores:
    """Compares detections with annotations, sample by sample.

    Objects farther from the ego than their class's range do not count.

    Raises:
        ValueError: for another number of samples, or more than 500 detections of one.
    """
    if len(truth) != len(found):
        raise ValueError(f"score: expected detections of {len(truth)} samples, got {len(found)}")
    for objects in found:
        if len(objects.boxes) > MOST:
            raise ValueError(f"score: expected at most {MOST} detections of a sample, got {len(objects.boxes)}")
    ap, errors = np.zeros(len(CLASSES)), np.full((len(CLASSES), len(ERRORS)), np.nan)
    for label, name in enumerate(CLASSES):
        curves = [_curve(truth, found, label, distance) for distance in DISTANCES]
        ap[label] = np.mean([_average_precision(curve) for curve in curves])
        matched = curves[DISTANCES.index(_MATCHED)]
        for place, error in enumerate(ERRORS):
            if error not in _UNDEFINED.get(name, ()):
                errors[label, place] = _mean_error(matched, place)
    means = np.nanmean(errors, 0)
    mean_ap = float(ap.mean())
    nds = (len(ERRORS) * mean_ap + float(np.clip(1 - means, 0, None).sum())) / (2 * len(ERRORS))
    return Scores(mean_ap, nds, ap, dict(zip(ERRORS, means.tolist(), strict=True)), errors)


@dataclass(frozen=True)
class _Curve:
    """At 101 recalls: precision, score, and the mean errors of what was found down to that score."""

    precision: Floats
    score: Floats
    errors: Floats  # (5, 101)


def _of_class(objects: Objects, label: int) -> NDArray[np.int64]:
    near = np.hypot(objects.boxes[:, 0], objects.boxes[:, 1]) < RANGES[label]
    return np.flatnonzero((objects.labels == label) & near)


def _curve(truth: list[Objects], found: list[Objects], label: int, distance: float) -> _Curve | None:
    """None where nothing is found, or there is nothing to find."""
    wanted = [_of_class(objects, label) for objects in truth]
    count = sum(map(len, wanted))
    entries = [(s, i) for s, objects in enumerate(found) for i in _of_class(objects, label)]
    if not count or not entries:
        return None
    confidence = np.array([_scores(found[s])[i] for s, i in entries])
    order = np.lexsort((np.arange(len(entries)), confidence))[
        ::-1
    ]  # of equal scores the later one first, as the devkit
    taken = [np.zeros(len(indices), bool) for indices in wanted]
    hit, rows = np.zeros(len(entries), bool), []
    for rank, entry in enumerate(order):
        sample, index = entries[entry]
        open_ = np.flatnonzero(~taken[sample])
        if not len(open_):
            continue
        centres = truth[sample].boxes[wanted[sample][open_], :2]
        gaps = np.sqrt(((centres - found[sample].boxes[index, :2]) ** 2).sum(1))
        nearest = int(gaps.argmin())
        if gaps[nearest] < distance:
            taken[sample][open_[nearest]] = hit[rank] = True
            target = wanted[sample][open_[nearest]]
            rows.append(_errors(truth[sample], target, found[sample], index, label, float(gaps[nearest])))
    if not hit.any():
        return None
    confidence = confidence[order]
    right = np.cumsum(hit).astype(float)
    precision, recall = right / np.arange(1, len(hit) + 1), right / count
    at = np.interp(_RECALLS, recall, confidence, right=0)
    hits = confidence[hit]
    means = [np.interp(at[::-1], hits[::-1], _running_mean(column)[::-1])[::-1] for column in np.array(rows).T]
    return _Curve(np.interp(_RECALLS, recall, precision, right=0), at, np.array(means))


def _scores(objects: Objects) -> Floats:
    if objects.scores is None:
        raise ValueError("score: expected scores of the detections, got none")
    return objects.scores


def _errors(truth: Objects, target: int, found: Objects, index: int, label: int, gap: float) -> list[float]:
    a, b = truth.boxes[target], found.boxes[index]
    common = np.minimum(a[3:6], b[3:6]).prod()
    scale = 1 - common / (a[3:6].prod() + b[3:6].prod() - common)
    period = np.pi if CLASSES[label] == "barrier" else 2 * np.pi
    turn = np.mod(a[6] - b[6] + period / 2, period) - period / 2
    velocity = float(np.hypot(*(b[7:9] - a[7:9])))
    attribute = np.nan
    if truth.attributes is None:
        attribute = 1.0
    elif truth.attributes[target]:
        attribute = 1.0 - (found.attributes is not None and found.attributes[index] == truth.attributes[target])
    return [gap, float(scale), float(abs(turn)), velocity, attribute]


def _running_mean(values: Floats) -> Floats:
    """Of what is known so far; 0 before that, and 1 where nothing ever is."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    count = np.cumsum(known)
    means: Floats = np.divide(np.nancumsum(values), count, out=np.zeros(len(values)), where=count != 0)
    return means


def _average_precision(curve: _Curve | None) -> float:
    if curve is None:
        return 0.0
    above = curve.precision[round(100 * _LEAST) + 1 :] - _LEAST
    return float(np.clip(above, 0, None).mean() / (1 - _LEAST))


def _mean_error(curve: _Curve | None, place: int) -> float:
    first = round(100 * _LEAST) + 1
    reached = np.flatnonzero(curve.score) if curve is not None else np.zeros(0)
    last = int(reached[-1]) if len(reached) else 0
    if curve is None or last < first:
        return 1.0
    return float(curve.errors[place, first : last + 1].mean())
