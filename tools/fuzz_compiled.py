"""Wrong arguments for the compiled functions, which Python calls with what it has checked: pydistill._C.cpu.*

A case is a call that a public op makes, forward or backward, with up to three of its arguments replaced. It returns, or
raises ValueError or TypeError and has written nothing; in no case is memory touched that is no tensor's (fenced.py).
What one kernel makes for another is trusted: _TRUSTED names it.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import stub
import torch
from compiled_calls import Copies, in_memory, watching
from fenced import Fenced
from fuzz_cases.strange import SCALARS, strange
from fuzz_cases.values import Random

_TRUSTED = {"cell", "sorted", "order"}  # where key points read a map: their values are used as indices
_OPENCL = 4  # a DLPack device that no kernel is for

Call = tuple[str, list[Any]]


class Foreign:
    """A tensor that says it is on another device than the CPU."""

    def __init__(self, tensor: torch.Tensor, device: int):
        self.tensor, self.device = tensor.detach(), device

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self.tensor.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        behind_data = pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p)
        ctypes.c_int32.from_address(behind_data).value = self.device
        return capsule

    def __repr__(self) -> str:
        return f"DLPack device {self.device}{list(self.tensor.shape)} {self.tensor.dtype}"


def calls_of(run: Callable[[], None]) -> list[Call]:
    """The calls of compiled functions that ``run`` makes, with their arguments as they were before."""
    calls: list[Call] = []

    def around(name: str, kernel: Callable[..., Any], *args: Any) -> Any:
        copies = Copies()
        calls.append((name, [copies.of(x) for x in args]))
        return kernel(*args)

    with watching(around):
        run()
    return calls


@cache
def parameters(name: str) -> list[tuple[str, str]]:
    """The parameters of a compiled function: name and C++ type."""
    found, _ = stub.declaration(name)
    return [("resource", "int64_t"), *found[1:]] if found[0][1] == "const Context&" else found


def _strange_list(rng: Random, value: Any, change: Callable[[Any], Any]) -> Any:
    """A list of another length, one with an element changed, or no list."""
    kind = rng.randrange(5)
    if kind == 0 or not value:
        return rng.choice([None, [], [None], 1, "ab"])
    if kind == 1:
        return value[:-1]
    if kind == 2:
        return [*value, value[-1]]
    at = rng.randrange(len(value))
    return [change(x) if i == at else x for i, x in enumerate(value)]


def strange_argument(rng: Random, name: str, kind: str, value: Any) -> Any:
    """Something else in the place of an argument, by its C++ type."""
    if kind == "const TensorView&":
        if rng.random() < 0.1:
            return None
        if in_memory(value) and rng.random() < 0.1:
            return Foreign(value, rng.choice([torch.utils.dlpack.DLDeviceType.kDLCUDA, _OPENCL]))
        return strange(rng, torch.zeros_like(value) if name in _TRUSTED and in_memory(value) else value, True)
    if kind == "const TensorList&":
        return _strange_list(rng, value, lambda x: strange_argument(rng, name, "const TensorView&", x))
    if kind.startswith("const std::vector"):
        return _strange_list(rng, value, lambda _: rng.choice(SCALARS))
    return rng.choice(SCALARS)


def make_case(rng: Random, calls: list[Call], valid: bool) -> Call:
    """One of ``calls``, spoiled unless it shall be ``valid``."""
    name = rng.choice(sorted({name for name, _ in calls}))
    args = list(rng.choice([args for of, args in calls if of == name]))
    if not valid:
        known = parameters(name)
        for i in rng.sample(range(len(args)), rng.randint(1, min(3, len(args)))):
            args[i] = strange_argument(rng, *known[i], args[i])
    return name, args


def damage(kernel: Callable[..., Any], args: list[Any]) -> tuple[str | None, Exception | None]:
    """Calls ``kernel`` with ``args`` in fences: what it did to memory that it should not have, and what it raised."""
    fenced = Fenced()
    copies = [fenced.of(x) for x in args]
    try:
        kernel(*copies)
    except Exception as error:
        return "raised, and had written" if fenced.changed(outside=False) else None, error
    return "wrote outside the tensors" if fenced.changed(outside=True) else None, None
