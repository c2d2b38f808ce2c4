"""Batches of a lane data set at the size of a network.

Training batches are a pure function of (seed, step): the order of an epoch follows from (seed, epoch), and what
augmentation draws for a picture from (seed, epoch, index). Neither workers nor a cache nor a restart changes them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pydistill.recipes.lanes.augment import MEAN, STD, Augment, Item
from pydistill.recipes.lanes.datasets import LaneDataset
from pydistill.recipes.lanes.pictures import UnreadablePicture

_ORDER, _CHANGES = 1, 2  # streams of random numbers; not 0, as NumPy's (seed, epoch) and (seed, epoch, 0) are the same

Unreadable = Literal["raise", "skip"]
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
    rgb = torch.from_numpy(np.stack(pictures)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    return (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class LaneData(Generic[D_co]):
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
        if unreadable not in ("raise", "skip"):
            raise ValueError(f"LaneData: expected unreadable to be raise or skip, got {unreadable!r}")
        self.dataset, self.size, self.line_width = dataset, size, line_width
        self.augment, self.cache, self.unreadable = augment, cache, unreadable
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._labels: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}
        self._skipped: set[int] = set()

    def __len__(self) -> int:
        return len(self.dataset)

    def original(self, index: int) -> NDArray[np.uint8]:
        """The picture as it is on disk: (h, w, 3) uint8 BGR."""
        return self.dataset.picture(index)

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """The network's input (N, 3, H, W) for some pictures, whether or not they have labels."""
        return normalise([self._picture(i) for i in indices])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Some pictures with their labels, unchanged."""
        return _collate([self._item(i) for i in indices])

    def training_batch(self, seed: int, step: int, size: int) -> Batch:
        """The batch of ``step``, counted over epochs, which leave out what does not fill a batch.

        Raises:
            ValueError: for fewer pictures than ``size``.
            UnreadablePicture: see ``unreadable``.
        """
        per_epoch = len(self) // size
        if per_epoch == 0:
            raise ValueError(f"LaneData: expected at least {size} pictures for one batch, got {len(self)}")
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch, _ORDER)).permutation(len(self))
        chosen = order[place * size : (place + 1) * size].tolist()
        return _collate([self._training_item(seed, epoch, index) for index in chosen])

    def loader(self, seed: int, size: int, steps: Sequence[int], workers: int = 0) -> "DataLoader[Batch]":
        """``training_batch`` of each of ``steps`` in order, prefetched by worker processes.

        Args:
            seed, size: of ``training_batch``.
            steps: e.g. ``range(start, stop)``; ``range(start + rank, stop, ranks)`` for one of several processes.
            workers: processes that read ahead; 0 reads when asked. A cache is then each worker's own.
        """
        return DataLoader(
            _Steps(self, seed, size),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            worker_init_fn=_init_worker if workers else None,
        )

    def _training_item(self, seed: int, epoch: int, index: int) -> Item:
        item = self._next_readable(index)
        if self.augment is None:
            return item
        return self.augment(item, self.dataset.classes, np.random.default_rng((seed, epoch, index, _CHANGES)))

    def _next_readable(self, index: int) -> Item:
        """Item ``index``, or the first after it that can be read."""
        if self.unreadable == "raise":
            return self._item(index)
        for i in ((index + k) % len(self) for k in range(len(self))):
            if i in self._skipped:
                continue
            try:
                return self._item(i)
            except UnreadablePicture as error:
                self._skipped.add(i)
                warnings.warn(f"LaneData: the next picture takes the place of one: {error}", stacklevel=2)
        raise UnreadablePicture(f"LaneData: expected a picture that can be read, got none among {len(self)}")

    def _item(self, index: int) -> Item:
        return (self._picture(index), *self._label(index))

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


def _collate(items: Sequence[Item]) -> Batch:
    pictures, labels, existence = zip(*items)
    return Batch(
        normalise(pictures), torch.from_numpy(np.stack(labels)).long(), torch.from_numpy(np.stack(existence)).float()
    )


class _Steps(Dataset[Batch]):
    """The batches of a training by step."""

    def __init__(self, data: LaneData[LaneDataset], seed: int, size: int):
        self.data, self.seed, self.size = data, seed, size

    def __getitem__(self, step: int) -> Batch:
        return self.data.training_batch(self.seed, step, self.size)


def _init_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads
