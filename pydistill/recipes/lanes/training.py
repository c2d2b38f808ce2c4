"""Trains a lane network, with or without self attention distillation (SAD).

The plan is the paper's (SGD with Nesterov momentum, polynomial decay, SAD after two thirds of the training); sizes and
steps are what ``LaneConfig`` says.

Reference: Hou et al. 2019, arXiv:1908.00821.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from pydistill.distiller import Distiller, Term
from pydistill.losses.lanes import LaneLoss
from pydistill.losses.sad import SADLoss
from pydistill.recipes.files import write_whole
from pydistill.recipes.lanes.config import LaneConfig
from pydistill.recipes.lanes.data import Batch, LaneData
from pydistill.recipes.lanes.enet import ENetSAD
from pydistill.recipes.lanes.evaluation import evaluate
from pydistill.recipes.lanes.resnet import ResNetSAD

Row = dict[str, float]
LaneNet = ENetSAD | ResNetSAD

_FREE = ("log_every", "evaluate_every", "probe", "save_every")  # may differ between a checkpoint and what goes on
_SAD = ("sad", "gamma", "pairs", "direction", "normalize", "sad_start", "sad_ramp")  # may differ before SAD starts
_PROCESSES = 1 << 20  # more than a training has


def build_model(config: LaneConfig, classes: int = 5) -> LaneNet:
    """The network of ``config``, with ``classes`` channels of segmentation."""
    if config.model == "enet":
        return ENetSAD(config.size, classes, shared=config.shared, dilated=config.dilated)
    depth = int(config.model.removeprefix("resnet"))
    return ResNetSAD(depth, config.size, classes, dilated=config.dilated, width=config.width)


def sad_term(config: LaneConfig, model: LaneNet) -> Term:
    """SAD between the stages of ``model`` that the pairs of ``config`` name."""
    used = sorted({stage for pair in config.sad_pairs for stage in pair})
    if not used or used[0] < (-1 if config.model == "enet" else 0) or used[-1] >= len(model.stages):
        raise ValueError(f"LaneConfig: expected pairs of the stages 0 to 3 of {config.model}, got {config.sad_pairs}")
    names = [model.stages[stage] if stage >= 0 else "initial" for stage in used]
    loss = SADLoss(
        [(used.index(learner), used.index(teacher)) for learner, teacher in config.sad_pairs],
        reference=config.reference,
        direction=config.direction,
        normalize=config.normalize,
        names=names,
        health=True,
    )
    ramp = round(config.sad_ramp * config.steps)
    return Term(loss, names, weight=config.sad_weight, start=config.start, ramp=ramp, upcast=False)


def _optimizer(config: LaneConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, 0.9, weight_decay=config.weight_decay, nesterov=True)
    return torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay)


class Training:
    """A training that can stop after any step and go on from its checkpoint, to the same bits on the same CPU.

    Every random number is a function of (seed, step), so a checkpoint holds no state of a generator. On a GPU the
    atomics in the gradients of max-unpooling and of interpolation make results differ in the last bits.

    Args:
        config: what to train.
        data: pictures to train on.
        probe: pictures for the evaluations along the way; None for none.
        fabric: devices and precision; the best device of this machine in float32 where left out.
        folder: for ``metrics.csv``, TensorBoard events and ``last.pt``; None: nothing is written.
        workers: processes that read pictures ahead; 0 for none.
    """

    def __init__(
        self,
        config: LaneConfig,
        data: LaneData[Any],
        probe: LaneData[Any] | None = None,
        fabric: Fabric | None = None,
        folder: Path | None = None,
        workers: int = 0,
    ):
        self.config, self.data, self.probe, self.folder, self.workers = config, data, probe, folder, workers
        self.fabric = fabric or Fabric(devices=1)
        torch.manual_seed(config.seed)
        model = build_model(config, data.dataset.classes)
        self.student: LaneNet = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.term = sad_term(config, self.student)
        assert isinstance(self.term.loss, SADLoss)
        self.health = self.term.loss.health
        self.distiller = Distiller(self.student, terms={"sad": self.term})
        self.model, self.optimizer = self.fabric.setup(self.distiller, _optimizer(config, self.distiller.parameters()))
        self.loss = LaneLoss(reference=config.reference, alpha=config.alpha, beta=config.beta).to(self.fabric.device)
        self.step, self.history = 0, list[Row]()

    def run(self, until: int | None = None, on_step: Callable[[int, Row], None] | None = None) -> list[Row]:
        """Trains up to step ``until``, or to the end; ``on_step`` sees the steps done and the latest row of the log."""
        row: Row = {}
        end = self.config.steps if until is None else until
        board = (
            SummaryWriter(str(self.folder), purge_step=self.step)
            if self.folder and self.fabric.is_global_zero
            else None
        )
        for batch in self._batches(end):
            losses = self._train_step(batch)
            self.step += 1
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                row = self._row(losses)
                self._log(row, board)
            if self.probe is not None and self.step % self.config.evaluate_every == 0:
                found = evaluate(self.student, self.probe, self.config, self.config.probe)
                self._log({"step": self.step, **found.numbers}, board)
            if self.folder and (self.step % self.config.save_every == 0 or self.step == end):
                self.save(self.folder / "last.pt")
            if on_step:
                on_step(self.step, row)
        if board:
            board.close()
        return self.history

    def _batches(self, end: int) -> Iterator[Batch]:
        """The batches up to step ``end``; each device has its own, of an equal share."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        share, left = divmod(self.config.batch, ranks)
        if left:
            raise ValueError(f"LaneConfig: expected a batch that {ranks} devices can share, got {self.config.batch}")
        steps = range(self.step * ranks + rank, end * ranks, ranks)
        return iter(self.data.loader(self.config.seed, share, steps, self.workers))

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the optimiser; returns the weighted task losses."""
        config, device = self.config, self.fabric.device
        torch.manual_seed(((config.seed * 1_000_003 + self.step) * _PROCESSES + self.fabric.global_rank) % 2**63)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(self.step)
        distilled = self.model(batch.pictures.to(device, memory_format=torch.channels_last))
        labels, existence = batch.labels.to(device), batch.existence.to(device)
        losses: dict[str, Tensor] = self.loss(
            distilled.output.segmentation, distilled.output.existence, labels, existence
        )
        unused = 0.0 * distilled.output.existence.sum()  # DDP waits for P1's gradients, also where beta is 0
        self.optimizer.zero_grad()
        self.fabric.backward(torch.stack([*losses.values(), distilled.loss, unused.float()]).sum())
        self.optimizer.step()
        self.distiller.advance()
        return {name: loss.detach() for name, loss in losses.items()}

    def _row(self, losses: dict[str, Tensor]) -> Row:
        row: Row = {"step": self.step, "learning_rate": self.config.learning_rate(self.step - 1)}
        row |= {name: float(loss) for name, loss in losses.items()}
        row |= self.distiller.statistics()
        return row | (self.health.statistics() if self.health else {})

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
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "step": self.step,
            "history": self.history,
            "config": self.config.to_dict(),
            "classes": self.data.dataset.classes,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(path, buffer.getvalue())
        if self.folder and self.history:
            write_whole(self.folder / "metrics.csv", _csv(self.history).encode())

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint.

        It must be of the same configuration, apart from how often is logged, evaluated and saved, and, up to the step
        at which SAD starts in both, from SAD.

        Raises:
            ValueError: for another configuration; the message names what differs.
        """
        state = torch.load(path, map_location=self.fabric.device, weights_only=True)
        saved, mine = LaneConfig.from_dict(state["config"]), self.config
        before_sad = all(not c.sad or state["step"] <= c.start for c in (saved, mine))
        free = _FREE + (_SAD if before_sad else ())
        changed = [k for k in mine.to_dict() if k not in free and getattr(mine, k) != getattr(saved, k)]
        if changed:
            raise ValueError(
                f"Training.load: expected a checkpoint of the same configuration, got other values of {changed}"
            )
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.history = state["step"], state["history"]
        self.distiller.set_extra_state(torch.tensor(self.step))


def load_student(path: Path) -> tuple[LaneNet, LaneConfig]:
    """The trained network of a checkpoint, in eval mode on the CPU, and its configuration.

    Raises:
        ValueError: for a file that is no checkpoint of a lane training.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not {"student", "config", "classes"} <= set(state):
        raise ValueError(f"load_student: expected a checkpoint of a lane training, got {path}")
    config = LaneConfig.from_dict(state["config"])
    student = build_model(config, state["classes"])
    student.load_state_dict(state["student"])
    return student.eval(), config


def _csv(history: list[Row]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in history for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return table.getvalue()
