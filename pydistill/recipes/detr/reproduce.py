"""The paper's comparisons at the size of this machine: one table, each run a row that is never trained twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console
from torch import nn

from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.run import open_data
from pydistill.recipes.detr.config import STUDENT, DetrConfig
from pydistill.recipes.detr.evaluation import evaluate
from pydistill.recipes.detr.run import CLASSES, SCENES, SEED, load_teacher
from pydistill.recipes.detr.training import Training, load_student
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.table import UNKNOWN, Column, Numbers, ResultsTable, Row, Runs
from pydistill.recipes.table import render as render_table
from pydistill.recipes.training import export

_OFF = {"detrdistill": True, "instance": 0.0, "feature": 0.0, "relation": 0.0, "group": 0.0}
_ALL = {"detrdistill": True}
_LIGHT = {"width": 0.125}
_OWN_TEACHER = {"width": 0.45}  # of the other detectors, which learn for the student's steps
_TITLES = {
    "deformable_detr": "Deformable DETR",
    "conditional_detr": "Conditional DETR",
    "adamixer": "AdaMixer",
    "detr": "DETR",
}
_PAPERS = {
    "deformable_detr": ("COCO 44.1", "COCO 46.6, +2.5"),
    "conditional_detr": ("COCO 40.7", "COCO 42.9, +2.2"),
    "adamixer": ("COCO 42.3", "COCO 44.7, +2.4"),
}


def _row(name: str, paper: str = UNKNOWN, **changes: Any) -> Row:
    return Row(name, {**_OFF, **changes}, paper)


def _pairs(name: str, classes: str, boxes: str) -> Row:
    return _row(f"+ instances: {name}", instance=1.0, instance_class_pairs=classes, instance_box_pairs=boxes)


ALONE = Row("student alone", {}, "COCO 44.1 (Deformable DETR)")
SELF = Row("student, all terms, from itself as trained alone", _ALL)
ROWS: tuple[Row, ...] = (
    ALONE,
    Row("+ all terms", _ALL, "+2.5 Deformable DETR, +2.4 AdaMixer, +2.2 Conditional DETR"),
    _row("+ instances", "+1.4 AdaMixer", instance=1.0),
    _row("+ features", "+1.2 AdaMixer", feature=1.0),
    _row("+ the teacher's queries, its assignment", "+0.6 AdaMixer", group=1.0),
    _row("+ the teacher's queries, matched again", group=1.0, assignment="rematch"),
    _row("+ relation", relation=0.2),
    Row("+ all terms as released", _ALL | {"reference": "released"}, "+2.4 to +2.5 Deformable DETR"),
    _row("+ instances: from the last stage", instance=1.0, instance_stage="last"),
    _pairs("all pairs, classes and boxes", "all", "all"),
    _pairs("classes of all pairs", "all", "none"),
    _pairs("classes of positives", "positives", "none"),
    _pairs("classes of negatives", "negatives", "none"),
    _pairs("boxes of all pairs", "none", "all"),
    _pairs("boxes of positives", "none", "positives"),
    _pairs("boxes of negatives", "none", "negatives"),
    _row("+ features: whole map", feature=1.0, feature_region="none"),
    _row("+ features: inside boxes", feature=1.0, feature_region="boxes"),
    _row("+ features: queries without quality", feature=1.0, feature_region="query"),
    Row("lighter backbone: alone", _LIGHT, "COCO 40.0 (Deformable DETR, ResNet-18)"),
    Row("lighter backbone: all terms", _LIGHT | _ALL, "+3.3 (Deformable DETR, ResNet-18)"),
    SELF,
)
OTHERS: tuple[Row, ...] = tuple(
    Row(f"{title}: {kind}", {"detector": name} | changes, _PAPERS.get(name, (UNKNOWN, UNKNOWN))[place])
    for name, title in _TITLES.items()
    for place, (kind, changes) in enumerate((("alone", {}), ("all terms", _ALL)))
)


@dataclass(frozen=True)
class Plan:
    """How large the table is.

    Args:
        config: of all rows; each changes what its name says.
        train, test: scenes.
        seeds: each row is trained with each; gains are paired by seed. The other detectors are trained with the first.
    """

    config: DetrConfig = replace(STUDENT, evaluate_every=STUDENT.steps)
    train: int = SCENES[0]
    test: int = SCENES[1]
    seeds: tuple[int, ...] = (0, 1, 2)


_ON_GPU = replace(Plan(replace(STUDENT, steps=3000, evaluate_every=3000)), seeds=tuple(range(5)))


class Table(ResultsTable):
    """The table of detectors by queries, ``detr.json`` and ``detr.md``.

    Args:
        folder: for scenes, results, and the checkpoints that later rows learn from.
        fabric: device and precision.
        plan: how large.
        rows: to train.
        seeds: with which; None: those of the plan.
        teacher: None: the committed one.
        console: where to say what happens.
    """

    name = "detr"
    longest = 6.0

    def __init__(
        self,
        folder: Path,
        fabric: Fabric,
        plan: Plan,
        rows: Sequence[Row] = ROWS,
        seeds: Sequence[int] | None = None,
        teacher: nn.Module | None = None,
        console: Console | None = None,
    ):
        super().__init__(folder, rows, plan.seeds if seeds is None else seeds, console)
        self.fabric, self.plan, self.teacher = fabric, plan, teacher

    def prepare(self) -> None:
        """Generates the scenes, loads the teacher."""
        plan = self.plan
        root = write_coco(self.folder / "data", SEED, plan.train, plan.test, classes=CLASSES)
        self.train = open_data(plan.config, root, "train", training=True)
        self.test = open_data(plan.config, root, "val")
        self.teacher = self.teacher or load_teacher()[0]

    def group(self, row: Row) -> str:
        """The detector, with a teacher or without, with its queries or without."""
        changes = row.changes
        with_teacher = "with a teacher" if changes.get("detrdistill") else "alone"
        lent = " and its queries" if changes.get("detrdistill") and changes.get("group", 1.0) else ""
        return f"{changes.get('detector', self.plan.config.detector)} {with_teacher}{lent}"

    def training(self, row: Row, seed: int) -> Training:
        """A new training of a row."""
        config = replace(self.plan.config, seed=seed, **row.changes)
        teacher = self._teacher(row, seed) if config.detrdistill else None
        return Training(config, self.train, fabric=self.fabric, teacher=teacher)

    def score(self, row: Row, seed: int) -> Numbers:
        """Trains one run and scores it; beside a student alone, a teacher that it has."""
        training = self.training(row, seed)
        run_with_progress(training, f"{row.name}, seed {seed}", console=self.console)
        numbers = evaluate(training.student, self.test).finite
        teacher = None
        if row == ALONE:
            export(training, self._alone(seed))
            teacher = self.teacher
        elif row in OTHERS and not row.changes.get("detrdistill"):
            teacher = self._own_teacher(row.changes["detector"])
        if teacher is None:
            return numbers
        teaching = evaluate(self.fabric.to_device(teacher), self.test).finite
        return numbers | {f"teacher_{name}": value for name, value in teaching.items()}

    def describe(self, numbers: Numbers) -> str:
        """The average precision."""
        return f"AP {numbers['ap']:.4f}, AP50 {numbers['ap50']:.4f}"

    def stamp(self) -> dict[str, Any]:
        """Configuration and scenes."""
        return {"config": self.plan.config.to_dict(), "train": self.plan.train, "test": self.plan.test}

    def render(self) -> str:
        """The table as Markdown, with the rows that are not trained yet."""
        return render([*ROWS, *OTHERS], self.results(), self.plan)

    def _teacher(self, row: Row, seed: int) -> nn.Module | None:
        if row == SELF:
            if not self._alone(seed).exists():
                self._run(ALONE, seed)
            return load_student(self._alone(seed))[0]
        if "detector" in row.changes:
            return self._own_teacher(row.changes["detector"])
        return self.teacher

    def _alone(self, seed: int) -> Path:
        return self.folder / "alone" / f"{seed}.pt"

    def _own_teacher(self, detector: str) -> nn.Module:
        """The teacher of another detector, trained once."""
        path = self.folder / "teachers" / f"{detector}.pt"
        if not path.exists():
            config = replace(self.plan.config, detector=detector, seed=self.plan.seeds[0], **_OWN_TEACHER)  # type: ignore[arg-type]
            training = Training(config, self.train, fabric=self.fabric)
            run_with_progress(training, f"teacher of {detector}", console=self.console)
            export(training, path)
        return load_student(path)[0]


def run(folder: Path, fabric: Fabric) -> None:
    """What ``pydistill train detr --preset reproduce`` does; on a GPU longer, with more seeds."""
    plan = _ON_GPU if fabric.device.type == "cuda" else Plan()
    table = Table(folder, fabric, plan)
    table.run()
    others = Table(folder, fabric, plan, OTHERS, plan.seeds[:1], table.teacher)
    fabric.print(others.run(), f"table: {table.path.with_suffix('.md').resolve()}", sep="\n")


def render(rows: Sequence[Row], results: Runs, plan: Plan) -> str:
    """The table as Markdown. A row is compared with the student of its kind alone; teachers stand before those."""

    def percent(value: float) -> str:
        return f"{100 * value:.2f}"

    columns = [
        Column(f"{title}, mean", key, percent) for title, key in (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"))
    ]
    table = render_table(
        rows, results, plan.seeds, columns, gain="ap", against="AP against the same student alone, points, paired",
        baseline=baseline, paper="the paper's AP",
    )  # fmt: skip
    head, rule, *lines = table.splitlines()
    shown = [head, rule]
    for row, line in zip(rows, lines):
        taught = next((results[key] for key in results if key[0] == row.name and "teacher_ap" in results[key]), None)
        if taught:
            scores = " | ".join(percent(taught[f"teacher_{column.key}"]) for column in columns)
            shown.append(f"| {_teacher_name(row)} | {scores} |  |  |  |")
        shown.append(line)
    return "\n".join(shown) + "\n"


def baseline(row: Row) -> str:
    """The name of the row without a teacher that ``row`` is compared with."""
    kind, found, _ = row.name.partition(": ")
    return f"{kind}: alone" if found and not kind.startswith("+") else ALONE.name


def _teacher_name(row: Row) -> str:
    return "teacher" if row == ALONE else f"{row.name.partition(':')[0]}: teacher"
