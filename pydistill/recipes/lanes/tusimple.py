"""TuSimple: its label files read into lanes and segmentation labels, its prediction files written and scored.

::

    root/clips/<date>/<id>/20.jpg                 the picture
    root/label_data_<date>.json, test_label.json  one JSON object a line: lanes, h_samples, raw_file

``lanes`` holds one list per lane, an x for every y of ``h_samples`` and -2 where there is none. Coordinates are those
of a 1280 x 720 picture whatever the size of the file: TuSimple's evaluator scores predictions for generated scenes
unchanged, and this reader reads TuSimple's own files.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.faults import Faults, Malformed
from pydistill.recipes.lanes.metric import Score, mean_score, score_frame
from pydistill.recipes.lanes.road import FRAME

_LARGEST = 1e6  # of a coordinate in pixels; not a number is not below it either


@dataclass(frozen=True)
class Record:
    """One line of a label file: lanes as lists of x in 1280 x 720 pixels, one per ``h_samples``; negative: none."""

    raw_file: str
    h_samples: list[int]
    lanes: list[list[int]]
    source: str = field(default="", compare=False)  # file and line


def read_labels(files: Iterable[Path], *, malformed: Malformed = "raise") -> list[Record]:
    """The records of label files, in order.

    Args:
        files: label files. Blank lines in them mean nothing.
        malformed: what becomes of a line that is no such object: an error, or left out with one warning.

    Raises:
        ValueError: for a malformed line, with file and line.
    """
    faults = Faults("read_labels", malformed)
    records = parse_labels(files, faults)
    faults.warn()
    return records


def parse_labels(files: Iterable[Path], faults: Faults) -> list[Record]:
    """``read_labels`` for a reader that collects other faults, too."""
    records = []
    for source, line in _read_objects(files, ("raw_file", "h_samples", "lanes"), faults):
        if not _are_numbers(line["h_samples"]) or line["h_samples"] != sorted(line["h_samples"]):
            faults.add(f"expected h_samples to be ascending numbers in {source}, got {line['h_samples']!r:.60}")
        elif _check_lanes(source, line["lanes"], len(line["h_samples"]), faults):
            records.append(Record(line["raw_file"], line["h_samples"], line["lanes"], source))
    return records


def _read_objects(files: Iterable[Path], keys: tuple[str, ...], faults: Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where each line stands and its JSON object, which has all ``keys`` and a path in ``raw_file``."""
    for file in files:
        for number, text in enumerate(file.read_text(errors="replace").splitlines(), 1):
            if not text.strip():
                continue
            source = f"{file}, line {number}"
            try:
                line = json.loads(text)
            except ValueError as error:
                faults.add(f"expected a JSON object in {source}, got {text[:60]!r}: {error}")
                continue
            missing = [key for key in keys if key not in line] if isinstance(line, dict) else list(keys)
            if missing:
                faults.add(f"expected the keys {', '.join(keys)} in {source}, got no {', '.join(missing)}")
            elif not isinstance(line["raw_file"], str):
                faults.add(f"expected raw_file to be a path in {source}, got {line['raw_file']!r:.60}")
            else:
                yield source, line


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) in (int, float) and abs(v) < _LARGEST for v in values)


def _check_lanes(source: str, lanes: Any, rows: int, faults: Faults) -> bool:
    """Whether ``lanes`` are lists of ``rows`` numbers; a fault if not."""
    if not isinstance(lanes, list) or not all(map(_are_numbers, lanes)):
        faults.add(f"expected lanes to be lists of numbers in {source}, got {lanes!r:.60}")
        return False
    lengths = sorted({len(lane) for lane in lanes} - {rows})
    if lengths:
        faults.add(f"expected lanes of {rows} values, one per h_samples, in {source}, got {lengths}")
    return not lengths


