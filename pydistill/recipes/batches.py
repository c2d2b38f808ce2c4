"""Batches of a data set of pictures for training, as a pure function of (seed, step).

The order of an epoch follows from (seed, epoch), and what augmentation draws for a picture from (seed, epoch, index).
Neither workers nor a cache nor a restart changes them.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pydistill.recipes.pictures import UnreadablePicture

_ORDER, _CHANGES = 1, 2  # streams of random numbers; not 0, as NumPy's (seed, epoch) and (seed, epoch, 0) are the same

Unreadable = Literal["raise", "skip"]
Item = TypeVar("Item")
Batch = TypeVar("Batch")


def normalise(pictures: Sequence[NDArray[np.uint8]], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pictures (H, W, 3) BGR of one size as a network's input (N, 3, H, W) float32 RGB, (x / 255 - mean) / std."""
    rgb = torch.from_numpy(np.stack(pictures)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    return (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


class TrainingBatches(ABC, Generic[Item, Batch]):
    """The batches of a training by step; what an item and a batch are is the subclass's.

    Args:
        unreadable: what becomes of a picture or label that cannot be decoded when training asks for it: an error, or
            the next readable one in its place, with one warning per file.
    """

    def __init__(self, unreadable: Unreadable):
        if unreadable not in ("raise", "skip"):
            raise ValueError(f"{type(self).__name__}: expected unreadable to be raise or skip, got {unreadable!r}")
        self.unreadable = unreadable
        self._skipped: set[int] = set()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _item(self, index: int) -> Item:
        """Picture and labels, unchanged."""

    @abstractmethod
    def _augment(self, item: Item, rng: np.random.Generator) -> Item:
        """A changed copy of an item for training."""

    @abstractmethod
    def _collate(self, items: Sequence[Item]) -> Batch:
        """The items as a batch."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """Some pictures with their labels, unchanged."""
        return self._collate([self._item(i) for i in indices])

    def training_batch(self, seed: int, step: int, size: int) -> Batch:
        """The batch of ``step``, counted over epochs, which leave out what does not fill a batch.

        Raises:
            ValueError: for fewer pictures than ``size``.
            UnreadablePicture: see ``unreadable``.
        """
        per_epoch = len(self) // size
        if per_epoch == 0:
            expected = f"expected at least {size} pictures for one batch"
            raise ValueError(f"{type(self).__name__}: {expected}, got {len(self)}")
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch, _ORDER)).permutation(len(self))
        chosen = order[place * size : (place + 1) * size].tolist()
        return self._collate([self._training_item(seed, epoch, index) for index in chosen])

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
        return self._augment(self._next_readable(index), np.random.default_rng((seed, epoch, index, _CHANGES)))

    def _next_readable(self, index: int) -> Item:
        """Item ``index``, or the first after it that can be read."""
        if self.unreadable == "raise":
            return self._item(index)
        name = type(self).__name__
        for i in ((index + k) % len(self) for k in range(len(self))):
            if i in self._skipped:
                continue
            try:
                return self._item(i)
            except UnreadablePicture as error:
                self._skipped.add(i)
                warnings.warn(f"{name}: the next picture takes the place of one: {error}", stacklevel=2)
        raise UnreadablePicture(f"{name}: expected a picture that can be read, got none among {len(self)}")


class _Steps(Dataset[Batch]):
    """The batches of a training by step."""

    def __init__(self, data: TrainingBatches[Any, Batch], seed: int, size: int):
        self.data, self.seed, self.size = data, seed, size

    def __getitem__(self, step: int) -> Batch:
        return self.data.training_batch(self.seed, step, self.size)


def _init_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads
