"""Trains a detector by queries, with or without DETRDistill from a frozen teacher.

Reference: Chang et al. 2023 (DETRDistill), arXiv:2211.10156.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.export import register_dataclass

from pydistill.losses.detr import DETRDistillLoss, SetPrediction, SetTargets
from pydistill.losses.detr.presets import DETECTORS
from pydistill.recipes.dense.data import Batch, DenseData
from pydistill.recipes.detr.config import DetrConfig
from pydistill.recipes.detr.evaluation import evaluate
from pydistill.recipes.detr.lending import DetrOutput
from pydistill.recipes.detr.models import build
from pydistill.recipes.told import LossesOnly, Told
from pydistill.recipes.training import FREE, RESUMED, Row, TrainingLoop, make_optimizer, read_checkpoint, scales
from pydistill.schedule import Term

_TERM = "detr"
_SAMPLING = ("sampling_offsets", "reference_points")  # as Deformable DETR names them

register_dataclass(SetPrediction)  # the distiller looks for tensors in what a student returns


def build_model(config: DetrConfig, classes: int) -> Any:
    """The network of ``config``; ``softmax`` says whether its queries have one class each."""
    network = build(
        config.detector, classes, backbone=config.backbone, width=config.width, strides=config.strides,
        channels=config.channels, queries=config.queries, layers=config.layers, encoder_layers=config.encoder_layers,
        feedforward=config.feedforward, dropout=config.dropout, refine=config.refine,
    )  # fmt: skip
    network.softmax = DETECTORS[config.detector].background  # type: ignore[assignment]
    return network


def to_targets(batch: Batch, device: torch.device | str = "cpu") -> SetTargets:
    """What a detector is to find, as the loss takes it: boxes are shares of the network's input, padding included."""
    h, w = batch.pictures.shape[2:]
    low, high, extent = batch.boxes[..., :2], batch.boxes[..., 2:], torch.tensor([w, h])
    boxes = torch.cat([(low + high) / 2 / extent, (high - low) / extent], -1)
    sizes = torch.tensor([h, w]).expand(len(boxes), 2)
    return SetTargets(*(x.to(device) for x in (batch.labels, boxes, batch.counts, sizes)))


class Objective(nn.Module):
    """``DETRDistillLoss`` of a student's output, for a ``Term``; with it the detector's own loss of what its encoder
    selected.

    Args:
        loss: with its options.
        own: the same without a teacher's terms.
    """

    def __init__(self, loss: DETRDistillLoss, own: DETRDistillLoss):
        super().__init__()
        self.loss, self.own = loss, own

    def forward(self, student: DetrOutput, told: Told[DetrOutput, SetTargets]) -> dict[str, Tensor]:
        """The weighted terms."""
        teacher, truth = told.teacher, told.truth
        losses: dict[str, Tensor] = self.loss(
            student.prediction, teacher and teacher.prediction, truth, group=student.group
        )
        for auxiliary in student.auxiliary:
            for name, value in self.own(auxiliary.prediction, None, truth).items():
                losses[f"auxiliary_{name}"] = losses.get(f"auxiliary_{name}", 0.0) + value
        return losses


