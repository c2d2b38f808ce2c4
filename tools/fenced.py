"""Copies of tensors in memory that tells what was touched: bytes of a pattern before it, a forbidden page behind it."""

import ctypes
import mmap
from typing import Any

import torch
from compiled_calls import Copies, Storage, in_memory

_PATTERN = 0xA5
_WORD = 8  # bytes: what a storage is aligned to
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect


def _bytes_of(t: torch.Tensor) -> torch.Tensor:
    """Where in its storage the bytes of ``t``'s elements are; an expanded dimension has one element."""
    at = torch.tensor(t.storage_offset())
    for n, stride in zip(t.shape, t.stride()):
        at = at[..., None] + torch.arange(n if stride else min(n, 1)) * stride
    return (at.reshape(-1, 1) * t.itemsize + torch.arange(t.itemsize)).flatten()


class _Fence:
    """The pages of one storage: reading or writing behind its end is a signal, writing before it shows."""

    def __init__(self, storage: Storage):
        size = storage.nbytes()
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.first = room - -(-size // _WORD) * _WORD
        region = mmap.mmap(-1, room + mmap.PAGESIZE)
        self.pages = torch.frombuffer(region, dtype=torch.uint8, count=room).fill_(_PATTERN)
        own = torch.frombuffer(region, dtype=torch.uint8, offset=self.first, count=size)
        own.copy_(torch.empty(0, dtype=torch.uint8).set_(storage))
        if _mprotect(ctypes.c_void_p(self.pages.data_ptr() + room), ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.storage = own.untyped_storage()
        self.before = self.pages.clone()
        self.owned = torch.zeros(room, dtype=torch.bool)


class Fenced:
    """Copies whose memory is watched: ``changed`` tells where it is no longer what it was."""

    def __init__(self) -> None:
        self._copies = Copies(self._allocate)
        self._fences: list[_Fence] = []

    def _allocate(self, storage: Storage) -> Storage:
        if storage.nbytes() == 0:
            return storage
        self._fences.append(_Fence(storage))
        return self._fences[-1].storage

    def of(self, value: Any) -> Any:
        """A watched copy of a tensor or of a list of them; all else as it is."""
        copy = self._copies.of(value)
        for x in copy if isinstance(copy, list) else [copy]:
            for fence in self._fences:
                if in_memory(x) and x.numel() and x.untyped_storage()._cdata == fence.storage._cdata:
                    fence.owned[fence.first + _bytes_of(x)] = True
        return copy

    def changed(self, outside: bool) -> bool:
        """Whether a byte differs; with ``outside``, one that belongs to no element of the tensors."""
        for fence in self._fences:
            differs = fence.pages != fence.before
            if (differs & ~fence.owned if outside else differs).any():
                return True
        return False
