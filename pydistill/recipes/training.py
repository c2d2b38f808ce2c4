"""The loop that trains any recipe: batches shared by devices, log, checkpoints, resuming to the same bits."""

import csv
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from pydistill.distiller import Distiller
from pydistill.recipes.batches import TrainingBatches
from pydistill.recipes.files import read_saved, write_whole

Row = dict[str, float]
Optimizer = Literal["sgd", "adamw"]
B = TypeVar("B")
C = TypeVar("C", bound="Config")
S = TypeVar("S")

FREE = ("log_every", "evaluate_every", "probe", "save_every")  # may differ between a checkpoint and what goes on
RESUMED = ("terms", "optimizer", "precision", "step", "history")  # entries of a checkpoint that training goes on from
_PROCESSES = 1 << 20  # more than a training has


class Config(Protocol):
    """What the loop has to know of a configuration, a frozen dataclass."""

    @property
    def seed(self) -> int:
        """Of everything random."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""

    @property
    def steps(self) -> int:
        """Optimiser steps."""

    @property
    def batch(self) -> int:
        """Pictures a step, over all devices."""

    @property
    def log_every(self) -> int:
        """Steps between rows of the log."""

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations along the way."""

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""

    def learning_rate(self, step: int) -> float:
        """Learning rate of ``step``."""

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for a checkpoint."""


def make_optimizer(
    kind: Optimizer,
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    lr: float,
    weight_decay: float,
    nesterov: bool = True,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW; a group of ``parameters`` may name its ``share`` of the learning rate."""
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr, 0.9, weight_decay=weight_decay, nesterov=nesterov)
    return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay, fused=fused)


def scales(fabric: Fabric) -> bool:
    """Whether gradients are scaled, as in float16: then no fused optimiser can have them clipped."""
    return getattr(fabric.strategy.precision, "scaler", None) is not None