def assign_classes(record: Record) -> dict[int, NDArray[np.float32]]:
    """Gives lanes their classes: 2 and 3 bound the ego lane on the left and on the right, 1 and 4 are their neighbours.

    Lanes are sorted by the angle of the chord from their lowest to their highest point, ``atan2(dy, -dx)``; the ego
    lane's left border is the last one of at most 90 degrees. Lanes with fewer than 4 points are left out.

    Returns:
        Class to points (P, 2) as (x, y) in 1280 x 720 pixels, from top to bottom.
    """
    lanes = []
    for xs in record.lanes:
        points = np.array([(x, y) for x, y in zip(xs, record.h_samples) if x >= 0], np.float32).reshape(-1, 2)
        if len(points) >= 4:
            dx, dy = points[-1] - points[0]
            lanes.append((float(np.degrees(np.arctan2(dy, -dx))), points))
    lanes.sort(key=lambda lane: lane[0])
    left = sum(angle <= 90 for angle, _ in lanes)  # lanes on the left of the camera
    classes = {i - left + 3: points for i, (_, points) in enumerate(lanes)}
    return {c: points for c, points in classes.items() if 1 <= c <= 4}


def draw_label(
    record: Record, size: tuple[int, int], line_width: int = 15
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The segmentation label of a record.

    Args:
        record: lanes to draw.
        size: height and width of the label in pixels.
        line_width: of the lanes, in pixels of 1280 x 720; in the label it is at least 2.

    Returns:
        Label (H, W) uint8 with 0 background and 1..4 lanes; existence (4,) float32 of 0 and 1.
    """
    label, existence = np.zeros(size, np.uint8), np.zeros(4, np.float32)
    scale = np.array([size[1] / FRAME[1], size[0] / FRAME[0]], np.float32)
    width = max(2, round(line_width * float(scale[0])))
    for lane, points in assign_classes(record).items():
        fixed = np.round(points * scale * 16).astype(np.int32)
        cv2.polylines(label, [fixed.reshape(-1, 1, 2)], False, lane, width, cv2.LINE_8, 4)
        existence[lane - 1] = 1
    return label, existence


def prediction_line(record: Record, lanes: Sequence[Sequence[int]], run_time: float) -> str:
    """One line of a TuSimple prediction file; ``run_time`` in milliseconds."""
    line: dict[str, Any] = {"raw_file": record.raw_file, "lanes": [list(lane) for lane in lanes], "run_time": run_time}
    return json.dumps(line) + "\n"


def score_file(prediction: Path, truth: Path) -> Score:
    """Scores a prediction file against a label file as TuSimple's evaluator does.

    Args:
        prediction: one JSON object a line: ``raw_file``, ``lanes`` and ``run_time`` in milliseconds.
        truth: label file, whose pictures must be those of ``prediction``, in any order.

    Returns:
        The mean over the pictures.

    Raises:
        ValueError: for a malformed line, a picture that is not in ``truth`` or comes twice, with file and line; for
            pictures without prediction.
    """
    faults = Faults("score_file", "raise")
    truths = {record.raw_file: record for record in parse_labels([truth], faults)}
    scores: dict[str, Score] = {}
    for source, line in _read_objects([prediction], ("raw_file", "lanes", "run_time"), faults):
        name, lanes, run_time = line["raw_file"], line["lanes"], line["run_time"]
        if name not in truths or name in scores:
            faults.add(f"expected a picture of {truth}, once each, in {source}, got {name}")
        if not _are_numbers([run_time]):
            faults.add(f"expected run_time to be a number in {source}, got {run_time!r:.60}")
        record = truths[name]
        _check_lanes(source, lanes, len(record.h_samples), faults)
        scores[name] = score_frame(lanes, record.lanes, record.h_samples, run_time)
    missing = [name for name in truths if name not in scores]
    if missing:
        faults.add(f"expected {len(truths)} pictures in {prediction}, got {len(scores)}, without {missing[0]}")
    return mean_score(list(scores.values()))
