"""Writes down each call of a compiled function that the ops make: its arguments, and what their memory held.

    python tools/record_launches.py FILE [--op NAME] [--calls 10] [--dtypes float32 float16 ...]

The ops are called forward and backward as in tools/fuzz_cases, on the GPU, or with PYDISTILL_ISA=shim on the device
code that the CPU plays. `replay` repeats the file without Python, for compute-sanitizer: csrc/replay, where
recording.h describes the file.
"""

import argparse
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import fuzz
import numpy as np
import stub
import torch
from compiled_calls import watching
from fuzz_cases import VALID
from torch.overrides import TorchFunctionMode

import pydistill.ops
from pydistill import _C

UNWRITTEN, ADDRESS = 0xA5, 0xB7  # as in csrc/replay/recording.h
ALLOCATE = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
DLPACK_CODES = {torch.uint8: 1, torch.bfloat16: 4, torch.bool: 6}  # 2 for other floating point numbers, else 0


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The storage of ``tensor`` as bytes."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The tensors of an argument."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [x for x in items if isinstance(x, torch.Tensor)]


class FillsFreshMemory(TorchFunctionMode):
    """What is allocated without a value holds ``UNWRITTEN``, which shows who wrote where."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ALLOCATE:
            whole(result).fill_(UNWRITTEN)
        return result


class Recording:
    """Writes calls of compiled functions to ``file``; ``called`` has their names."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.called: set[str] = set()
        self.line("pydistill-launches 1")

    def begin(self, case: str) -> None:
        """The calls that follow are of another ``case``, and share no memory with those before."""
        self.alive: list[torch.Tensor] = []  # so that no storage takes the place of another
        self.numbers: dict[int, int] = {}  # address of a storage -> its number
        self.left: dict[int, bytes] = {}  # number -> what the last call left there
        self.line(f"case {case}")

    def call(self, name: str, function: Any, *args: Any) -> Any:
        """Calls ``function``; without a tensor it is one that computes a size, and is not written down."""
        tensors = [t for a in args for t in tensors_of(a)]
        if not tensors:
            return function(*args)
        self.called.add(name)
        self.alive += tensors
        storages = {self.number(t): whole(t.detach()) for t in tensors}
        self.line(f"call {name}")
        for number, storage in storages.items():
            now = storage.cpu().numpy().tobytes()
            unwritten = now == bytes([UNWRITTEN]) * len(now)
            state = "kept" if self.left.get(number) == now else "fresh" if unwritten else "given"
            self.line(f"before {number} {len(now)} {state}", now if state == "given" else None)
            self.left[number] = now
        self.line(f"arguments {len(args) - 1}")  # all but `resource`, which whoever repeats the call has
        for argument in args[1:]:
            self.line(self.text(argument))
        result = function(*args)
        for number, storage in storages.items():
            now = storage.cpu().numpy().tobytes()
            if self.left[number] == now:
                self.line(f"after {number} kept")
            else:
                self.line(f"after {number} written", self.repeatable(now, storages.values()))
            self.left[number] = now
        return result

    def text(self, argument: Any) -> str:
        """``argument`` in the words of the file."""
        if argument is None:
            return "none"
        if isinstance(argument, (list, tuple)):
            return " ".join([f"list {len(argument)}", *map(self.text, argument)])
        if not isinstance(argument, torch.Tensor):
            return f"number {float(argument)!r}" if isinstance(argument, float) else f"number {int(argument)}"
        code = DLPACK_CODES.get(argument.dtype, 2 if argument.is_floating_point() else 0)
        shape = [argument.ndim, *argument.shape, *argument.stride()]
        offset = argument.storage_offset() * argument.itemsize
        return " ".join(map(str, ["tensor", self.number(argument), offset, code, 8 * argument.itemsize, *shape]))

    def number(self, tensor: torch.Tensor) -> int:
        """The number of its storage."""
        return self.numbers.setdefault(tensor.untyped_storage().data_ptr(), len(self.numbers))

    @staticmethod
    def repeatable(data: bytes, storages: Iterable[torch.Tensor]) -> bytes:
        """``data`` with the words that are addresses in ``storages`` marked: they differ in every run."""
        words = np.frombuffer(data, np.uint64, len(data) // 8).copy()
        for storage in storages:
            inside = (words >= storage.data_ptr()) & (words < storage.data_ptr() + storage.numel())
            words[inside] = int.from_bytes(bytes([ADDRESS]) * 8)
        return words.tobytes() + data[words.nbytes :]

    def line(self, text: str, data: bytes | None = None) -> None:
        """One line, and the bytes that it announces."""
        self.file.write(text.encode() + b"\n")
        if data is not None:
            self.file.write(data + b"\n")


def on(device: str, dtype: torch.dtype, value: Any) -> Any:
    """``value`` on ``device``, as ``dtype`` where it is float32, still asking for its gradient."""
    if isinstance(value, list):
        return [on(device, dtype, x) for x in value]
    if isinstance(value, pydistill.ops.MatchProblem):
        return value._replace(**{name: on(device, dtype, x) for name, x in value._asdict().items()})
    if not isinstance(value, torch.Tensor):
        return value
    made = value.detach().to(device, dtype if value.dtype == torch.float32 else None)
    return made.requires_grad_(value.requires_grad)


def record(file: BinaryIO, names: list[str], calls: int, dtypes: list[torch.dtype]) -> set[str]:
    """Calls each op ``calls`` times, with one dtype after the other; returns the functions that this called."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recording = Recording(file)
    # One thread, so that the mode holds in backward too.
    with watching(recording.call, device), FillsFreshMemory(), torch.autograd.set_multithreading_enabled(False):
        for name in names:
            for seed in range(calls):
                dtype = dtypes[seed % len(dtypes)]
                torch.manual_seed(seed)
                arguments = VALID[name](random.Random(seed))
                recording.begin(f"{name} {seed} {str(dtype).removeprefix('torch.')}")
                fuzz.call(name, {key: on(device, dtype, value) for key, value in arguments.items()})
    return recording.called


def main() -> int:
    """Records; the exit status is 0 where every compiled function was called."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--op", choices=sorted(VALID), help="this op alone")
    parser.add_argument("--calls", type=int, default=10, help="of each op")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16"], help="in turn")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not _C.cpu.__name__.endswith("shim"):
        parser.error("expected a GPU, or PYDISTILL_ISA=shim, got neither: a recording of the CPU's kernels fits no GPU")
    dtypes = [getattr(torch, name) for name in options.dtypes]
    options.file.parent.mkdir(parents=True, exist_ok=True)
    with options.file.open("wb") as file:
        called = record(file, [options.op] if options.op else fuzz.available(), options.calls, dtypes)
    missing = set() if options.op else set(stub.kernels()) - called
    print(f"{options.file}: calls of {len(called)} functions", *(["but none of", *sorted(missing)] if missing else []))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
