"""The paper's comparisons at the size of this machine: one table, each run a row that is never trained twice."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric
from rich.console import Console
from scipy import stats

from pydistill.recipes.files import write_whole
from pydistill.recipes.lanes.config import DEMO, LaneConfig, Model
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.evaluation import evaluate
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.run import run_with_progress, step_seconds
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import Training

_LONGEST = 6.0  # minutes that one run may take
_UNKNOWN = "not in the sources at hand"


@dataclass(frozen=True)
class Row:
    """One line of the table: a network and what is special about its training; ``paper`` is what the paper reports."""

    name: str
    changes: dict[str, Any]
    paper: str = _UNKNOWN

    @property
    def model(self) -> Model:
        """The network."""
        model: Model = self.changes["model"]
        return model


def _sad(name: str, paper: str = _UNKNOWN, model: Model = "enet", **changes: Any) -> Row:
    return Row(name, {"model": model, "sad": True, **changes}, paper)


ROWS: tuple[Row, ...] = (
    Row("ENet", {"model": "enet"}, "93.02"),
    _sad("ENet + SAD: E2 from E3, E3 from E4", "96.64"),
    _sad("ENet + SAD, low layers: E1 from E2", "worse than middle and high layers", pairs=((0, 1),)),
    _sad("ENet + SAD, not adjacent: E2 from E4", "worse than adjacent", pairs=((1, 3),)),
    _sad("ENet + SAD, reverse: E3 from E2, E4 from E3", "91.26", direction="reverse"),
    _sad("ENet + SAD from the first step", "nearly equal at the end", sad_start=0.0),
    _sad("ENet + SAD after a third", "nearly equal at the end", sad_start=1 / 3),
    Row("ResNet-18", {"model": "resnet18"}),
    _sad("ResNet-18 + SAD", model="resnet18"),
    Row("ResNet-34", {"model": "resnet34"}),
    _sad("ResNet-34 + SAD", model="resnet34"),
)


@dataclass(frozen=True)
class Plan:
    """How large the table is.

    Args:
        config: of all rows; each changes what its name says.
        train, test: scenes.
        seeds: each row is trained with each; gains are paired by seed.
    """

    config: LaneConfig = replace(DEMO, steps=450, width=0.25, evaluate_every=450)
    train: int = 800
    test: int = 400
    seeds: tuple[int, ...] = (0, 1, 2)


_ON_GPU = Plan(replace(DEMO, size=(192, 320), batch=16, steps=3000, evaluate_every=3000), 2000, 1000, tuple(range(5)))


class Table:
    """Trains what is missing of the table and writes it, after each run, as ``lanes.json`` and ``lanes.md``.

    Rows that differ in SAD alone are the same until SAD starts, so those steps are trained once for each network and
    seed: their checkpoints stay in ``folder``.

    Args:
        folder: for scenes, checkpoints, results.
        fabric: device and precision.
        plan: how large.
        rows: which.
        console: where to say what happens.
    """

    def __init__(
        self,
        folder: Path,
        fabric: Fabric,
        plan: Plan,
        rows: Sequence[Row] = ROWS,
        console: Console | None = None,
    ):
        self.folder, self.fabric, self.plan, self.rows = folder, fabric, plan, rows
        self.console = console or Console()
        self.path = folder / "lanes.json"

    def run(self) -> str:
        """Trains what is missing; returns the table."""
        plan = self.plan
        root = write_tusimple(self.folder / "data", 0, plan.train, plan.test, workers=2)
        train = open_data(plan.config, root, "train", training=True)
        test = open_data(plan.config, root, "test")
        self._forecast(train)
        for seed in plan.seeds:
            for row in self.rows:
                if (row.name, seed) not in self._results():
                    self._run(row, seed, train, test)
        return render(self.rows, self._results(), self.plan)

    def _config(self, row: Row, seed: int) -> LaneConfig:
        return replace(self.plan.config, seed=seed, **row.changes)

    def _results(self) -> dict[tuple[str, int], dict[str, Any]]:
        """What has been trained, by row and seed."""
        if not self.path.exists():
            return {}
        found = json.loads(self.path.read_text())
        if found["plan"] != self._stamp():
            raise ValueError(f"reproduce: expected results of the same plan in {self.path}, got another one's")
        return {(run["row"], run["seed"]): run for run in found["runs"]}

    def _stamp(self) -> dict[str, Any]:
        """What makes results comparable, as JSON has it."""
        plan = {"config": self.plan.config.to_dict(), "train": self.plan.train, "test": self.plan.test}
        stamp: dict[str, Any] = json.loads(json.dumps(plan))
        return stamp

    def _forecast(self, train: LaneData[Any]) -> None:
        """Says, from 20 steps of each network, how long the rest will take."""
        done, total = self._results(), 0.0
        for model in dict.fromkeys(row.model for row in self.rows):
            missing = [(row, s) for row in self.rows if row.model == model for s in self.plan.seeds]
            missing = [(row, s) for row, s in missing if (row.name, s) not in done]
            if not missing:
                continue
            config = self._config(missing[0][0], missing[0][1])
            seconds = step_seconds(Training(config, train, fabric=self.fabric), min(20, config.steps))
            whole = float(np.median(seconds)) * config.steps / 60
            minutes = sum(whole * self._share(row) for row, _ in missing)
            total += minutes
            late = f"; a run should take at most {_LONGEST:g} minutes" if whole > _LONGEST else ""
            self.console.print(f"{model}: {whole:.1f} minutes a run, {len(missing)} to go: {minutes:.0f} minutes{late}")
        if total:
            self.console.print(f"all: {total:.0f} minutes")

    def _share(self, row: Row) -> float:
        """The share of a row's steps that no row before it has trained."""
        config = self._config(row, 0)
        return 1 - config.start / config.steps if config.sad else 1.0

    def _run(self, row: Row, seed: int, train: LaneData[Any], test: LaneData[Any]) -> None:
        config = self._config(row, seed)
        training = Training(config, train, fabric=self.fabric)
        for mark in sorted({self._config(r, seed).start for r in self.rows if r.model == row.model}):
            if 0 < mark <= (config.start if config.sad else config.steps):
                self._reach(training, mark, row)
        run_with_progress(training, f"{row.name}, seed {seed}", console=self.console)
        found = evaluate(training.student, test, config)
        runs = [*self._results().values(), {"row": row.name, "seed": seed, **found.numbers}]
        write_whole(self.path, json.dumps({"plan": self._stamp(), "runs": runs}, indent=1).encode())
        table = render(self.rows, self._results(), self.plan)
        write_whole(self.path.with_suffix(".md"), table.encode())
        self.console.print(f"{row.name}, seed {seed}: accuracy {found.numbers['accuracy']:.4f}")

    def _reach(self, training: Training, mark: int, row: Row) -> None:
        """Brings a training to a step up to which it is that of the plain loss, by loading or by training."""
        path = self.folder / "checkpoints" / f"{row.model}-seed{training.config.seed}-step{mark}.pt"
        if path.exists():
            training.load(path)
        else:
            run_with_progress(training, f"{row.model}, seed {training.config.seed}, plain", mark, self.console)
            training.save(path)


