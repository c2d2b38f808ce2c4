"""A first DETRDistill: generated scenes, a student without and with it, one report."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.fabric import Fabric
from rich.console import Console
from torch import nn

from pydistill.recipes.dense.data import DenseData
from pydistill.recipes.dense.demo import Trained
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.run import open_data
from pydistill.recipes.detr.config import STUDENT, TEACHER, DetrConfig
from pydistill.recipes.detr.evaluation import evaluate
from pydistill.recipes.detr.matches import lent_queries
from pydistill.recipes.detr.run import CLASSES, SCENES, SEED, load_teacher
from pydistill.recipes.detr.training import Training
from pydistill.recipes.files import write_whole
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.training import Row


@dataclass(frozen=True)
class Plan:
    """What a demo does.

    Args:
        config: of the students; others have DETRDistill on.
        teacher: trained where the committed teacher is not wanted.
        scenes: to train on and to test on.
        watched: pictures on whose boxes the assignment is watched.
    """

    config: DetrConfig = STUDENT
    teacher: DetrConfig = TEACHER
    scenes: tuple[int, int] = SCENES
    watched: int = 64


@dataclass
class Result:
    """What a demo found.

    Attributes:
        changed: shares of boxes that fell to another of the teacher's queries than an epoch before, by network.
    """

    plan: Plan
    train: DenseData
    test: DenseData
    untrained: Trained
    teacher: Trained
    plain: Trained
    distilled: Trained
    changed: dict[str, list[float]]
    seconds: dict[str, float]

    def failures(self) -> list[str]:
        """What a trained network should have beaten and did not, in words; empty when all is well."""
        floor = self.untrained.numbers["ap50"]
        return [
            f"{net.name} does not beat the untrained network: AP50 {net.numbers['ap50']:.4f} against {floor:.4f}"
            for net in (self.teacher, self.plain, self.distilled)
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
        untrained = self._scored("untrained", Training(plan.config, self.train, fabric=self.fabric).student)
        teacher = self._teacher()
        lap("teacher")
        plain, alone = self._student("student alone", plan.config, teacher.network)
        lap("student alone")
        distilled, taught = self._student(
            "student + DETRDistill", replace(plan.config, detrdistill=True), teacher.network
        )
        lap("student + DETRDistill")
        seconds["all"] = time.perf_counter() - began
        changed = {plain.name: alone, distilled.name: taught}
        return Result(plan, self.train, self.test, untrained, teacher, plain, distilled, changed, seconds)

    def _teacher(self) -> Trained:
        if self.from_scratch:
            return self._student("teacher", self.plan.teacher, None)[0]
        return self._scored("teacher", self.fabric.to_device(load_teacher(self.teacher)[0]))

    def _student(self, name: str, config: DetrConfig, teacher: nn.Module | None) -> tuple[Trained, list[float]]:
        folder = self.folder / name.replace(" ", "-").replace("-+-", "-")
        last = folder / "last.pt"
        if not self.resume:
            last.unlink(missing_ok=True)
        training = Training(config, self.train, self.test, self.fabric, folder, self.workers, teacher)
        if last.exists():
            training.load(last)
        watched = folder / "changed.json"
        changed: list[float] = json.loads(watched.read_text()) if training.step else []
        epoch, before = max(1, len(self.train) // config.batch), None
        while training.step < config.steps:
            run_with_progress(training, name, min(training.step + epoch, config.steps), console=self.console)
            if teacher is not None:
                found = lent_queries(training.student, teacher, self.test, self.plan.watched, config.detector)
                changed += [] if before is None else [float((found != before).float().mean())]
                before = found
                write_whole(watched, json.dumps(changed).encode())
        return self._scored(name, training.student, training.history), changed

    def _scored(self, name: str, network: nn.Module, history: list[Row] | None = None) -> Trained:
        found = evaluate(network, self.test)
        self.console.print(f"{name}: AP {found.numbers['ap']:.4f}, AP50 {found.numbers['ap50']:.4f}")
        return Trained(name, network, found, history or [])