class Training(TrainingLoop[DetrConfig, Batch]):
    """The training of a detector; see ``TrainingLoop``.

    Args:
        config: what to train.
        data: pictures to train on.
        probe: pictures for the evaluations along the way; None for none.
        fabric: devices and precision; the best device of this machine in float32 where left out.
        folder: for ``metrics.csv``, TensorBoard events and ``last.pt``; None: nothing is written.
        workers: processes that read pictures ahead; 0 for none.
        teacher: a detector of the same kind with the student's classes, channels and strides; it is frozen and no part
            of a checkpoint. Not needed where no term of distillation has a weight.

    Raises:
        ValueError: where a term needs a teacher and there is none.
    """

    shown = ("classification", "l1", "giou", "instance_class", "feature", "group_giou")

    def __init__(
        self,
        config: DetrConfig,
        data: DenseData,
        probe: DenseData | None = None,
        fabric: Fabric | None = None,
        folder: Path | None = None,
        workers: int = 0,
        teacher: nn.Module | None = None,
    ):
        self.data, self.probe = data, probe
        torch.manual_seed(config.seed)
        self.student = build_model(config, len(data.dataset.classes)).to(memory_format=torch.channels_last)
        self.clip = config.clip
        needed = config.needed()
        if not needed:
            teacher = None
        elif teacher is None:
            raise ValueError(f"Training: expected a teacher for {', '.join(needed)}, got none")
        self.lends = "group" in needed
        if config.frozen:
            self.student.backbone.freeze()
        fabric = fabric or Fabric(devices=1)
        self.teacher = None if teacher is None else _frozen(fabric.to_device(teacher))
        objective = Objective(config.loss(), config.loss(distilled=False))
        term = Term(objective, "", None, targets=True, upcast=False)
        distiller = LossesOnly(self.student, None, {_TERM: term})
        groups = list(_groups(distiller, self.student.backbone, config.backbone_lr))
        optimizer = make_optimizer(
            config.optimizer, groups, config.lr, config.weight_decay, nesterov=False, fused=not scales(fabric)
        )
        super().__init__(config, distiller, optimizer, data, fabric, folder, workers)

    @property
    def name(self) -> str:
        """The detector and its backbone, in two words."""
        return f"{self.config.detector} {self.config.backbone}"

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms and their sum."""
        device = self.fabric.device
        pictures = batch.pictures.to(device, memory_format=torch.channels_last)
        teaching = None
        if self.teacher is not None:
            with torch.no_grad(), self.fabric.autocast():
                teaching = self.teacher(pictures)
        lent = teaching.queries if teaching and self.lends else None
        distilled = self.model(pictures, lent=lent, targets=Told(teaching, to_targets(batch, device)))
        return {name.removeprefix(f"{_TERM}."): value for name, value in distilled.losses.items()}, distilled.loss

    def score(self) -> Row | None:
        """Average precision on the probe."""
        if self.probe is None:
            return None
        return evaluate(self.student, self.probe, range(len(self.probe))[: self.config.probe]).finite

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
        state = read_checkpoint(path, "detr", RESUMED)
        self._restore(state, DetrConfig.from_dict(state["config"]), FREE)


def load_student(path: Path) -> tuple[nn.Module, DetrConfig, tuple[str, ...]]:
    """The trained network of a checkpoint in eval mode on the CPU, its configuration, the names of its classes.

    Raises:
        ValueError: for a file that is no checkpoint of such a training.
    """
    state = read_checkpoint(path, "detr", ["classes"])
    config, classes = DetrConfig.from_dict(state["config"]), tuple(state["classes"])
    student = build_model(config, len(classes))
    student.load_state_dict(state["student"])
    return student.eval(), config, classes


def check_pair(student: DetrConfig, teacher: DetrConfig) -> None:
    """Raises ValueError where the outputs of student and teacher cannot be compared."""
    names = ("detector", "strides", "channels", "refine")
    differing = [name for name in names if getattr(student, name) != getattr(teacher, name)]
    if differing:
        raise ValueError(f"Training: expected a teacher with the student's {', '.join(names)}, got other {differing}")


def _groups(distiller: nn.Module, backbone: nn.Module, share: float) -> Iterator[dict[str, Any]]:
    """The parameters that learn: with a share of the learning rate the backbone's and those of where attention samples,
    and the others.
    """
    slow = {id(p) for p in backbone.parameters()}
    if share != 1:  # else the order of the parameters, in which their gradients' norm is summed, stays as it is
        slow |= {id(p) for name, p in distiller.named_parameters() if any(part in name for part in _SAMPLING)}
    trained = [p for p in distiller.parameters() if p.requires_grad]
    yield {"params": [p for p in trained if id(p) in slow], "share": share}
    yield {"params": [p for p in trained if id(p) not in slow], "share": 1.0}


def _frozen(teacher: nn.Module) -> nn.Module:
    return teacher.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload,no-any-return]
