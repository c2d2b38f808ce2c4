"""The paper's comparisons at the size of this machine: one table, each run a row that is never trained twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.bev.config import STUDENT, BevConfig
from pydistill.recipes.bev.evaluation import evaluate
from pydistill.recipes.bev.generate import write_nuscenes
from pydistill.recipes.bev.network import BEVDetector
from pydistill.recipes.bev.run import SCENES, SEED, load_teacher, open_data
from pydistill.recipes.bev.training import Training
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.table import UNKNOWN, Column, Numbers, ResultsTable, Row, Runs
from pydistill.recipes.table import render as render_table

_ON = {"unidistill": True}
_OFF = {"unidistill": True, "feature": 0.0, "relation": 0.0, "response": 0.0}
TEACHER = "teacher"  # the key of a row's changes that no configuration has: the modality of its teacher


def _row(name: str, paper: str = UNKNOWN, /, **changes: Any) -> Row:
    return Row(name, {TEACHER: "lidar", **changes}, paper)


ALONE = Row("camera alone", {}, "nuScenes 26.4 mAP, not verified")
ROWS: tuple[Row, ...] = (
    ALONE,
    _row("+ features", **_OFF | {"feature": None}),
    _row("+ relations", **_OFF | {"relation": None}),
    _row("+ responses", **_OFF | {"response": None}),
    _row("+ all terms", "+2.5 mAP, not verified", **_ON),
    _row("+ all terms, adapter 1x1", **_ON, adapter="1x1"),
    _row("+ all terms, adapter 3x3", **_ON, adapter="3x3"),
    _row("+ all terms, a tenth of the weights", **_ON | {"feature": 10.0, "relation": 4.0, "response": 1.0}),
    _row("+ all terms as released", **_ON, reference="released"),
)
OTHERS: tuple[Row, ...] = (
    Row("camera from fusion: all terms", {TEACHER: "fusion"} | _ON, "+3.2 mAP, not verified"),
    Row("lidar alone", {"modality": "lidar"}),
    Row("lidar from camera: all terms", {"modality": "lidar", TEACHER: "camera", "adapter": "1x1"} | _ON),
    Row("lidar from fusion: all terms", {"modality": "lidar", TEACHER: "fusion"} | _ON),
    Row("lidar from lidar: all terms", {"modality": "lidar", TEACHER: "lidar"} | _ON),
)


@dataclass(frozen=True)
class Plan:
    """How large the table is.

    Args:
        config: of all rows; each changes what its name says.
        train, test: scenes.
        seeds: each row is trained with each; gains are paired by seed. The other pairs are trained with the first.
    """

    config: BevConfig = replace(STUDENT, evaluate_every=STUDENT.steps)
    train: int = SCENES[0]
    test: int = SCENES[1]
    seeds: tuple[int, ...] = (0, 1, 2)


_ON_GPU = Plan(replace(STUDENT, steps=4000, evaluate_every=4000), seeds=tuple(range(5)))


class Table(ResultsTable):
    """The table of detectors in bird's-eye view, ``bev.json`` and ``bev.md``.

    Args:
        folder: for scenes and results.
        fabric: device and precision.
        plan: how large.
        rows: to train.
        seeds: with which; None: those of the plan.
        console: where to say what happens.
    """

    name = "bev"
    longest = 6.0

    def __init__(
        self,
        folder: Path,
        fabric: Fabric,
        plan: Plan,
        rows: Sequence[Row] = ROWS,
        seeds: Sequence[int] | None = None,
        console: Console | None = None,
    ):
        super().__init__(folder, rows, plan.seeds if seeds is None else seeds, console)
        self.fabric, self.plan = fabric, plan
        self.teachers: dict[str, tuple[BEVDetector, BevConfig]] = {}

    def prepare(self) -> None:
        """Generates the scenes."""
        plan = self.plan
        root = write_nuscenes(self.folder / "data", SEED, plan.train, plan.test, size=plan.config.size)
        self.train = open_data(plan.config, root, "train", training=True)
        self.test = open_data(plan.config, root, "val")

    def group(self, row: Row) -> str:
        """The modalities of student and teacher."""
        student = row.changes.get("modality", self.plan.config.modality)
        return f"{student} from {row.changes[TEACHER]}" if TEACHER in row.changes else f"{student} alone"

    def training(self, row: Row, seed: int) -> Training:
        """A new training of a row."""
        changes = {name: value for name, value in row.changes.items() if name != TEACHER}
        config = replace(self.plan.config, seed=seed, **changes)
        teacher = self._teacher(row.changes[TEACHER]) if config.unidistill else None
        return Training(config, self.train, fabric=self.fabric, teacher=teacher)

    def score(self, row: Row, seed: int) -> Numbers:
        """Trains one run and scores it; beside the camera alone, each teacher."""
        training = self.training(row, seed)
        run_with_progress(training, f"{row.name}, seed {seed}", console=self.console)
        numbers = self._scores(training.student)
        if row != ALONE:
            return numbers
        for modality in ("lidar", "fusion", "camera"):
            network = self._teacher(modality)[0]
            self.fabric.to_device(network)
            teaching = self._scores(network)
            numbers |= {f"{modality}_teacher_{name}": value for name, value in teaching.items()}
        return numbers

    def _scores(self, network: BEVDetector) -> Numbers:
        found = evaluate(network, self.test, self.plan.config.grid)
        return {"map": found.mean_ap, "nds": found.nds, **{f"error_{k}": v for k, v in found.errors.items()}}

    def _teacher(self, modality: Any) -> tuple[BEVDetector, BevConfig]:
        if modality not in self.teachers:
            self.teachers[modality] = load_teacher(modality)
        return self.teachers[modality]

    def describe(self, numbers: Numbers) -> str:
        """The scores."""
        return f"mAP {numbers['map']:.4f}, NDS {numbers['nds']:.4f}"

    def stamp(self) -> dict[str, Any]:
        """Configuration and scenes."""
        return {"config": self.plan.config.to_dict(), "train": self.plan.train, "test": self.plan.test}

    def render(self) -> str:
        """The table as Markdown, with the rows that are not trained yet."""
        return render([*ROWS, *OTHERS], self.results(), self.plan)


def run(folder: Path, fabric: Fabric) -> None:
    """What ``pydistill train bev --preset reproduce`` does; on a GPU longer, with more seeds."""
    plan = _ON_GPU if fabric.device.type == "cuda" else Plan()
    Table(folder, fabric, plan).run()
    others = Table(folder, fabric, plan, OTHERS, plan.seeds[:1])
    fabric.print(others.run(), f"table: {others.path.with_suffix('.md').resolve()}", sep="\n")


def baseline(row: Row) -> str:
    """The student of a row's modality alone."""
    return "lidar alone" if row.changes.get("modality") == "lidar" else ALONE.name


def render(rows: Sequence[Row], results: Runs, plan: Plan) -> str:
    """The table as Markdown, the teachers first. A row is compared with the student of its modality alone."""

    def percent(value: float) -> str:
        return f"{100 * value:.2f}"

    columns = [Column("mAP, mean", "map", percent), Column("NDS, mean", "nds", percent)]
    table = render_table(
        rows, results, plan.seeds, columns, gain="map", against="mAP against the same student alone, points, paired",
        baseline=baseline, paper="the paper's mAP",
    )  # fmt: skip
    head, rule, *lines = table.splitlines()
    teaching = next((run for (name, _), run in results.items() if name == ALONE.name), None)
    teachers = []
    for modality in ("lidar", "fusion", "camera"):
        if teaching is not None:
            scores = " | ".join(percent(teaching[f"{modality}_teacher_{column.key}"]) for column in columns)
            teachers.append(f"| {modality} teacher | {scores} |  |  |  |")
    return "\n".join([head, rule, *teachers, *lines]) + "\n"