class TrainingLoop(ABC, Generic[C, B]):
    """A training that can stop after any step and go on from its checkpoint, to the same bits on the same CPU.

    Every random number is a function of (seed, step), so a checkpoint holds no state of a generator. On a GPU the
    atomics in the gradients of pooling and of interpolation make results differ in the last bits.

    Args:
        config: what to train.
        distiller: the student, with its teacher and terms.
        optimizer: of the distiller's parameters; a group may have a ``share`` of the learning rate.
        data: pictures to train on.
        fabric: devices and precision.
        folder: for ``metrics.csv``, TensorBoard events and ``last.pt``; None: nothing is written.
        workers: processes that read pictures ahead; 0 for none.
    """

    shown: tuple[str, ...] = ()  # losses that a progress bar shows
    unit = "pictures"  # what a batch is counted in
    clip: float = 0.0  # largest norm of the gradient; 0: any

    def __init__(
        self,
        config: C,
        distiller: Distiller,
        optimizer: torch.optim.Optimizer,
        data: TrainingBatches[Any, B],
        fabric: Fabric,
        folder: Path | None = None,
        workers: int = 0,
    ):
        self.config, self.distiller, self._data = config, distiller, data
        self.fabric, self.folder, self.workers = fabric, folder, workers
        self.model, self.optimizer = fabric.setup(distiller, optimizer)
        self.step, self.history = 0, list[Row]()

    @property
    @abstractmethod
    def name(self) -> str:
        """The network, in a word."""

    @abstractmethod
    def losses(self, batch: B) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms that are logged, and the scalar whose gradient trains."""

    @abstractmethod
    def score(self) -> Row | None:
        """Scores along the way; None for none."""

    @abstractmethod
    def meta(self) -> dict[str, Any]:
        """What a checkpoint says beside the weights: how to build the student again."""

    def statistics(self) -> Row:
        """What else is logged."""
        return self.distiller.statistics()

    def run(self, until: int | None = None, on_step: Callable[[int, Row], None] | None = None) -> list[Row]:
        """Trains up to step ``until``, or to the end; ``on_step`` sees the steps done and the latest row of the log."""
        row: Row = {}
        config = self.config
        end = config.steps if until is None else until
        board = (
            SummaryWriter(str(self.folder), purge_step=self.step)
            if self.folder and self.fabric.is_global_zero
            else None
        )
        for batch in self._batches(end):
            losses = self._train_step(batch)
            self.step += 1
            if self.step % config.log_every == 0 or self.step == config.steps:
                row = {"step": self.step, "learning_rate": config.learning_rate(self.step - 1)}
                row |= {name: float(loss) for name, loss in losses.items()}
                row |= self.statistics()
                self._log(row, board)
            if self.step % config.evaluate_every == 0 and (found := self.score()) is not None:
                self._log({"step": self.step, **found}, board)
            if self.folder and (self.step % config.save_every == 0 or self.step == end):
                self.save(self.folder / "last.pt")
            if on_step:
                on_step(self.step, row)
        if board:
            board.close()
        return self.history

    def _batches(self, end: int) -> Iterator[B]:
        """The batches up to step ``end``; each device has its own, of an equal share."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        share, left = divmod(self.config.batch, ranks)
        if left:
            kind = type(self.config).__name__
            raise ValueError(f"{kind}: expected a batch that {ranks} devices can share, got {self.config.batch}")
        steps = range(self.step * ranks + rank, end * ranks, ranks)
        return iter(self._data.loader(self.config.seed, share, steps, self.workers))

    def _train_step(self, batch: B) -> dict[str, Tensor]:
        """One step of the optimiser; returns the weighted terms."""
        seed, rank = self.config.seed, self.fabric.global_rank
        torch.manual_seed(((seed * 1_000_003 + self.step) * _PROCESSES + rank) % 2**63)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate(self.step) * group.get("share", 1.0)
        losses, total = self.losses(batch)
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        if self.clip:
            # float16's first steps overflow while its scaler finds its scale, and are left out
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.clip, error_if_nonfinite=not scales(self.fabric)
            )
        self.optimizer.step()
        self.distiller.advance()
        return {name: loss.detach() for name, loss in losses.items()}

    def _log(self, row: Row, board: SummaryWriter | None) -> None:
        self.history.append(row)
        for name, value in row.items():
            if board and name != "step":
                board.add_scalar(name, value, self.step)

    def save(self, path: Path) -> None:
        """Writes the student and what is needed to go on, and the log as ``metrics.csv``.

        A file appears whole or not at all: where the disk is full, the checkpoint before stays.

        Raises:
            OSError: where the file cannot be written.
        """
        if not self.fabric.is_global_zero:
            return
        state: dict[str, Any] = {
            "student": self.distiller.student_state_dict(),
            "terms": self.distiller.loss_modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "step": self.step,
            "history": self.history,
            "config": self.config.to_dict(),
            **self.meta(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(path, buffer.getvalue())
        if self.folder and self.history:
            write_whole(self.folder / "metrics.csv", _csv(self.history).encode())

    def _restore(self, state: dict[str, Any], saved: C, free: Sequence[str]) -> None:
        """Goes on from a checkpoint's ``state``, whose configuration may differ from this one's in ``free`` alone.

        Raises:
            ValueError: for another configuration; the message names what differs.
        """
        mine = self.config
        changed = [k for k in mine.to_dict() if k not in free and getattr(mine, k) != getattr(saved, k)]
        if changed:
            raise ValueError(
                f"Training.load: expected a checkpoint of the same configuration, got other values of {changed}"
            )
        self.distiller.student.load_state_dict(state["student"])
        self.distiller.loss_modules.load_state_dict(state["terms"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.history = state["step"], state["history"]
        self.distiller.set_extra_state(torch.tensor(self.step))


def last_checkpoint(output: Path, resume: bool) -> Path:
    """Where a training below ``output`` keeps its state; to resume there must be one (``FileNotFoundError``)."""
    last = output / "last.pt"
    if resume and not last.exists():
        raise FileNotFoundError(f"train: expected a checkpoint to resume from, got no {last}")
    return last


def export(training: TrainingLoop[Any, Any], path: Path) -> None:
    """Writes the student in float16, as a recipe's ``load_student`` reads it: the form of a committed teacher."""
    if not training.fabric.is_global_zero:
        return
    weights = training.distiller.student_state_dict()
    half = {name: v.half() if v.is_floating_point() else v for name, v in weights.items()}
    buffer = io.BytesIO()
    torch.save({"student": half, "config": training.config.to_dict(), **training.meta()}, buffer)
    write_whole(path, buffer.getvalue())


def falling_rate(done: float, drops: Sequence[float]) -> float:
    """The share of the learning rate that is left after a share of the steps.

    Args:
        done: of the steps, in [0, 1).
        drops: shares of the steps after which it falls to a tenth; empty: it falls as a cosine, to a hundredth.
    """
    if drops:
        return math.prod(0.1 for drop in drops if done >= drop)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def read_settings(kind: type[S], values: dict[str, Any], tuples: Iterable[str]) -> S:
    """A configuration of what its ``to_dict`` returned, or JSON made of it.

    Args:
        kind: the frozen dataclass.
        values: its fields by name.
        tuples: fields that JSON makes lists of.

    Raises:
        ValueError: for names that this version does not know.
    """
    unknown = sorted(set(values) - {f.name for f in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{kind.__name__}: expected the fields of this version, got {unknown}")
    return kind(**values | {name: tuple(values[name]) for name in tuples})


def read_checkpoint(path: Path, kind: str, names: Iterable[str]) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    Args:
        path: file that ``TrainingLoop.save`` has written.
        kind: of training, for the message.
        names: entries that it must have.

    Raises:
        OSError: for a file that cannot be opened.
        ValueError: for a file that is no such checkpoint, or a damaged one.
    """
    expected = f"read_checkpoint: expected a checkpoint of a {kind} training"
    state = read_saved(path, expected)
    if not isinstance(state, dict) or not {"student", "config", *names} <= set(state):
        raise ValueError(f"{expected}, got {path}")
    return state


def _csv(history: list[Row]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in history for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return table.getvalue()
