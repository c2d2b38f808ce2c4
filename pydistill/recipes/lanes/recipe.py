"""Trains ENet on lanes, with or without self attention distillation (SAD), evaluates and predicts.

The plan is the paper's (SGD with Nesterov momentum, polynomial decay, SAD after two thirds of the training), at a size
that a CPU trains in minutes.

Reference: Hou et al. 2019, arXiv:1908.00821.
"""

import csv
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from pydistill.distiller import Distiller, Term
from pydistill.losses.sad import SADLoss
from pydistill.recipes.lanes.data import CLASSES, LaneData
from pydistill.recipes.lanes.datasets import TuSimple
from pydistill.recipes.lanes.enet import STAGES, ENet
from pydistill.recipes.lanes.metric import Score, decode_lanes, mean_score, score_frame
from pydistill.recipes.lanes.tusimple import prediction_line

Row = dict[str, float]
_BACKGROUND_WEIGHT = 0.4


@dataclass(frozen=True)
class LaneConfig:
    """Everything that a training depends on.

    Args:
        seed: of initial weights, batch order, dropout.
        size: height and width in pixels of the network's input, multiples of 8.
        line_width: of the labels, in pixels of 1280 x 720; TuSimple's is 15.
        steps: optimiser steps.
        batch: pictures a step.
        optimizer: ``"sgd"`` with Nesterov momentum 0.9, the paper's, or ``"adamw"``, which needs far fewer steps.
        lr: first learning rate; it falls as (1 - step / steps)^0.9 after ``warmup`` steps.
        smooth: side of the mean filter of the decoder, at ``size``.
        sad: whether SAD is on; with it off nothing else changes.
        sad_weight: of the summed SAD terms.
        sad_start: share of the steps before SAD starts.
        sad_ramp: share of the steps over which its weight grows from 0.
        log_every, evaluate_every: steps between rows of the log, and between evaluations of ``probe`` test pictures.
    """

    seed: int = 0
    size: tuple[int, int] = (96, 160)
    line_width: int = 15
    steps: int = 600
    batch: int = 8
    optimizer: str = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    warmup: int = 20
    smooth: int = 3
    sad: bool = False
    sad_weight: float = 0.1
    sad_start: float = 2 / 3
    sad_ramp: float = 0.05
    log_every: int = 10
    evaluate_every: int = 100
    probe: int = 48

    @property
    def start(self) -> int:
        """The step at which SAD starts."""
        return round(self.sad_start * self.steps)

    def learning_rate(self, step: int) -> float:
        """Learning rate of ``step``."""
        return self.lr * min(1.0, (step + 1) / self.warmup) * math.pow(1 - step / self.steps, 0.9)


def _optimizer(config: LaneConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, 0.9, weight_decay=config.weight_decay, nesterov=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay)
    raise ValueError(f"LaneConfig.optimizer: expected 'sgd' or 'adamw', got {config.optimizer!r}")


def _sad_term(config: LaneConfig) -> Term:
    """SAD between the stages, on energies divided by their mean: as they are, ENet's make the softmax one-hot."""
    weight, ramp = config.sad_weight if config.sad else 0.0, round(config.sad_ramp * config.steps)
    return Term(SADLoss(normalize="mean"), STAGES, weight=weight, start=config.start, ramp=ramp)


