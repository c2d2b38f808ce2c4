"""A first localization distillation: generated scenes, a student without and with LD, one report."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.dense.config import STUDENT, TEACHER, DenseConfig
from pydistill.recipes.dense.data import DenseData
from pydistill.recipes.dense.evaluation import Evaluation, evaluate
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.network import GFLDetector
from pydistill.recipes.dense.run import CLASSES, SCENES, SEED, load_teacher, open_data
from pydistill.recipes.dense.training import Training
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.training import Row


@dataclass(frozen=True)
class Plan:
    """What a demo does.

    Args:
        config: of the students; the second has LD on.
        teacher: trained where the committed teacher is not wanted.
        scenes: to train on and to test on.
    """

    config: DenseConfig = STUDENT
    teacher: DenseConfig = TEACHER
    scenes: tuple[int, int] = SCENES


@dataclass
class Trained:
    """One network: its weights, its test score, its log."""

    name: str
    network: Any
    evaluation: Evaluation
    history: list[Row] = field(default_factory=list)

    @property
    def numbers(self) -> Row:
        """The scores of the test scenes."""
        return self.evaluation.numbers


@dataclass
class Result:
    """What a demo found."""

    plan: Plan
    train: DenseData
    test: DenseData
    untrained: Trained
    teacher: Trained
    plain: Trained
    ld: Trained
    seconds: dict[str, float]

    @property
    def ld_config(self) -> DenseConfig:
        """Of the student with LD."""
        return replace(self.plan.config, ld=True)

    def failures(self) -> list[str]:
        """What a trained network should have beaten and did not, in words; empty when all is well."""
        floor = self.untrained.numbers["ap50"]
        return [
            f"{net.name} does not beat the untrained network: AP50 {net.numbers['ap50']:.4f} against {floor:.4f}"
            for net in (self.teacher, self.plain, self.ld)
            if not net.numbers["ap50"] > floor
        ]


class Demo:
    """Runs a plan below a folder: ``data`` and one folder a training, with checkpoint and log.

    Args:
        plan: what to do.
        folder: where files go.
        fabric: device and precision.
        teacher: checkpoint of the teacher; None: the committed one.
        from_scratch: trains the teacher too.
        resume: go on from the checkpoints in ``folder`` instead of training again.
        workers: processes that read pictures ahead.
        console: where to say what happens.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        fabric: Fabric,
        *,
        teacher: Path | None = None,
        from_scratch: bool = False,
        resume: bool = False,
        workers: int = 0,
        console: Console | None = None,
    ):
        self.plan, self.folder, self.fabric = plan, folder, fabric
        self.teacher, self.from_scratch, self.resume, self.workers = teacher, from_scratch, resume, workers
        self.console = console or Console()

    def run(self) -> Result:
        """Generates, trains, evaluates; every number of the result comes from this run."""
        began = time.perf_counter()
        seconds: dict[str, float] = {}

        def lap(name: str) -> None:
            seconds[name] = time.perf_counter() - began - sum(seconds.values())

        plan = self.plan
        self.console.print(f"generating {plan.scenes[0]} + {plan.scenes[1]} scenes")
        root = write_coco(self.folder / "data", SEED, *plan.scenes, classes=CLASSES)
        self.train = open_data(plan.config, root, "train", training=True)
        self.test = open_data(plan.config, root, "val")
        lap("scenes")
        start = Training(plan.config, self.train, fabric=self.fabric).student
        untrained = self._scored("untrained", start)
        teacher = self._teacher()
        lap("teacher")
        plain = self._student("student alone", plan.config, None)
        lap("student alone")
        ld = self._student("student + LD", replace(plan.config, ld=True), teacher.network)
        lap("student + LD")
        seconds["all"] = time.perf_counter() - began
        return Result(plan, self.train, self.test, untrained, teacher, plain, ld, seconds)

    def _teacher(self) -> Trained:
        if self.from_scratch:
            return self._student("teacher", self.plan.teacher, None)
        return self._scored("teacher", self.fabric.to_device(load_teacher(self.teacher)))  # type: ignore[arg-type]

    def _student(self, name: str, config: DenseConfig, teacher: GFLDetector | None) -> Trained:
        folder = self.folder / name.replace(" ", "-").replace("-+-", "-")
        last = folder / "last.pt"
        if not self.resume:
            last.unlink(missing_ok=True)
        training = Training(config, self.train, self.test, self.fabric, folder, self.workers, teacher)
        if last.exists():
            training.load(last)
        run_with_progress(training, name, console=self.console)
        return self._scored(name, training.student, training.history)

    def _scored(self, name: str, network: GFLDetector, history: list[Row] | None = None) -> Trained:
        found = evaluate(network, self.test)
        self.console.print(f"{name}: AP {found.numbers['ap']:.4f}, AP50 {found.numbers['ap50']:.4f}")
        return Trained(name, network, found, history or [])
