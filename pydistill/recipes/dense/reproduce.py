"""The paper's comparisons at the size of this machine: one table, each run a row that is never trained twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.dense.config import STUDENT, DenseConfig
from pydistill.recipes.dense.evaluation import evaluate
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.network import GFLDetector
from pydistill.recipes.dense.run import CLASSES, SCENES, SEED, load_teacher, open_data
from pydistill.recipes.dense.training import Training
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.table import UNKNOWN, Column, Numbers, ResultsTable, Row, Runs
from pydistill.recipes.table import render as render_table

_OFF = {"ld": True, "main_ld": 0.0, "vlr_ld": 0.0, "main_kd": 0.0}
_MAIN, _VLR, _KD = 0.25, 0.0625, 10.0  # the paper's and the released weights of LDLoss


def _row(name: str, paper: str = UNKNOWN, **changes: Any) -> Row:
    return Row(name, {**_OFF, **changes}, paper)


def _imitation(name: str, region: str, paper: str) -> Row:
    return _row(f"+ feature imitation: {name}", paper, imitation=2.0, imitation_region=region)


ALONE = Row("student alone", {}, "COCO 40.1; VOC 51.8")
ROWS: tuple[Row, ...] = (
    ALONE,
    _row("+ pseudo-box regression", pseudo_box=2.0),
    _row("+ Main LD", "COCO 41.1; VOC 53.0", main_ld=_MAIN),
    _row("+ Main LD + VLR LD", main_ld=_MAIN, vlr_ld=_VLR),
    _row("+ Main KD", main_kd=_KD),
    _row("+ Main KD + Main LD + VLR LD", "COCO 42.1", main_kd=_KD, main_ld=_MAIN, vlr_ld=_VLR),
    _row("+ VLR KD", "almost nothing", vlr_kd=_KD),
    _imitation("fine-grained", "fine_grained", "COCO 41.1"),
    _imitation("inside boxes", "inside", "COCO 40.7"),
    _imitation("general instances", "general_instance", "COCO 41.5"),
    _row("+ Main LD + VLR LD, gamma 0", "helps noticeably", main_ld=_MAIN, vlr_ld=_VLR, gamma=0.0),
    _row("+ Main LD + VLR LD, gamma 0.5", main_ld=_MAIN, vlr_ld=_VLR, gamma=0.5),
    _row("+ Main LD + VLR LD, without DFL", "slightly better", main_ld=_MAIN, vlr_ld=_VLR, dfl=0.0),
)  # fmt: skip
TEACHER_ROW = "teacher"


@dataclass(frozen=True)
class Plan:
    """How large the table is.

    Args:
        config: of all rows; each changes what its name says.
        train, test: scenes.
        seeds: each row is trained with each; gains are paired by seed.
    """

    config: DenseConfig = replace(STUDENT, evaluate_every=STUDENT.steps)
    train: int = SCENES[0]
    test: int = SCENES[1]
    seeds: tuple[int, ...] = (0, 1, 2)


_ON_GPU = replace(Plan(replace(STUDENT, batch=16, steps=3000, evaluate_every=3000)), seeds=tuple(range(5)))


class Table(ResultsTable):
    """The table of dense detectors, ``dense.json`` and ``dense.md``.

    Args:
        folder: for scenes and results.
        fabric: device and precision.
        plan: how large.
        rows: which.
        teacher: None: the committed one.
        console: where to say what happens.
    """

    name = "dense"
    longest = 0.9

    def __init__(
        self,
        folder: Path,
        fabric: Fabric,
        plan: Plan,
        rows: Sequence[Row] = ROWS,
        teacher: GFLDetector | None = None,
        console: Console | None = None,
    ):
        super().__init__(folder, rows, plan.seeds, console)
        self.fabric, self.plan, self.rows, self.teacher = fabric, plan, rows, teacher

    def prepare(self) -> None:
        """Generates the scenes, loads and scores the teacher."""
        plan = self.plan
        root = write_coco(self.folder / "data", SEED, plan.train, plan.test, classes=CLASSES)
        self.train = open_data(plan.config, root, "train", training=True)
        self.test = open_data(plan.config, root, "val")
        self.teacher = self.fabric.to_device(self.teacher or load_teacher())  # type: ignore[assignment]

    def group(self, row: Row) -> str:
        """With a teacher or without."""
        return "with a teacher" if row.changes.get("ld") else "student alone"

    def training(self, row: Row, seed: int) -> Training:
        """A new training of a row."""
        config = replace(self.plan.config, seed=seed, **row.changes)
        return Training(config, self.train, fabric=self.fabric, teacher=self.teacher)

    def score(self, row: Row, seed: int) -> Numbers:
        """Trains one run and scores it; the teacher is scored beside the student alone."""
        training = self.training(row, seed)
        run_with_progress(training, f"{row.name}, seed {seed}", console=self.console)
        numbers = evaluate(training.student, self.test).finite
        if row.changes:
            return numbers
        assert self.teacher is not None
        teacher = evaluate(self.teacher, self.test).finite
        return numbers | {f"teacher_{name}": value for name, value in teacher.items()}

    def describe(self, numbers: Numbers) -> str:
        """The average precision."""
        return f"AP {numbers['ap']:.4f}, AP50 {numbers['ap50']:.4f}"

    def stamp(self) -> dict[str, Any]:
        """Configuration and scenes."""
        return {"config": self.plan.config.to_dict(), "train": self.plan.train, "test": self.plan.test}

    def render(self) -> str:
        """The table as Markdown."""
        return render(self.rows, self.results(), self.plan)


def run(folder: Path, fabric: Fabric) -> None:
    """What ``pydistill train dense --preset reproduce`` does; on a GPU longer, with more seeds."""
    table = Table(folder, fabric, _ON_GPU if fabric.device.type == "cuda" else Plan())
    fabric.print(table.run(), f"table: {table.path.with_suffix('.md').resolve()}", sep="\n")


def render(rows: Sequence[Row], results: Runs, plan: Plan) -> str:
    """The table as Markdown; gains are over the student alone. The teacher's score stands first."""

    def percent(value: float) -> str:
        return f"{100 * value:.2f}"

    columns = [
        Column(f"{title}, mean", key, percent) for title, key in (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"))
    ]
    table = render_table(
        rows, results, plan.seeds, columns, gain="ap", against="AP against the student alone, points, paired",
        baseline=lambda row: ALONE.name, paper="the paper's AP",
    )  # fmt: skip
    alone = next((results[key] for key in results if key[0] == ALONE.name), None)
    if alone is None:
        return table
    teacher = " | ".join(percent(alone[f"teacher_{column.key}"]) for column in columns)
    head, rule, *rest = table.splitlines()
    return "\n".join([head, rule, f"| teacher | {teacher} |  |  |  |", *rest]) + "\n"
