"""The paper's comparisons at the size of this machine: one table, each run a row that is never trained twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.lanes.config import DEMO, LaneConfig, Model
from pydistill.recipes.lanes.evaluation import evaluate
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import Training
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.table import UNKNOWN, Column, Numbers, ResultsTable, Row, Runs
from pydistill.recipes.table import render as render_table


def _sad(name: str, paper: str = UNKNOWN, model: Model = "enet", **changes: Any) -> Row:
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


class Table(ResultsTable):
    """The table of lanes, ``lanes.json`` and ``lanes.md``.

    Rows that differ in SAD alone are the same until SAD starts, so those steps are trained once for each network and
    seed: their checkpoints stay in ``folder``.

    Args:
        folder: for scenes, checkpoints, results.
        fabric: device and precision.
        plan: how large.
        rows: which.
        console: where to say what happens.
    """

    name = "lanes"
    longest = 6.0

    def __init__(
        self, folder: Path, fabric: Fabric, plan: Plan, rows: Sequence[Row] = ROWS, console: Console | None = None
    ):
        super().__init__(folder, rows, plan.seeds, console)
        self.fabric, self.plan, self.rows = fabric, plan, rows

    def prepare(self) -> None:
        """Generates the scenes."""
        plan = self.plan
        root = write_tusimple(self.folder / "data", 0, plan.train, plan.test, workers=2)
        self.train = open_data(plan.config, root, "train", training=True)
        self.test = open_data(plan.config, root, "test")

    def group(self, row: Row) -> str:
        """The network."""
        return str(row.changes["model"])

    def share(self, row: Row) -> float:
        """What comes after SAD has started, with SAD."""
        config = self._config(row, 0)
        return 1 - config.start / config.steps if config.sad else 1.0

    def training(self, row: Row, seed: int) -> Training:
        """A new training of a row."""
        return Training(self._config(row, seed), self.train, fabric=self.fabric)

    def score(self, row: Row, seed: int) -> Numbers:
        """Trains one run, from the steps that it shares with others, and scores it."""
        training = self.training(row, seed)
        config = training.config
        for mark in sorted({self._config(r, seed).start for r in self.rows if self.group(r) == self.group(row)}):
            if 0 < mark <= (config.start if config.sad else config.steps):
                self._reach(training, mark)
        run_with_progress(training, f"{row.name}, seed {seed}", console=self.console)
        return evaluate(training.student, self.test, config).numbers

    def describe(self, numbers: Numbers) -> str:
        """The accuracy."""
        return f"accuracy {numbers['accuracy']:.4f}"

    def stamp(self) -> dict[str, Any]:
        """Configuration and scenes."""
        return {"config": self.plan.config.to_dict(), "train": self.plan.train, "test": self.plan.test}

    def render(self) -> str:
        """The table as Markdown."""
        return render(self.rows, self.results(), self.plan)

    def _config(self, row: Row, seed: int) -> LaneConfig:
        return replace(self.plan.config, seed=seed, **row.changes)

    def _reach(self, training: Training, mark: int) -> None:
        """Brings a training to a step up to which it is that of the plain loss, by loading or by training."""
        model, seed = training.name, training.config.seed
        path = self.folder / "checkpoints" / f"{model}-seed{seed}-step{mark}.pt"
        if path.exists():
            training.load(path)
        else:
            run_with_progress(training, f"{model}, seed {seed}, plain", mark, self.console)
            training.save(path)


def run(folder: Path, fabric: Fabric) -> None:
    """What ``pydistill train lanes --preset reproduce`` does; on a GPU larger pictures, whole ResNets, more seeds."""
    table = Table(folder, fabric, _ON_GPU if fabric.device.type == "cuda" else Plan())
    fabric.print(table.run(), f"table: {table.path.with_suffix('.md').resolve()}", sep="\n")


def render(rows: Sequence[Row], results: Runs, plan: Plan) -> str:
    """The table as Markdown; gains are over the same network with the plain loss."""
    plain = {row.changes["model"]: row.name for row in rows if not row.changes.get("sad")}
    columns = (
        Column("accuracy in %, mean", "accuracy", lambda v: f"{100 * v:.2f}"),
        Column("F1, mean", "f1", lambda v: f"{v:.3f}"),
    )
    return render_table(
        rows, results, plan.seeds, columns, gain="accuracy", against="against the plain loss, points, paired",
        baseline=lambda row: plain[row.changes["model"]], paper="the paper's accuracy",
    )  # fmt: skip