class Training:
    """A training that can stop after any step and go on from its checkpoint, to the same bits on the same machine.

    Args:
        config: what to train.
        data: pictures to train on.
        probe: pictures for the evaluations along the way; None for none.
        fabric: device and precision; the best device of this machine in float32 where left out.
    """

    def __init__(
        self,
        config: LaneConfig,
        data: LaneData[TuSimple],
        probe: LaneData[TuSimple] | None = None,
        fabric: Fabric | None = None,
    ):
        self.config, self.data, self.probe = config, data, probe
        self.fabric = fabric or Fabric(devices=1)
        torch.manual_seed(config.seed)
        self.student = ENet(CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.distiller = Distiller(self.student, terms={"sad": _sad_term(config)})
        self.model, self.optimizer = self.fabric.setup(self.distiller, _optimizer(config, self.distiller.parameters()))
        self.weight = torch.tensor([_BACKGROUND_WEIGHT] + [1.0] * (CLASSES - 1), device=self.fabric.device)
        self.step, self.history = 0, list[Row]()

    def run(self, until: int | None = None, on_step: Callable[[int, Row], None] | None = None) -> list[Row]:
        """Trains up to step ``until``, or to the end; ``on_step`` sees the steps done and the latest row of the log."""
        row: Row = {}
        while self.step < (self.config.steps if until is None else until):
            loss = self._train_step()
            self.step += 1
            if self.step % self.config.log_every == 0:
                row = {
                    "step": self.step,
                    "learning_rate": self.config.learning_rate(self.step - 1),
                    "segmentation": float(loss),
                }
                row |= self.distiller.statistics()
                self.history.append(row)
            if self.probe is not None and self.step % self.config.evaluate_every == 0:
                score = evaluate(self.student, self.probe, self.config, self.config.probe).score
                self.history.append({"step": self.step, "accuracy": score.accuracy})
            if on_step:
                on_step(self.step, row)
        return self.history

    def _train_step(self) -> Tensor:
        """One step of the optimiser; returns the segmentation loss."""
        config = self.config
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(self.step)
        batch = self.data.training_batch(config.seed, self.step, config.batch)
        pictures = batch.pictures.to(self.fabric.device, memory_format=torch.channels_last)
        distilled = self.model(pictures)
        task = F.cross_entropy(distilled.output, batch.labels.to(self.fabric.device), self.weight)
        self.optimizer.zero_grad()
        self.fabric.backward(task + distilled.loss)
        self.optimizer.step()
        self.distiller.advance()
        return task.detach()

    def save(self, path: Path) -> None:
        """Writes the student and what is needed to go on. The file appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "student": self.distiller.student_state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "step": self.step,
            "history": self.history,
            "config": asdict(self.config),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint, of this configuration or of one that differs in SAD only."""
        state = torch.load(path, map_location=self.fabric.device, weights_only=True)
        mine, saved = asdict(self.config), state["config"]
        changed = {k for k in mine if not k.startswith("sad") and mine[k] != saved.get(k)}
        if changed:
            raise ValueError(
                f"Training.load: expected a checkpoint of the same configuration, got other values of {sorted(changed)}"
            )
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        for device, rng in enumerate(state["cuda_rng"]):
            torch.cuda.set_rng_state(rng.cpu(), device)
        self.step, self.history = state["step"], state["history"]
        self.distiller.set_extra_state(torch.tensor(self.step))

    def write_log(self, folder: Path) -> None:
        """Writes the history as ``metrics.csv`` and as TensorBoard events."""
        folder.mkdir(parents=True, exist_ok=True)
        names = list(dict.fromkeys(name for row in self.history for name in row))
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.history)
        with SummaryWriter(str(folder)) as board:
            for row in self.history:
                for name, value in row.items():
                    if name != "step":
                        board.add_scalar(name, value, int(row["step"]))


@dataclass(frozen=True)
class Evaluation:
    """The score of a data set, and per picture its score and the predicted lanes in the TuSimple form."""

    score: Score
    frames: list[Score]
    lanes: list[list[list[int]]]
    milliseconds: float  # per picture, network and decoder

    def write(self, path: Path, data: LaneData[TuSimple]) -> None:
        """Writes a TuSimple prediction file, which the benchmark's own evaluator scores."""
        records = data.dataset.records[: len(self.lanes)]
        path.write_text("".join(prediction_line(r, lanes, self.milliseconds) for r, lanes in zip(records, self.lanes)))


def evaluate(
    student: nn.Module | None, data: LaneData[TuSimple], config: LaneConfig, count: int | None = None, batch: int = 16
) -> Evaluation:
    """Scores ``student`` on the first ``count`` pictures of ``data``; None as the student predicts no lane anywhere."""
    records = data.dataset.records[:count]
    began = time.perf_counter()
    lanes: list[list[list[int]]] = [[] for _ in records]
    if student is not None:
        starts = range(0, len(records), batch)
        lanes = [p for i in starts for p in predict(student, data, range(i, min(i + batch, len(records))), config)]
    milliseconds = (time.perf_counter() - began) * 1000 / len(records)
    frames = [score_frame(p, r.lanes, r.h_samples) for p, r in zip(lanes, records)]
    return Evaluation(mean_score(frames), frames, lanes, milliseconds)


@torch.no_grad()
def predict(
    student: nn.Module, data: LaneData[TuSimple], indices: Sequence[int], config: LaneConfig
) -> list[list[list[int]]]:
    """The lanes of some pictures, each a list of x per row of ``H_SAMPLES``."""
    training = student.training
    student.eval()
    device = next(student.parameters()).device
    pictures = data.pictures(indices).to(device, memory_format=torch.channels_last)
    probabilities = student(pictures).float().softmax(1).cpu().numpy()
    student.train(training)
    return [decode_lanes(np.ascontiguousarray(p), smooth=config.smooth) for p in probabilities]
