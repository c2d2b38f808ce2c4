"""A first UniDistill: generated roads, a camera student alone and with a LiDAR teacher, one report."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.bev.config import STUDENT, TEACHER, BevConfig
from pydistill.recipes.bev.data import BEVData
from pydistill.recipes.bev.evaluation import evaluate
from pydistill.recipes.bev.generate import write_nuscenes
from pydistill.recipes.bev.metric import Scores
from pydistill.recipes.bev.network import BEVDetector
from pydistill.recipes.bev.run import SCENES, SEED, load_teacher, open_data
from pydistill.recipes.bev.training import Training
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.training import Row


@dataclass(frozen=True)
class Plan:
    """What a demo does.

    Args:
        config: of the students; others have UniDistill on.
        teacher: trained where the committed teacher is not wanted; its modality is the teacher's anyway.
        scenes: to train on and to test on, two samples each.
    """

    config: BevConfig = STUDENT
    teacher: BevConfig = TEACHER
    scenes: tuple[int, int] = SCENES


@dataclass
class Trained:
    """One network: its weights, its test scores, its log."""

    name: str
    network: BEVDetector
    scores: Scores
    history: list[Row] = field(default_factory=list)


@dataclass
class Result:
    """What a demo found; ``adapted`` learned with a convolution before the losses, ``distilled`` without."""

    plan: Plan
    train: BEVData
    test: BEVData
    untrained: Trained
    teacher: Trained
    plain: Trained
    distilled: Trained
    adapted: Trained
    seconds: dict[str, float]

    def failures(self) -> list[str]:
        """What a trained network should have beaten and did not, in words; empty when all is well."""
        floor = self.untrained.scores.mean_ap
        return [
            f"{net.name} does not beat the untrained network: mAP {net.scores.mean_ap:.4f} against {floor:.4f}"
            for net in (self.teacher, self.plain, self.distilled, self.adapted)
            if not net.scores.mean_ap > floor
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
        workers: processes that read samples ahead.
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
        root = write_nuscenes(self.folder / "data", SEED, *plan.scenes, size=plan.config.size)
        self.train = open_data(plan.config, root, "train", training=True)
        self.test = open_data(plan.config, root, "val")
        lap("scenes")
        untrained = self._scored("untrained", Training(plan.config, self.train, fabric=self.fabric).student)
        teacher, its = self._teacher()
        lap("teacher")
        told = replace(plan.config, unidistill=True)
        students = {
            f"{plan.config.modality} alone": plan.config,
            "with UniDistill": told,
            "with UniDistill, adapter": replace(told, adapter="1x1"),
        }
        trained = []
        for name, config in students.items():
            trained.append(self._student(name, config, (teacher.network, its)))
            lap(name)
        seconds["all"] = time.perf_counter() - began
        plain, distilled, adapted = trained
        return Result(plan, self.train, self.test, untrained, teacher, plain, distilled, adapted, seconds)

    def _teacher(self) -> tuple[Trained, BevConfig]:
        name = f"{self.plan.teacher.modality} teacher"
        if self.from_scratch:
            return self._student(name, self.plan.teacher, None), self.plan.teacher
        network, config = load_teacher(self.plan.teacher.modality, self.teacher)
        self.fabric.to_device(network)
        return self._scored(name, network), config

    def _student(self, name: str, config: BevConfig, teacher: tuple[BEVDetector, BevConfig] | None) -> Trained:
        folder = self.folder / name.replace(",", "").replace(" ", "-")
        last = folder / "last.pt"
        if not self.resume:
            last.unlink(missing_ok=True)
        training = Training(config, self.train, self.test, self.fabric, folder, self.workers, teacher)
        if last.exists():
            training.load(last)
        run_with_progress(training, name, console=self.console)
        return self._scored(name, training.student, training.history)

    def _scored(self, name: str, network: BEVDetector, history: list[Row] | None = None) -> Trained:
        found = evaluate(network, self.test, self.plan.config.grid)
        self.console.print(f"{name}: mAP {found.mean_ap:.4f}, NDS {found.nds:.4f}")
        return Trained(name, network, found, history or [])
