"""A first distillation: generated scenes, ENet with and without SAD, one report. ``pydistill demo`` runs it."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from pydistill.recipes.lanes.augment import PRESETS
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.datasets import TuSimple
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.metric import Score
from pydistill.recipes.lanes.recipe import Evaluation, LaneConfig, Row, Training, evaluate

# AdamW and wide labels, because a few hundred steps must do: SGD on 15-pixel lines, the paper's, finds no lane by then.
_DEMO = LaneConfig(optimizer="adamw", lr=4e-3, line_width=32, sad_weight=0.1)
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
            config = replace(_DEMO, seed=seed, steps=150, evaluate_every=50, probe=16)
            return Plan(160, 40, config, seeds)
        steps = round((minutes - 1) * _STEPS_PER_MINUTE / repeats) // 30 * 30
        return Plan(800, 200, replace(_DEMO, seed=seed, steps=max(steps, 150)), seeds)


@dataclass
class Trained:
    """One network: its weights after training, its test score, its log."""

    name: str
    student: nn.Module
    evaluation: Evaluation
    history: list[Row]


@dataclass
class Result:
    """What a demo found: per seed the networks without and with SAD, beside the two floors."""

    plan: Plan
    test: LaneData[TuSimple]
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
            for mine in [net.evaluation.score]
            if not (mine.accuracy > floor.accuracy and mine.f1 > floor.f1)
        ]


class Demo:
    """Runs a plan below a folder: ``data``, ``checkpoints``, logs and predictions.

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
        untrained = evaluate(Training(config, train, fabric=self.fabric).student, test, config).score
        result = Result(self.plan, test, evaluate(None, test, config).score, untrained)
        result.seconds["scenes"] = time.perf_counter() - began
        for seed in self.plan.seeds:
            pair_began = time.perf_counter()
            result.pairs.append(self._pair(replace(config, seed=seed), train, test))
            result.seconds[f"seed {seed}"] = time.perf_counter() - pair_began
        result.seconds["all"] = time.perf_counter() - began
        return result

    def _data(self) -> tuple[LaneData[TuSimple], LaneData[TuSimple]]:
        plan, size, width = self.plan, self.plan.config.size, self.plan.config.line_width
        self.console.print(f"generating {plan.train_scenes} + {plan.test_scenes} road scenes")
        root = write_tusimple(self.folder / "data", plan.config.seed, plan.train_scenes, plan.test_scenes, workers=2)
        train, test = (TuSimple(root, [file]) for file in ("label_data_0313.json", "test_label.json"))
        return LaneData(train, size, width, augment=PRESETS["flip"]), LaneData(test, size, width)

    def _pair(self, config: LaneConfig, train: LaneData[TuSimple], test: LaneData[TuSimple]) -> tuple[Trained, Trained]:
        """Trains without SAD, then with SAD from the step at which it starts: until there the two are the same."""
        folder = self.folder / "checkpoints"
        start, plain, sad = (folder / f"seed{config.seed}-{name}.pt" for name in ("start", "plain", "sad"))
        if not self.resume:
            for path in (start, plain, sad):
                path.unlink(missing_ok=True)
        nets = []
        for name, variant, last in (("ENet", config, plain), ("ENet + SAD", replace(config, sad=True), sad)):
            training = Training(variant, train, test, self.fabric)
            found = next((path for path in (last, start) if path.exists()), None)
            if found:
                training.load(found)
            nets.append(self._finish(name, training, start, last, test))
        return nets[0], nets[1]

    def _finish(self, name: str, training: Training, start: Path, last: Path, test: LaneData[TuSimple]) -> Trained:
        """Trains to the end, leaving checkpoints at ``start`` and ``last``, and scores the network."""
        with self._progress() as progress:
            about = f"{name}, seed {training.config.seed}"
            task = progress.add_task(about, total=training.config.steps, completed=training.step, loss="")

            def show(step: int, row: Row) -> None:
                loss = f"loss {row['segmentation']:.3f}" if row else ""
                progress.update(task, completed=step, loss=loss)

            if training.step < training.config.start:
                training.run(training.config.start, show)
                training.save(start)
            training.run(None, show)
        training.save(last)
        training.write_log(self.folder / "logs" / last.stem)
        evaluation = evaluate(training.student, test, training.config)
        evaluation.write(self.folder / f"{last.stem}-predictions.json", test)
        score = evaluation.score
        self.console.print(f"{name}: accuracy {score.accuracy:.4f}, F1 {score.f1:.4f}")
        return Trained(name, training.student, evaluation, training.history)

    def _progress(self) -> Progress:
        text, loss = TextColumn("{task.description}"), TextColumn("{task.fields[loss]}")
        return Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), loss, console=self.console)
