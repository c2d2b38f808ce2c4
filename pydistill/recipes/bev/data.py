"""Batches of samples for networks in bird's-eye view; in training a pure function of (seed, step)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydistill.recipes.batches import TrainingBatches, Unreadable, normalise
from pydistill.recipes.bev.nuscenes import NuScenes
from pydistill.recipes.dense.data import MEAN, STD
from pydistill.recipes.pictures import read_picture


@dataclass(frozen=True)
class Batch:
    """What the sensors of B samples measured, and the boxes around them.

    Attributes:
        points: (B, P, 5) float32: x, y, z, intensity 0..1, age in seconds, in the LiDAR's frame; padded.
        counts: (B,) int64: how many points of each sample are real.
        pictures: (B, 6, 3, h, w) float32, normalised RGB.
        to_pixels: (B, 6, 3, 4) float32: from the LiDAR's frame, homogeneous, to the pixels of these pictures times
            depth.
        boxes: (B, M, 9) float32: x, y, z, l, w, h, yaw, vx, vy, velocities 0 where not known; padded.
        labels: (B, M) int64.
        valid: (B, M) bool.
        timed: (B, M) bool: boxes whose velocity is known.
    """

    points: Tensor
    counts: Tensor
    pictures: Tensor
    to_pixels: Tensor
    boxes: Tensor
    labels: Tensor
    valid: Tensor
    timed: Tensor


@dataclass(frozen=True)
class Item:
    """One sample, read."""

    points: NDArray[np.float32]
    pictures: list[NDArray[np.uint8]]
    to_pixels: NDArray[np.float64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Augment:
    """Turns, mirrors and scales the ground, and what stands on it, under the LiDAR; cameras keep their pictures and see
    from the turned place.

    Attributes:
        turn: largest angle in radians, either way.
        scale: largest change, as logarithm.
        mirror: whether half of the samples are mirrored, along x and y each.
    """

    turn: float = 0.3925
    scale: float = 0.05
    mirror: bool = True

    def __call__(self, item: Item, rng: np.random.Generator) -> Item:
        """A changed copy."""
        angle, scale = rng.uniform(-self.turn, self.turn), np.exp(rng.uniform(-self.scale, self.scale))
        flips = np.where(rng.random(2) < 0.5 * self.mirror, -1.0, 1.0)
        return moved(item, float(angle), float(scale), (float(flips[0]), float(flips[1])))


def moved(item: Item, angle: float, scale: float, flips: tuple[float, float]) -> Item:
    """A sample whose ground is turned by ``angle``, scaled, and then mirrored where a flip is -1."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = scale * np.diag([*flips, 1.0]) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    back = np.eye(4)
    back[:3, :3] = np.linalg.inv(turn)
    points, boxes = item.points.copy(), item.boxes.copy()
    points[:, :3] = points[:, :3] @ turn.T.astype(np.float32)
    boxes[:, :3] = boxes[:, :3] @ turn.T.astype(np.float32)
    boxes[:, 3:6] *= scale
    ahead = np.stack([np.cos(item.boxes[:, 6]), np.sin(item.boxes[:, 6])]) * scale
    ahead = turn[:2, :2] @ ahead
    boxes[:, 6] = np.arctan2(ahead[1], ahead[0])
    boxes[:, 7:9] = boxes[:, 7:9] @ turn[:2, :2].T.astype(np.float32)
    return replace(item, points=points, boxes=boxes, to_pixels=item.to_pixels @ back)


class BEVData(TrainingBatches[Item, Batch]):
    """A data set as batches.

    Args:
        dataset: files of a data set.
        size: height and width that pictures are brought to.
        max_points: P of a batch; of a sample with more a part is drawn, the same part every time.
        max_boxes: M of a batch; None for the most that a sample has.
        augment: changes training batches, and them alone; None for none.
        cache: whether samples once read stay in memory, pictures as bytes.
        unreadable: what becomes of a picture that cannot be decoded when training asks for it: an error, or the next
            readable sample in its place, with one warning per file. Elsewhere it is an error.

    Raises:
        ValueError: for arguments out of range, or if a sample has more boxes than ``max_boxes``.
    """

    def __init__(
        self,
        dataset: NuScenes,
        size: tuple[int, int],
        *,
        max_points: int,
        max_boxes: int | None = None,
        augment: Augment | None = None,
        cache: bool = True,
        unreadable: Unreadable = "raise",
    ):
        super().__init__(unreadable)
        if min(*size, max_points) < 1:
            raise ValueError(f"BEVData: expected sizes and max_points >= 1, got {size} and {max_points}")
        most = max((len(sample.boxes) for sample in dataset.samples), default=0)
        if max_boxes is not None and max_boxes < max(most, 1):
            raise ValueError(f"BEVData: expected max_boxes of at least {max(most, 1)}, got {max_boxes}")
        self.dataset, self.size, self.max_points, self.augment, self.cache = dataset, size, max_points, augment, cache
        self.max_boxes = max(most, 1) if max_boxes is None else max_boxes
        self._read: dict[int, Item] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def samples(self, indices: Sequence[int]) -> Batch:
        """Some samples for evaluation, unchanged."""
        return self._collate([self._item(i) for i in indices])

    def _item(self, index: int) -> Item:
        found = self._read.get(index)
        if found is None:
            found = self._load(index)
            if self.cache:
                self._read[index] = found
        return found

    def _load(self, index: int) -> Item:
        sample = self.dataset.samples[index]
        points = self.dataset.points(index)
        if len(points) > self.max_points:
            kept = np.random.default_rng(index).permutation(len(points))[: self.max_points]
            points = points[np.sort(kept)]
        points[:, 3] /= 255
        pictures, matrices = [], []
        for view in sample.views:
            picture = read_picture(view.path, "NuScenes")
            h, w = picture.shape[:2]
            scale = np.diag([self.size[1] / w, self.size[0] / h, 1.0])
            scale[:2, 2] = (scale.diagonal()[:2] - 1) / 2  # the centre of the first pixel is at 0
            if (h, w) != self.size:
                picture = cv2.resize(picture, self.size[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            pictures.append(picture)
            matrices.append(scale @ view.matrix @ view.from_lidar[:3])
        return Item(points, pictures, np.stack(matrices), sample.boxes, sample.labels)

    def _augment(self, item: Item, rng: np.random.Generator) -> Item:
        return item if self.augment is None else self.augment(item, rng)

    def _collate(self, items: Sequence[Item]) -> Batch:
        n, most = len(items), max((len(item.points) for item in items), default=0)
        points = np.zeros((n, most, 5), np.float32)
        boxes = np.zeros((n, self.max_boxes, 9), np.float32)
        labels, valid = np.zeros((n, self.max_boxes), np.int64), np.zeros((n, self.max_boxes), bool)
        for i, item in enumerate(items):
            points[i, : len(item.points)] = item.points
            count = len(item.boxes)
            boxes[i, :count], labels[i, :count], valid[i, :count] = item.boxes, item.labels, True
        timed = valid & np.isfinite(boxes[..., 7:9]).all(-1)
        boxes[..., 7:9][~timed] = 0
        pictures = normalise([p for item in items for p in item.pictures], MEAN, STD)
        return Batch(
            torch.from_numpy(points),
            torch.tensor([len(item.points) for item in items]),
            pictures.view(n, -1, *pictures.shape[1:]),
            torch.from_numpy(np.stack([item.to_pixels for item in items]).astype(np.float32)),
            *map(torch.from_numpy, (boxes, labels, valid, timed)),
        )
