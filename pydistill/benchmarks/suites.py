"""Which suites there are, and which of them time an operator; read without importing them."""

import ast
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

FOLDER = Path(__file__).parent
CONTENDERS = (
    "by_direction", "compiled", "eager", "floor", "loop", "mmdet", "one_by_one", "released", "scipy",
    "torch_linear_assignment", "torchvision", "transformers",
)  # fmt: skip
"""What stands beside ours in any suite, and can be left out."""


def suites() -> dict[str, Path]:
    """The file of each suite, by its name."""
    return {file.stem.removeprefix("test_"): file for file in sorted(FOLDER.glob("test_*.py"))}


def docstring(suite: Path) -> str:
    """What a suite says of itself."""
    return ast.get_docstring(ast.parse(suite.read_text())) or ""


def timed(suite: Path) -> set[str]:
    """The operators that a suite imports and that the first paragraph of its docstring names."""
    imported = {
        name.name
        for node in ast.walk(ast.parse(suite.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "pydistill.ops"
        for name in node.names
    }
    return imported & set(re.findall(r"\w+", docstring(suite).split("\n\n")[0]))


def subjects() -> dict[str, list[Path]]:
    """The suites of each name that can be asked for: a suite's own, or an operator's that others share a suite with."""
    own = suites()
    found = {name: [file] for name, file in own.items()}
    for file in own.values():
        for name in timed(file) - own.keys():
            found.setdefault(name, []).append(file)
    return dict(sorted(found.items()))


def chosen(names: Sequence[str]) -> list[Path]:
    """The suites that ``names`` ask for, all of them where there are none; raises ValueError for an unknown name."""
    known = subjects()
    for name in names:
        if name not in known:
            near = ", ".join(get_close_matches(name, known, n=3)) or "none"
            raise ValueError(f"bench: expected an operator or a step that `--list` shows, got {name}; near it: {near}")
    return sorted({file for name in names or known for file in known[name]})


def scales(text: str) -> list[float]:
    """The numbers of ``--scale``, whole ones as int; raises ValueError where one is not positive."""
    try:
        found = [float(x) for x in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise ValueError(f"bench: expected a scale of positive numbers with commas between, got {text!r}")
    return [int(x) if x.is_integer() else x for x in found]


def skipped(text: str) -> list[str]:
    """The contenders of ``--skip``; raises ValueError for an unknown one."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise ValueError(f"bench: expected contenders of {', '.join(CONTENDERS)} to skip, got {', '.join(unknown)}")
    return names
