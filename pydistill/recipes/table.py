"""Comparisons at the size of this machine: one table, each run a row that is never trained twice."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Console
from scipy import stats

from pydistill.recipes.files import write_whole
from pydistill.recipes.progress import step_seconds
from pydistill.recipes.training import TrainingLoop

UNKNOWN = "not in the sources at hand"
Numbers = dict[str, float]
Runs = dict[tuple[str, int], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One line of a table: what is special about its training; ``paper`` is what the paper reports."""

    name: str
    changes: dict[str, Any]
    paper: str = UNKNOWN


@dataclass(frozen=True)
class Column:
    """A number of each run, whose mean over seeds is shown; ``key`` is its name among them."""

    title: str
    key: str
    show: Callable[[float], str]


class ResultsTable(ABC):
    """Trains what is missing of a table and writes it, after each run, as ``<name>.json`` and ``<name>.md``.

    Args:
        folder: for data, checkpoints, results.
        rows: which.
        seeds: each row is trained with each; gains are paired by seed.
        console: where to say what happens.
    """

    name: ClassVar[str]
    longest: ClassVar[float]  # minutes that one run should take at most

    def __init__(self, folder: Path, rows: Sequence[Row], seeds: Sequence[int], console: Console | None = None):
        self.folder, self._rows, self.seeds = folder, rows, seeds
        self.console = console or Console()
        self.path = folder / f"{self.name}.json"

    @abstractmethod
    def prepare(self) -> None:
        """Brings what all runs need."""

    @abstractmethod
    def group(self, row: Row) -> str:
        """What rows whose steps take as long have in common."""

    @abstractmethod
    def training(self, row: Row, seed: int) -> TrainingLoop[Any, Any]:
        """A new training of a row."""

    @abstractmethod
    def score(self, row: Row, seed: int) -> Numbers:
        """Trains one run and scores it."""

    @abstractmethod
    def describe(self, numbers: Numbers) -> str:
        """What is said after a run."""

    @abstractmethod
    def stamp(self) -> dict[str, Any]:
        """What makes results comparable, of plain types."""

    @abstractmethod
    def render(self) -> str:
        """The table as Markdown."""

    def share(self, row: Row) -> float:
        """The share of a row's steps that no row before it has trained."""
        return 1.0

    def run(self) -> str:
        """Trains what is missing; returns the table."""
        self.prepare()
        self._forecast()
        for seed in self.seeds:
            for row in self._rows:
                if (row.name, seed) not in self.results():
                    self._run(row, seed)
        return self.render()

    def results(self) -> Runs:
        """What has been trained, by row and seed."""
        if not self.path.exists():
            return {}
        found = json.loads(self.path.read_text())
        if found["plan"] != self._stamp():
            raise ValueError(f"reproduce: expected results of the same plan in {self.path}, got another one's")
        return {(run["row"], run["seed"]): run for run in found["runs"]}

    def _stamp(self) -> dict[str, Any]:
        """``stamp`` as JSON has it."""
        stamp: dict[str, Any] = json.loads(json.dumps(self.stamp()))
        return stamp

    def _forecast(self) -> None:
        """Says, from 20 steps of each group of rows, how long the rest will take."""
        done, total = self.results(), 0.0
        for group in dict.fromkeys(self.group(row) for row in self._rows):
            missing = [(row, s) for row in self._rows if self.group(row) == group for s in self.seeds]
            missing = [(row, s) for row, s in missing if (row.name, s) not in done]
            if not missing:
                continue
            training = self.training(*missing[0])
            steps = training.config.steps
            seconds = step_seconds(training, min(20, steps))
            whole = float(np.median(seconds)) * steps / 60
            minutes = sum(whole * self.share(row) for row, _ in missing)
            total += minutes
            late = f"; a run should take at most {self.longest:g} minutes" if whole > self.longest else ""
            self.console.print(f"{group}: {whole:.1f} minutes a run, {len(missing)} to go: {minutes:.0f} minutes{late}")
        if total:
            self.console.print(f"all: {total:.0f} minutes")

    def _run(self, row: Row, seed: int) -> None:
        numbers = self.score(row, seed)
        runs = [*self.results().values(), {"row": row.name, "seed": seed, **numbers}]
        write_whole(self.path, json.dumps({"plan": self._stamp(), "runs": runs}, indent=1).encode())
        write_whole(self.path.with_suffix(".md"), self.render().encode())
        self.console.print(f"{row.name}, seed {seed}: {self.describe(numbers)}")


def render(
    rows: Sequence[Row],
    results: Runs,
    seeds: Sequence[int],
    columns: Sequence[Column],
    *,
    gain: str,
    against: str,
    baseline: Callable[[Row], str],
    paper: str,
) -> str:
    """A table as Markdown; rows that are not trained yet say so.

    Args:
        rows: in order.
        results: by row and seed.
        seeds: those that count.
        columns: means over seeds.
        gain: the number whose difference from the baseline, times 100 and paired by seed, is given with an interval.
        against: title of that column.
        baseline: the name of the row that a row is compared with.
        paper: title of the paper's column.
    """
    titles = ["", *(column.title for column in columns), "runs", against, paper]
    lines = ["|" + "".join(f" {title} |" if title else " |" for title in titles), "|" + "---|" * len(titles)]
    for row in rows:
        runs = [results[row.name, seed] for seed in seeds if (row.name, seed) in results]
        if not runs:
            blank = " |" * (len(columns) - 1)
            lines.append(f"| {row.name} | not run |{blank} 0 | | {row.paper} |")
            continue
        means = [column.show(float(np.mean([run[column.key] for run in runs]))) for column in columns]
        base = baseline(row)
        gains = [100 * (run[gain] - results[base, run["seed"]][gain]) for run in runs if (base, run["seed"]) in results]
        effect = "" if row.name == base else describe_gain(gains)
        lines.append(f"| {row.name} | {' | '.join(means)} | {len(runs)} | {effect} | {row.paper} |")
    return "\n".join(lines) + "\n"


def describe_gain(gains: Sequence[float]) -> str:
    """The mean of paired differences in points and its 95% interval (Student's t)."""
    if len(gains) < 2:
        return f"{gains[0]:+.2f}, one run" if gains else ""
    mean, half = float(np.mean(gains)), interval(gains)
    shown = "" if abs(mean) > half else "; no effect shown at this scale"
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]{shown}"


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95% interval of the mean of at least two values, after Student."""
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def describe_effect(method: str, measure: str, gains: Sequence[float], scope: str) -> str:
    """What a method did to a measure, whichever way it fell, and how far that can be trusted.

    Args:
        method: its name.
        measure: with its article.
        gains: differences in points, paired by seed.
        scope: a sentence that says what an effect holds for.
    """
    mean = float(np.mean(gains))
    way = "raised" if mean > 0 else "lowered" if mean < 0 else "did not change"
    if len(gains) == 1:
        size = f" by {abs(mean):.2f} points" if mean else ""
        return (
            f"In this run {method} {way} {measure}{size}. This is one run with one seed: it shows that training works "
            "and is no evidence of a gain or of a loss. Repeat it over several seeds for an interval."
        )
    half = interval(gains)
    shown = f"{mean:+.2f} points, 95% interval [{mean - half:+.2f}, {mean + half:+.2f}]"
    if mean - half <= 0 <= mean + half:
        return f"No effect shown at this scale: over {len(gains)} seeds, paired, {method} changed {measure} by {shown}."
    return f"Over {len(gains)} seeds, paired, {method} {way} {measure}: {shown}. {scope}"
