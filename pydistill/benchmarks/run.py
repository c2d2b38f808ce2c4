"""Runs suites in this process, quietly: what ``pydistill bench`` does."""

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pydistill.benchmarks.suites import FOLDER
from pydistill.benchmarks.summary import summarise


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
