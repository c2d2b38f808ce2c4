"""Finds suites and runs them in this process, quietly: what ``pydistill bench`` does."""

import ast
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pydistill import ops
from pydistill.benchmarks.summary import summarise

FOLDER = Path(__file__).parent


def suites() -> dict[str, Path]:
    """The file of each suite, by its name."""
    return {file.stem.removeprefix("test_"): file for file in sorted(FOLDER.glob("test_*.py"))}


def docstring(suite: Path) -> str:
    """What a suite says of itself."""
    return ast.get_docstring(ast.parse(suite.read_text())) or ""


def subjects() -> dict[str, list[Path]]:
    """The suites of each name that can be asked for: their own, and the operators that a docstring begins with."""
    found = {name: [file] for name, file in suites().items()}
    for file in suites().values():
        for word in set(re.findall(r"\w+", docstring(file).split("\n\n")[0])) & set(ops.__all__):
            if word not in suites():
                found.setdefault(word, []).append(file)
    return found


def chosen(names: Sequence[str]) -> list[Path]:
    """The suites that ``names`` ask for, all of them where there are none; raises ValueError for an unknown name."""
    known = subjects()
    for name in names:
        if name not in known:
            near = ", ".join(get_close_matches(name, known, n=3)) or "none"
            raise ValueError(f"bench: expected an operator or a step that `--list` shows, got {name}; near it: {near}")
    return sorted({file for name in names or known for file in known[name]})


class Progress:
    """Says on the terminal which case runs, where there is a terminal."""

    def __init__(self) -> None:
        self.terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")  # pytest captures the other
        self.done = self.count = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Counts."""
        self.count = len(session.items)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Writes over the case before."""
        self.done += 1
        if self.terminal.isatty():
            print(
                f"\r{self.done}/{self.count} {nodeid.rpartition('::')[2]:<70.70}",
                end="",
                file=self.terminal,
                flush=True,
            )

    def pytest_sessionfinish(self) -> None:
        """Leaves an empty line."""
        if self.terminal.isatty():
            print(f"\r{'':<80}\r", end="", file=self.terminal)
        self.terminal.close()


def run(files: Sequence[Path], options: Mapping[str, object]) -> tuple[dict[str, Any] | None, str]:
    """Runs the suites ``files``.

    Args:
        files: of ``chosen``.
        options: of the suites, by their names without dashes.

    Returns:
        The summary, None where no case ran, and what pytest said where a case failed or none ran.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "benchmarks.json"
        arguments = [*map(str, files), f"--benchmark-json={report}"]
        arguments += [f"--{name}={value}" for name, value in options.items()]
        arguments += ["-c", os.devnull, f"--rootdir={FOLDER.parents[1]}"]  # whatever the user's project says
        arguments += ["--disable-plugin-autoload", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider"]
        arguments += ["-q", "-rs", "--tb=short", "-W", "ignore"]
        progress, said = Progress(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            status = pytest.main(arguments, plugins=[progress])
        written = report.exists() and report.stat().st_size
        found = json.loads(report.read_text()) if written else {"benchmarks": []}
    summary = summarise([found]) if found["benchmarks"] else None
    return summary, "" if status == 0 and summary else said.getvalue()
