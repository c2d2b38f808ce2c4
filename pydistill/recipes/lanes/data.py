"""A split of the TuSimple layout in memory, and the batches that a network sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydistill.recipes.lanes.tusimple import draw_label, read_labels

CLASSES = 5  # background, then four lanes from left to right
_MEAN, _STD = (0.3598, 0.3653, 0.3662), (0.2573, 0.2663, 0.2756)  # of RGB in 0..1, over TuSimple and CULane


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
