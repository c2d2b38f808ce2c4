"""Prints pydistill/_C.pyi: the compiled functions as mypy sees them, read from their C++ declarations.

python tools/stub.py > pydistill/_C.pyi        (tests/test_package.py fails when it is out of date)
"""

import re
from pathlib import Path

CSRC = Path(__file__).parent.parent / "csrc"
TYPES = {
    "const TensorView&": "Tensor | None",
    "const TensorList&": "Sequence[Tensor]",
    "double": "float",
    "bool": "bool",
    "int64_t": "int",
    "const std::vector<int64_t>&": "Sequence[int]",
    "const std::vector<double>&": "Sequence[float]",
    "std::vector<int64_t>": "list[int]",
}

HEAD = '''\
"""The compiled kernels and their choice, made by tools/stub.py from csrc. The first tensor names the device."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

ASK_TORCH: int
exchange_table: bool

class Kernels(Protocol):
    """One extension module: ``resource`` is the number of threads (CPU) or the stream (CUDA)."""

    __name__: str
    CUDA_VERSION: int  # these two: where the kernels are for CUDA
    ARCHITECTURES: str
'''
TAIL = """
cpu: Kernels
cuda: Kernels

def on(tensor: Tensor) -> tuple[Kernels, int]: ...
"""


def declaration(name: str) -> tuple[list[tuple[str, str]], str]:
    """The parameters (name, C++ type) and the result type of ``template <class Device> ... name(...)``."""
    pattern = re.compile(r"template <class Device>\s+([\w:<>]+) " + name + r"\(([^)]*)\)\s*\{")
    found = next(m for header in sorted((CSRC / "ops").glob("*.h")) if (m := pattern.search(header.read_text())))
    parameters = [re.sub(r"\s+", " ", p).strip() for p in found[2].split(",")]
    return [(p.rsplit(" ", 1)[1], p.rsplit(" ", 1)[0]) for p in parameters], found[1]


def kernels() -> list[str]:
    """The names that csrc/ops/functions.h lists."""
    return re.findall(r"\bX\((\w+)\)", (CSRC / "ops" / "functions.h").read_text())


def functions() -> list[str]:
    """The names that csrc/python/module.cpp binds: kernels first, then sizes."""
    module = (CSRC / "python" / "module.cpp").read_text()
    return kernels() + re.findall(r'm\.def\("(\w+)", \1<Device>\)', module)


def stub() -> str:
    """The text of the stub."""
    lines = []
    for name in functions():
        parameters, result = declaration(name)
        kernel = parameters[0][1] == "const Context&"
        typed = [f"{p}: {TYPES[t]}" for p, t in (parameters[1:] if kernel else parameters)]
        if kernel:  # the first tensor is always there
            typed = ["resource: int", typed[0].removesuffix(" | None"), *typed[1:]]
        returns = "None" if kernel else TYPES[result]
        lines.append(f"    def {name}(self, {', '.join(typed)}) -> {returns}: ...")
    return HEAD + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    print(stub(), end="")
