"""The calls that Python makes to the compiled functions: watched, and their arguments copied."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from pydistill import _C

Kernel = Callable[..., Any]
Storage = torch.UntypedStorage


class _Watched:
    """A compiled module whose functions are called by ``around``."""

    def __init__(self, module: Any, around: Callable[..., Any]):
        self._module, self._around = module, around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        return partial(self._around, name, found) if callable(found) else found


@contextmanager
def watching(around: Callable[..., Any], device: str = "cpu") -> Iterator[None]:
    """Within, ``around(name, function, *arguments)`` stands for each call of a function compiled for ``device``."""
    module = getattr(_C, device)
    setattr(_C, device, _Watched(module, around))
    try:
        yield
    finally:
        setattr(_C, device, module)


def in_memory(value: Any) -> bool:
    """Whether ``value`` is a tensor with strides and memory."""
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta


class Copies:
    """Copies of tensors that share memory where the tensors do; ``allocate`` copies one storage."""

    def __init__(self, allocate: Callable[[Storage], Storage] = Storage.clone):
        self._allocate = allocate
        self._storages: dict[int, tuple[Storage, Storage]] = {}  # the original, kept alive, and its copy

    def of(self, value: Any) -> Any:
        """A copy of a tensor or of a list of them; all else as it is."""
        if isinstance(value, (list, tuple)):
            return [self.of(x) for x in value]
        if not in_memory(value):
            return value
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = storage, self._allocate(storage)
        copy = self._storages[key][1]
        return torch.empty(0, dtype=value.dtype).set_(copy, value.storage_offset(), value.shape, value.stride())
