"""Lane pictures on disk in the TuSimple layout, read into segmentation labels.

::

    root/clips/<date>/<id>/20.jpg                 the picture
    root/label_data_<date>.json, test_label.json  one JSON object a line: lanes, h_samples, raw_file

``lanes`` holds one list per lane, an x for every y of ``h_samples`` and -2 where there is none. Coordinates are those
of a 1280 x 720 picture whatever the size of the file: TuSimple's evaluator scores predictions for generated scenes
unchanged, and this reader reads TuSimple's own files.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydistill.recipes.lanes.road import FRAME

CLASSES = 5  # background, then four lanes from left to right
_MEAN, _STD = (0.3598, 0.3653, 0.3662), (0.2573, 0.2663, 0.2756)  # of RGB in 0..1, over TuSimple and CULane


@dataclass(frozen=True)
class Record:
    """One line of a label file: lanes as lists of x in 1280 x 720 pixels, one per ``h_samples``; negative: none."""

    raw_file: str
    h_samples: list[int]
    lanes: list[list[int]]


def read_labels(files: Iterable[Path]) -> list[Record]:
    """The records of TuSimple label files, in order."""
    lines = (line for file in files for line in file.read_text().splitlines() if line.strip())
    return [Record(d["raw_file"], d["h_samples"], d["lanes"]) for d in map(json.loads, lines)]


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


@dataclass(frozen=True)
class Batch:
    """Pictures (N, 3, H, W) float32 normalised RGB; labels (N, H, W) int64 in 0..4; existence (N, 4) float32."""

    pictures: Tensor
    labels: Tensor
    existence: Tensor


class LaneData:
    """A split in memory at the network's size: pictures as bytes, labels as classes.

    Args:
        root: folder of the TuSimple layout.
        files: its label files, e.g. ``["test_label.json"]``.
        size: height and width in pixels that pictures and labels are brought to.
        line_width: of the labels, in pixels of 1280 x 720.
    """

    def __init__(self, root: Path, files: Sequence[str], size: tuple[int, int], line_width: int = 15):
        self.root, self.size = root, size
        self.records = read_labels(root / file for file in files)
        self._pictures = np.stack(
            [cv2.resize(self.original(i), size[::-1], interpolation=cv2.INTER_AREA) for i in range(len(self))]
        )
        drawn = [draw_label(record, size, line_width) for record in self.records]
        self._labels, self._existence = np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn])

    def __len__(self) -> int:
        return len(self.records)

    def original(self, index: int) -> NDArray[np.uint8]:
        """The picture as it is on disk: (h, w, 3) uint8 BGR."""
        path = self.root / self.records[index].raw_file
        picture = cv2.imread(str(path))
        if picture is None:
            raise FileNotFoundError(f"LaneData: expected a picture, got {path}")
        return np.asarray(picture, np.uint8)

    def batch(self, indices: Sequence[int], mirror: Sequence[bool] | None = None) -> Batch:
        """Collects pictures and labels; those marked in ``mirror`` are flipped, classes and existence with them."""
        pictures, labels = self._pictures[indices], self._labels[indices]
        existence = self._existence[indices]
        for i in np.flatnonzero(mirror if mirror is not None else []):
            pictures[i] = pictures[i, :, ::-1]
            labels[i] = np.where(labels[i] > 0, CLASSES - labels[i], 0)[:, ::-1]
            existence[i] = existence[i, ::-1]
        rgb = torch.from_numpy(pictures[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor(_MEAN).view(3, 1, 1), torch.tensor(_STD).view(3, 1, 1)
        return Batch((rgb - mean) / std, torch.from_numpy(labels).long(), torch.from_numpy(existence))

    def training_batch(self, seed: int, step: int, size: int) -> Batch:
        """The batch of ``step``, shuffled by epoch, half of it mirrored: it depends on the arguments only."""
        per_epoch = len(self) // size
        if per_epoch == 0:
            raise ValueError(f"LaneData: expected at least {size} pictures for one batch, got {len(self)}")
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        mirror = np.random.default_rng((seed, epoch, place)).random(size) < 0.5
        return self.batch(order[place * size : (place + 1) * size].tolist(), mirror.tolist())


def prediction_line(record: Record, lanes: Sequence[Sequence[int]], run_time: float) -> str:
    """One line of a TuSimple prediction file; ``run_time`` in milliseconds."""
    line: dict[str, Any] = {"raw_file": record.raw_file, "lanes": [list(lane) for lane in lanes], "run_time": run_time}
    return json.dumps(line) + "\n"