def run(folder: Path, fabric: Fabric) -> None:
    """What ``pydistill train lanes --preset reproduce`` does; on a GPU larger pictures, whole ResNets, more seeds."""
    table = Table(folder, fabric, _ON_GPU if fabric.device.type == "cuda" else Plan())
    fabric.print(table.run(), f"table: {table.path.with_suffix('.md').resolve()}", sep="\n")


def render(rows: Sequence[Row], results: dict[tuple[str, int], dict[str, Any]], plan: Plan) -> str:
    """The table as Markdown; rows that are not trained yet say so."""
    lines = [
        "| | accuracy in %, mean | F1, mean | runs | against the plain loss, points, paired | the paper's accuracy |",
        "|---|---|---|---|---|---|",
    ]
    plain = {row.model: row.name for row in rows if not row.changes.get("sad")}
    for row in rows:
        runs = [results[row.name, seed] for seed in plan.seeds if (row.name, seed) in results]
        if not runs:
            lines.append(f"| {row.name} | not run | | 0 | | {row.paper} |")
            continue
        accuracy, f1 = (float(np.mean([run[key] for run in runs])) for key in ("accuracy", "f1"))
        gains = [
            100 * (run["accuracy"] - results[plain[row.model], run["seed"]]["accuracy"])
            for run in runs
            if (plain[row.model], run["seed"]) in results
        ]
        effect = "" if row.name == plain[row.model] else describe_gain(gains)
        lines.append(f"| {row.name} | {100 * accuracy:.2f} | {f1:.3f} | {len(runs)} | {effect} | {row.paper} |")
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
