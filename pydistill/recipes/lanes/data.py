"""Batches of a lane data set at the size of a network; in training a pure function of (seed, step)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydistill.recipes import batches
from pydistill.recipes.batches import TrainingBatches, Unreadable
from pydistill.recipes.lanes.augment import MEAN, STD, Augment, Item
from pydistill.recipes.lanes.datasets import LaneDataset

D_co = TypeVar("D_co", bound=LaneDataset, covariant=True)


@dataclass(frozen=True)
class Batch:
    """Pictures (N, 3, H, W) float32 normalised RGB; labels (N, H, W) int64, 255 ignored; existence (N, 4) float32."""

    pictures: Tensor
    labels: Tensor
    existence: Tensor


def resize(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``picture`` (h, w, 3) at ``size`` (H, W), each pixel the mean of what it covers."""
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def normalise(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Pictures (H, W, 3) BGR of one size as a network's input (N, 3, H, W) float32 RGB, (x / 255 - mean) / std."""
    return batches.normalise(pictures, MEAN, STD)


class LaneData(TrainingBatches[Item, Batch], Generic[D_co]):
    """A data set as batches.

    Args:
        dataset: files of a data set.
        size: height and width in pixels that pictures and labels are brought to.
        line_width: of labels that are drawn, in pixels of ``dataset.frame``.
        augment: changes training batches, and them alone; None for none.
        cache: whether pictures and labels once read stay in memory, at ``size`` and as bytes.
        unreadable: what becomes of a picture or label that cannot be decoded when training asks for it: an error, or
            the next readable one in its place, with one warning per file. Elsewhere it is an error.
    """

    def __init__(
        self,
        dataset: D_co,
        size: tuple[int, int],
        line_width: int = 15,
        *,
        augment: Augment | None = None,
        cache: bool = True,
        unreadable: Unreadable = "raise",
    ):
        super().__init__(unreadable)
        self.dataset, self.size, self.line_width = dataset, size, line_width
        self.augment, self.cache = augment, cache
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._labels: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def original(self, index: int) -> NDArray[np.uint8]:
        """The picture as it is on disk: (h, w, 3) uint8 BGR."""
        return self.dataset.picture(index)

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """The network's input (N, 3, H, W) for some pictures, whether or not they have labels."""
        return normalise([self._picture(i) for i in indices])

    def _item(self, index: int) -> Item:
        return (self._picture(index), *self._label(index))

    def _augment(self, item: Item, rng: np.random.Generator) -> Item:
        return item if self.augment is None else self.augment(item, self.dataset.classes, rng)

    def _collate(self, items: Sequence[Item]) -> Batch:
        pictures, labels, existence = zip(*items)
        classes, exists = torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(existence))
        return Batch(normalise(pictures), classes.long(), exists.float())

    def _picture(self, index: int) -> NDArray[np.uint8]:
        found = self._pictures.get(index)
        if found is None:
            found = resize(self.dataset.picture(index), self.size)
            if self.cache:
                self._pictures[index] = found
        return found

    def _label(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        found = self._labels.get(index)
        if found is None:
            found = self.dataset.label(index, self.size, self.line_width)
            if self.cache:
                self._labels[index] = found
        return found
