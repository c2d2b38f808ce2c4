"""Trains a dense detector, with or without localization distillation (LD) from a frozen teacher.

Reference: Zheng et al. 2022, arXiv:2102.12252; Li et al. 2020, arXiv:2006.04388.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pydistill.distiller import Distiller
from pydistill.losses.ld import DensePrediction, LDLoss
from pydistill.recipes.dense.anchors import grid_anchors, valid_anchors
from pydistill.recipes.dense.config import DISTILLED, DenseConfig
from pydistill.recipes.dense.data import Batch, DenseData
from pydistill.recipes.dense.evaluation import evaluate
from pydistill.recipes.dense.network import DenseOutput, GFLDetector
from pydistill.recipes.training import FREE, RESUMED, Row, TrainingLoop, export, make_optimizer, read_checkpoint
from pydistill.schedule import Term

__all__ = ["Objective", "Training", "build_model", "check_classes", "export", "load_student", "to_prediction"]

_TERM = "ld"


def build_model(config: DenseConfig, classes: int) -> GFLDetector:
    """The network of ``config``."""
    return GFLDetector(
        classes, config.width, config.backbone, config.strides, config.reg_max,
        fpn_channels=config.fpn_channels, convolutions=config.convolutions, blocks=config.blocks,
    )  # fmt: skip


def to_prediction(output: DenseOutput) -> DensePrediction:
    """A network's maps as the loss takes them."""
    return DensePrediction.from_levels(output.logits, output.sides)


class Objective(nn.Module):
    """``LDLoss`` of the outputs of two detectors on one batch, for a ``Term``.

    Args:
        loss: with its options.
    """

    def __init__(self, loss: LDLoss):
        super().__init__()
        self.loss = loss
        self.strides = [round(stride) for stride in loss.strides]
        self.imitates = loss.settings.weights["imitation"] > 0

    def forward(self, student: DenseOutput, *others: Any) -> dict[str, Tensor]:
        """The weighted terms; ``others`` are the teacher's output, if there is one, and the batch without pictures."""
        teacher, targets = others if len(others) == 2 else (None, others[0])
        anchors, level_sizes = grid_anchors(student.shapes, self.strides, device=student.logits[0].device)
        return self.loss(  # type: ignore[no-any-return]
            to_prediction(student), teacher and to_prediction(teacher), anchors, level_sizes,
            targets["boxes"], targets["labels"], targets["counts"],
            valid=valid_anchors(student.shapes, self.strides, targets["sizes"]),
            features=(student.features, teacher.features) if teacher and self.imitates else None,
        )  # fmt: skip


class Training(TrainingLoop[DenseConfig, Batch]):
    """The training of a detector; see ``TrainingLoop``.

    Args:
        config: what to train.
        data: pictures to train on.
        probe: pictures for the evaluations along the way; None for none.
        fabric: devices and precision; the best device of this machine in float32 where left out.
        folder: for ``metrics.csv``, TensorBoard events and ``last.pt``; None: nothing is written.
        workers: processes that read pictures ahead; 0 for none.
        teacher: a detector with the student's classes, strides, bins and, for imitation, channels of the pyramid;
            it is frozen and no part of a checkpoint. Not needed where no term of distillation has a weight.

    Raises:
        ValueError: where a term needs a teacher and there is none, or one that does not fit.
    """

    shown = ("classification", "box", "dfl", "main_ld", "vlr_ld", "main_kd")

    def __init__(
        self,
        config: DenseConfig,
        data: DenseData,
        probe: DenseData | None = None,
        fabric: Fabric | None = None,
        folder: Path | None = None,
        workers: int = 0,
        teacher: GFLDetector | None = None,
    ):
        self.data, self.probe = data, probe
        torch.manual_seed(config.seed)
        self.student: GFLDetector = build_model(config, len(data.dataset.classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = config.loss()
        needed = [name for name in DISTILLED if loss.settings.weights[name]]
        if not needed:
            teacher = None
        elif teacher is None:
            raise ValueError(f"Training: expected a teacher for {', '.join(needed)}, got none")
        else:
            _check_pair(self.student, teacher, loss.settings.weights["imitation"] > 0)
            teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.frozen:
            self.student.backbone.freeze()
        term = Term(Objective(loss), "", None if teacher is None else "", targets=True, upcast=False)
        distiller = Distiller(self.student, teacher, {_TERM: term})
        trained = [p for p in distiller.parameters() if p.requires_grad]
        optimizer = make_optimizer(config.optimizer, trained, config.lr, config.weight_decay, nesterov=False)
        super().__init__(config, distiller, optimizer, data, fabric or Fabric(devices=1), folder, workers)

    @property
    def name(self) -> str:
        """The backbone, in a word."""
        return self.config.backbone

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms and their sum."""
        device = self.fabric.device
        targets = {name: getattr(batch, name).to(device) for name in ("boxes", "labels", "counts", "sizes")}
        distilled = self.model(batch.pictures.to(device, memory_format=torch.channels_last), targets=targets)
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
        state = read_checkpoint(path, "dense", RESUMED)
        self._restore(state, DenseConfig.from_dict(state["config"]), FREE)


def load_student(path: Path) -> tuple[GFLDetector, DenseConfig, tuple[str, ...]]:
    """The trained network of a checkpoint in eval mode on the CPU, its configuration, the names of its classes.

    Raises:
        ValueError: for a file that is no checkpoint of a dense training.
    """
    state = read_checkpoint(path, "dense", ["classes"])
    config, classes = DenseConfig.from_dict(state["config"]), tuple(state["classes"])
    student = build_model(config, len(classes))
    student.load_state_dict(state["student"])
    return student.eval(), config, classes


def check_classes(mine: Sequence[str], theirs: Sequence[str], who: str) -> None:
    """Raises ValueError unless a network's classes are those of the data, in their order."""
    if tuple(mine) != tuple(theirs):
        raise ValueError(f"{who}: expected data of the network's {len(mine)} classes, got {len(theirs)} or other names")


def _check_pair(student: GFLDetector, teacher: GFLDetector, imitation: bool) -> None:
    """Raises where the outputs of student and teacher cannot be compared."""
    names = ("classes", "strides", "reg_max")
    differing = [name for name in names if getattr(student, name) != getattr(teacher, name)]
    channels = [net.fpn.output[0].out_channels for net in (student, teacher)]
    if imitation and channels[0] != channels[1]:
        differing.append("fpn_channels")
    if differing:
        raise ValueError(f"Training: expected a teacher of the student's {', '.join(names)}, got other {differing}")
