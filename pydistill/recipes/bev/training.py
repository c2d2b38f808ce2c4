"""Trains a detector in bird's-eye view, with or without UniDistill from a frozen teacher.

Reference: Zhou et al. 2023 (UniDistill), arXiv:2303.15083.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.export import register_dataclass

from pydistill.losses.unidistill import BEVPrediction, UniDistillLoss
from pydistill.recipes.bev.config import BevConfig
from pydistill.recipes.bev.data import Batch, BEVData
from pydistill.recipes.bev.evaluation import evaluate, on_device
from pydistill.recipes.bev.network import BEVDetector
from pydistill.recipes.bev.objective import detection_losses
from pydistill.recipes.told import LossesOnly, Told
from pydistill.recipes.training import FREE, RESUMED, Row, TrainingLoop, make_optimizer, read_checkpoint, scales
from pydistill.schedule import Term

_TERM = "bev"
register_dataclass(BEVPrediction)  # the distiller looks for tensors in what a student returns


def build_model(config: BevConfig) -> BEVDetector:
    """The network of ``config``."""
    return BEVDetector(
        config.modality, config.grid, low=config.low, high=config.high, head=config.head, blocks=config.blocks,
        depths=config.depths, backbone=config.backbone, width=config.width, stages=config.stages,
    )  # fmt: skip


class Sensors:
    """A batch for a network, which Fabric leaves alone."""

    def __init__(self, batch: Batch):
        self.batch = batch


class Student(nn.Module):
    """A detector that takes ``Sensors``."""

    def __init__(self, network: BEVDetector):
        super().__init__()
        self.network = network

    def forward(self, sensors: Sensors) -> BEVPrediction:
        """What it says of a batch."""
        prediction: BEVPrediction = self.network(sensors.batch)
        return prediction


class Objective(nn.Module):
    """The detector's own losses and what the teacher tells, of a student's prediction, for a ``Term``.

    Args:
        config: of the student.
        distillation: None for none.
    """

    def __init__(self, config: BevConfig, distillation: UniDistillLoss | None):
        super().__init__()
        self.grid, self.distillation = config.grid, distillation

    def forward(self, student: BEVPrediction, told: Told[BEVPrediction, Batch]) -> dict[str, Tensor]:
        """The weighted terms."""
        truth = told.truth
        losses = detection_losses(student, truth, self.grid)
        if self.distillation is not None and told.teacher is not None:
            losses |= self.distillation(student, told.teacher, truth.boxes, truth.valid)
        return losses


class Training(TrainingLoop[BevConfig, Batch]):
    """The training of a detector; see ``TrainingLoop``.

    Args:
        config: what to train.
        data: samples to train on.
        probe: samples for the evaluations along the way; None for none.
        fabric: devices and precision; the best device of this machine in float32 where left out.
        folder: for ``metrics.csv``, TensorBoard events and ``last.pt``; None: nothing is written.
        workers: processes that read samples ahead; 0 for none.
        teacher: a detector with the student's grid and its configuration; it is frozen and no part of a checkpoint.

    Raises:
        ValueError: where there is distillation and no teacher, or one that does not fit.
    """

    shown = ("heatmap", "box", "feature", "relation", "classes", "numbers")
    unit = "samples, six pictures each,"

    def __init__(
        self,
        config: BevConfig,
        data: BEVData,
        probe: BEVData | None = None,
        fabric: Fabric | None = None,
        folder: Path | None = None,
        workers: int = 0,
        teacher: tuple[nn.Module, BevConfig] | None = None,
    ):
        self.data, self.probe = data, probe
        torch.manual_seed(config.seed)
        self.student = build_model(config)
        self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.clip = config.clip
        distillation = None
        fabric = fabric or Fabric(devices=1)
        self.teacher: nn.Module | None = None
        if config.unidistill:
            if teacher is None:
                raise ValueError("Training: expected a teacher for UniDistill, got none")
            check_pair(config, teacher[1])
            frozen = teacher[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.teacher = fabric.to_device(frozen).eval().requires_grad_(False)
            distillation = config.loss(teacher[1])
        term = Term(Objective(config, distillation), "", None, targets=True, upcast=False)
        distiller = LossesOnly(Student(self.student), None, {_TERM: term})
        trained = [p for p in distiller.parameters() if p.requires_grad]
        optimizer = make_optimizer(
            config.optimizer,
            [{"params": trained}],
            config.lr,
            config.weight_decay,
            nesterov=False,
            fused=not scales(fabric),
        )
        super().__init__(config, distiller, optimizer, data, fabric, folder, workers)

    @property
    def name(self) -> str:
        """The modality and what tells it more."""
        return f"{self.config.modality} in bird's-eye view"

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms and their sum."""
        batch = on_device(batch, self.fabric.device)
        teaching = None
        if self.teacher is not None:
            with torch.no_grad(), self.fabric.autocast():
                teaching = self.teacher(batch)
        distilled = self.model(Sensors(batch), targets=Told(teaching, batch))
        return {name.removeprefix(f"{_TERM}."): value for name, value in distilled.losses.items()}, distilled.loss

    def score(self) -> Row | None:
        """Mean average precision and NDS on the probe."""
        if self.probe is None:
            return None
        found = evaluate(self.student, self.probe, self.config.grid, range(len(self.probe))[: self.config.probe])
        return {"map": found.mean_ap, "nds": found.nds}

    def statistics(self) -> Row:
        """Nothing but the losses."""
        return {}

    def meta(self) -> dict[str, Any]:
        """The names of the classes."""
        return {"classes": list(self.data.dataset.classes)}

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint of the same configuration, apart from how often is logged, evaluated and saved.

        Raises:
            ValueError: for another configuration; the message names what differs.
        """
        state = read_checkpoint(path, "bev", RESUMED)
        self._restore(state, BevConfig.from_dict(state["config"]), FREE)


def load_student(path: Path) -> tuple[BEVDetector, BevConfig]:
    """The trained network of a checkpoint in eval mode on the CPU, and its configuration.

    Raises:
        ValueError: for a file that is no checkpoint of such a training.
    """
    state = read_checkpoint(path, "bev", ["classes"])
    config = BevConfig.from_dict(state["config"])
    student = build_model(config)
    student.load_state_dict({name.removeprefix("network."): value for name, value in state["student"].items()})
    return student.eval(), config


def check_pair(student: BevConfig, teacher: BevConfig) -> None:
    """Raises ValueError where the outputs of student and teacher cannot be compared."""
    names = ["reach", "cells"] + (["low", "high"] if student.adapter == "none" else [])
    differing = [name for name in names if getattr(student, name) != getattr(teacher, name)]
    if differing:
        raise ValueError(f"Training: expected a teacher with the student's {', '.join(names)}, got other {differing}")
