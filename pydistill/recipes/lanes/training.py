"""Trains a lane network, with or without self attention distillation (SAD).

The plan is the paper's (SGD with Nesterov momentum, polynomial decay, SAD after two thirds of the training); sizes and
steps are what ``LaneConfig`` says.

Reference: Hou et al. 2019, arXiv:1908.00821.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from pydistill.distiller import Distiller
from pydistill.losses.lanes import LaneLoss
from pydistill.losses.sad import SADLoss
from pydistill.recipes.lanes.config import LaneConfig
from pydistill.recipes.lanes.data import Batch, LaneData
from pydistill.recipes.lanes.enet import ENetSAD
from pydistill.recipes.lanes.evaluation import evaluate
from pydistill.recipes.lanes.resnet import ResNetSAD
from pydistill.recipes.training import FREE, RESUMED, Row, TrainingLoop, make_optimizer, read_checkpoint
from pydistill.schedule import Term

LaneNet = ENetSAD | ResNetSAD

_SAD = ("sad", "gamma", "pairs", "direction", "normalize", "sad_start", "sad_ramp")  # may differ before SAD starts


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


class Training(TrainingLoop[LaneConfig, Batch]):
    """The training of a lane network; see ``TrainingLoop``.

    Args:
        config: what to train.
        data: pictures to train on.
        probe: pictures for the evaluations along the way; None for none.
        fabric: devices and precision; the best device of this machine in float32 where left out.
        folder: for ``metrics.csv``, TensorBoard events and ``last.pt``; None: nothing is written.
        workers: processes that read pictures ahead; 0 for none.
    """

    shown = ("segmentation", "iou", "existence")

    def __init__(
        self,
        config: LaneConfig,
        data: LaneData[Any],
        probe: LaneData[Any] | None = None,
        fabric: Fabric | None = None,
        folder: Path | None = None,
        workers: int = 0,
    ):
        self.data, self.probe = data, probe
        torch.manual_seed(config.seed)
        model = build_model(config, data.dataset.classes)
        self.student: LaneNet = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.term = sad_term(config, self.student)
        assert isinstance(self.term.loss, SADLoss)
        self.health = self.term.loss.health
        distiller = Distiller(self.student, terms={"sad": self.term})
        optimizer = make_optimizer(config.optimizer, distiller.parameters(), config.lr, config.weight_decay)
        super().__init__(config, distiller, optimizer, data, fabric or Fabric(devices=1), folder, workers)
        self.loss = LaneLoss(reference=config.reference, alpha=config.alpha, beta=config.beta).to(self.fabric.device)

    @property
    def name(self) -> str:
        """The network, in a word."""
        return self.config.model

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted task losses, and their sum with SAD."""
        device = self.fabric.device
        distilled = self.model(batch.pictures.to(device, memory_format=torch.channels_last))
        labels, existence = batch.labels.to(device), batch.existence.to(device)
        losses: dict[str, Tensor] = self.loss(
            distilled.output.segmentation, distilled.output.existence, labels, existence
        )
        unused = 0.0 * distilled.output.existence.sum()  # DDP waits for P1's gradients, also where beta is 0
        return losses, torch.stack([*losses.values(), distilled.loss, unused.float()]).sum()

    def score(self) -> Row | None:
        """Scores of the probe."""
        if self.probe is None:
            return None
        return evaluate(self.student, self.probe, self.config, self.config.probe).numbers

    def statistics(self) -> Row:
        """SAD's terms and the health of its maps."""
        return super().statistics() | (self.health.statistics() if self.health else {})

    def meta(self) -> dict[str, Any]:
        """The number of classes."""
        return {"classes": self.data.dataset.classes}

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint.

        It must be of the same configuration, apart from how often is logged, evaluated and saved, and, up to the step
        at which SAD starts in both, from SAD.

        Raises:
            ValueError: for another configuration; the message names what differs.
        """
        state = read_checkpoint(path, "lane", RESUMED)
        saved = LaneConfig.from_dict(state["config"])
        before_sad = all(not c.sad or state["step"] <= c.start for c in (saved, self.config))
        self._restore(state, saved, FREE + (_SAD if before_sad else ()))


def load_student(path: Path) -> tuple[LaneNet, LaneConfig]:
    """The trained network of a checkpoint, in eval mode on the CPU, and its configuration.

    Raises:
        ValueError: for a file that is no checkpoint of a lane training.
    """
    state = read_checkpoint(path, "lane", ["classes"])
    config = LaneConfig.from_dict(state["config"])
    student = build_model(config, state["classes"])
    student.load_state_dict(state["student"])
    return student.eval(), config
