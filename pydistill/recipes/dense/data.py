"""Batches of pictures with boxes at the size of a network; in training a pure function of (seed, step)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydistill.recipes.batches import TrainingBatches, Unreadable, normalise
from pydistill.recipes.dense.augment import Augment, Item, rescale
from pydistill.recipes.dense.coco import CocoDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1, as torchvision's weights expect


@dataclass(frozen=True)
class Batch:
    """Pictures with the boxes that a detector is to learn; crowd boxes are not among them.

    Attributes:
        pictures: (N, 3, H, W) float32, normalised RGB, 0 right of and below the picture itself.
        boxes: (N, G, 4) float32, left, top, right, bottom in the network's pixels; the first ``counts[i]`` of picture
            i, then zeros.
        labels: (N, G) int64, zeros after the first ``counts[i]``.
        counts: (N,) int64.
        sizes: (N, 2) int64, height and width without the padding.
    """

    pictures: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor
    sizes: Tensor


class DenseData(TrainingBatches[Item, Batch]):
    """A detection data set as batches.

    A picture is scaled as large as fits ``size``, both sides alike, and padded right and below. A pixel at x of the
    file is at ``scale * x``, counted from the edge.

    Args:
        dataset: files of a data set.
        size: height and width in pixels that pictures are brought to.
        augment: changes training batches, and them alone; False for none, True for ``Augment()``.
        max_boxes: G of a batch; None for the most that a picture of ``dataset`` has.
        cache: whether pictures once read stay in memory, scaled and as bytes.
        unreadable: what becomes of a picture that cannot be decoded when training asks for it: an error, or the next
            readable one in its place, with one warning per file. Elsewhere it is an error.

    Raises:
        ValueError: for arguments out of range, or if a picture has more boxes than ``max_boxes``.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        size: tuple[int, int],
        augment: Augment | bool | None = False,
        *,
        max_boxes: int | None = None,
        cache: bool = True,
        unreadable: Unreadable = "raise",
    ):
        super().__init__(unreadable)
        if min(size) < 1:
            raise ValueError(f"DenseData: expected a size of at least 1 x 1, got {size[0]} x {size[1]}")
        most = max(int((~dataset.target(i)[2]).sum()) for i in range(len(dataset)))
        if max_boxes is not None and max_boxes < max(most, 1):
            raise ValueError(f"DenseData: expected max_boxes of at least {max(most, 1)}, got {max_boxes}")
        self.dataset, self.size, self.cache = dataset, size, cache
        self.augment = Augment() if augment is True else augment or None
        self.max_boxes = max(most, 1) if max_boxes is None else max_boxes
        self._scaled: dict[int, tuple[NDArray[np.uint8], float]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def original(self, index: int) -> NDArray[np.uint8]:
        """The picture as it is on disk: (h, w, 3) uint8 BGR."""
        return self.dataset.picture(index)

    def pictures(self, indices: Sequence[int]) -> "Inputs":
        """Some pictures for evaluation."""
        return _to_inputs([self._read(i) for i in indices], self.size)

    def _read(self, index: int) -> tuple[NDArray[np.uint8], float]:
        """A picture at the network's scale, and the scale."""
        found = self._scaled.get(index)
        if found is None:
            found = _fit(self.dataset.picture(index), self.size)
            if self.cache:
                self._scaled[index] = found
        return found

    def _item(self, index: int) -> Item:
        picture, scale = self._read(index)
        boxes, labels, crowd = self.dataset.target(index)
        return Item(picture, boxes[~crowd] * np.float32(scale), labels[~crowd])

    def _augment(self, item: Item, rng: np.random.Generator) -> Item:
        return item if self.augment is None else self.augment(item, self.size, rng)

    def _collate(self, items: Sequence[Item]) -> Batch:
        boxes = np.zeros((len(items), self.max_boxes, 4), np.float32)
        labels = np.zeros((len(items), self.max_boxes), np.int64)
        for i, item in enumerate(items):
            boxes[i, : len(item.labels)], labels[i, : len(item.labels)] = item.boxes, item.labels
        return Batch(
            _to_input([item.picture for item in items], self.size),
            torch.from_numpy(boxes),
            torch.from_numpy(labels),
            torch.tensor([len(item.labels) for item in items]),
            torch.tensor([item.picture.shape[:2] for item in items]),
        )


class Inputs(NamedTuple):
    """Pictures for a network, without boxes.

    Attributes:
        pictures: (k, 3, H, W) float32, as in ``Batch``.
        scales: (k,) float32, the network's pixels per pixel of the file.
        sizes: (k, 2) int64, height and width without the padding.
    """

    pictures: Tensor
    scales: Tensor
    sizes: Tensor


def to_inputs(pictures: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Inputs:
    """Pictures (h, w, 3) uint8 BGR of any sizes, each as large as fits ``size``."""
    return _to_inputs([_fit(picture, size) for picture in pictures], size)


def _fit(picture: NDArray[np.uint8], size: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
    """``picture`` as large as fits ``size``, and the scale."""
    scale = min(side / own for side, own in zip(size, picture.shape))
    none = Item(picture, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    return np.ascontiguousarray(rescale(none, scale).picture[: size[0], : size[1]]), scale


def _to_inputs(fitted: Sequence[tuple[NDArray[np.uint8], float]], size: tuple[int, int]) -> Inputs:
    pictures = [picture for picture, _ in fitted]
    sizes = torch.tensor([picture.shape[:2] for picture in pictures])
    return Inputs(_to_input(pictures, size), torch.tensor([scale for _, scale in fitted]), sizes)


def _to_input(pictures: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Tensor:
    padded = torch.zeros(len(pictures), 3, *size)
    for place, picture in zip(padded, pictures):
        place[:, : picture.shape[0], : picture.shape[1]] = normalise([picture], MEAN, STD)[0]
    return padded
