"""A first distillation: generated scenes, ENet with and without SAD, one report. ``pydistill demo`` runs it."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.lanes.config import DEMO, LaneConfig
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.evaluation import Evaluation, evaluate
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.metric import Score, mean_score
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import LaneNet, Training
from pydistill.recipes.progress import run_with_progress
from pydistill.recipes.training import Row

# On two cores, with both trainings. A plan fixes the steps, not the time, so that a slow machine gets the same numbers.
_STEPS_PER_MINUTE = 150


@dataclass(frozen=True)
class Plan:
    """What a demo does: scenes to generate, the training, the seeds it is repeated with."""

    train_scenes: int
    test_scenes: int
    config: LaneConfig
    seeds: tuple[int, ...] = (0,)

    @staticmethod
    def make(minutes: float = 5, quick: bool = False, seed: int = 0, repeats: int = 1) -> "Plan":
        """A plan for about ``minutes`` on two idle cores; ``quick`` is the shortest that still learns, for checks."""
        if not minutes >= 1 or repeats < 1:
            raise ValueError(f"Plan: expected minutes >= 1 and repeats >= 1, got {minutes} and {repeats}")
        seeds = tuple(range(seed, seed + repeats))
        if quick:
            config = replace(DEMO, seed=seed, steps=300, evaluate_every=100, probe=16)
            return Plan(160, 40, config, seeds)
        steps = round((minutes - 1) * _STEPS_PER_MINUTE / repeats) // 30 * 30
        return Plan(800, 200, replace(DEMO, seed=seed, steps=max(steps, 150)), seeds)


@dataclass
class Trained:
    """One network: its weights after training, its test score, its log."""

    name: str
    student: LaneNet
    evaluation: Evaluation
    history: list[Row]

    @property
    def score(self) -> Score:
        """The score of the test scenes."""
        return mean_score(self.evaluation.scores)


@dataclass
class Result:
    """What a demo found: per seed the networks without and with SAD, beside the two floors."""

    plan: Plan
    test: LaneData[Any]
    empty: Score
    untrained: Score
    pairs: list[tuple[Trained, Trained]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """What a trained network should have beaten and did not, in words; empty when all is well."""
        floors = (("the empty prediction", self.empty), ("the untrained network", self.untrained))
        return [
            f"{net.name} (seed {seed}) does not beat {name}: accuracy {mine.accuracy:.4f} against {floor.accuracy:.4f},"
            f" F1 {mine.f1:.4f} against {floor.f1:.4f}"
            for seed, pair in zip(self.plan.seeds, self.pairs)
            for net in pair
            for name, floor in floors
            for mine in [net.score]
            if not (mine.accuracy > floor.accuracy and mine.f1 > floor.f1)
        ]


class Demo:
    """Runs a plan below a folder: ``data`` and one folder a training, with checkpoint, log and predictions.

    Args:
        plan: what to do.
        folder: where files go.
        fabric: device and precision.
        resume: go on from the checkpoints in ``folder`` instead of training again.
        console: where to say what happens.
    """

    def __init__(self, plan: Plan, folder: Path, fabric: Fabric, resume: bool = False, console: Console | None = None):
        self.plan, self.folder, self.fabric, self.resume = plan, folder, fabric, resume
        self.console = console or Console()

    def run(self) -> Result:
        """Generates, trains, evaluates; every number of the result comes from this run."""
        began = time.perf_counter()
        train, test = self._data()
        config = self.plan.config
        untrained = Training(config, train, fabric=self.fabric).student
        empty, start = (mean_score(evaluate(net, test, config).scores) for net in (None, untrained))
        result = Result(self.plan, test, empty, start)
        result.seconds["scenes"] = time.perf_counter() - began
        for seed in self.plan.seeds:
            pair_began = time.perf_counter()
            result.pairs.append(self._pair(replace(config, seed=seed), train, test))
            result.seconds[f"seed {seed}"] = time.perf_counter() - pair_began
        result.seconds["all"] = time.perf_counter() - began
        return result

    def _data(self) -> tuple[LaneData[Any], LaneData[Any]]:
        plan = self.plan
        self.console.print(f"generating {plan.train_scenes} + {plan.test_scenes} road scenes")
        root = self.folder / "data"
        write_tusimple(root, plan.config.seed, plan.train_scenes, plan.test_scenes, workers=2)
        return open_data(plan.config, root, "train", training=True), open_data(plan.config, root, "test")

    def _pair(self, config: LaneConfig, train: LaneData[Any], test: LaneData[Any]) -> tuple[Trained, Trained]:
        """Trains without SAD, then with SAD from the step at which it starts: until there the two are the same."""
        start = self.folder / f"seed{config.seed}-start.pt"
        folders = [self.folder / f"seed{config.seed}-{name}" for name in ("plain", "sad")]
        if not self.resume:
            for path in (start, *(folder / "last.pt" for folder in folders)):
                path.unlink(missing_ok=True)
        nets = []
        for name, variant, folder in zip(("ENet", "ENet + SAD"), (config, replace(config, sad=True)), folders):
            training = Training(variant, train, test, self.fabric, folder)
            found = next((path for path in (folder / "last.pt", start) if path.exists()), None)
            if found:
                training.load(found)
            nets.append(self._finish(name, training, start, test))
        return nets[0], nets[1]

    def _finish(self, name: str, training: Training, start: Path, test: LaneData[Any]) -> Trained:
        """Trains to the end, leaving a checkpoint at ``start`` too, and scores the network."""
        about = f"{name}, seed {training.config.seed}"
        if training.step < training.config.start:
            run_with_progress(training, about, training.config.start, self.console)
            training.save(start)
        run_with_progress(training, about, console=self.console)
        found = evaluate(training.student, test, training.config, folder=training.folder)
        self.console.print(f"{name}: accuracy {found.numbers['accuracy']:.4f}, F1 {found.numbers['f1']:.4f}")
        return Trained(name, training.student, found, training.history)
