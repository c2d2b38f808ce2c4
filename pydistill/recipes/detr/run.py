"""From folders and options to a training: what the commands share."""

from dataclasses import replace
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import nn

from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.run import open_data
from pydistill.recipes.detr.config import DetrConfig
from pydistill.recipes.detr.training import Training, build_model, check_pair, load_student
from pydistill.recipes.faults import Malformed
from pydistill.recipes.progress import rehearse, run_with_progress
from pydistill.recipes.resnet import load_backbone
from pydistill.recipes.training import export, last_checkpoint

COMMITTED = Path(__file__).with_name("teacher.pt")  # of `pydistill train detr --preset teacher`
SCENES, CLASSES = (2000, 300), 3  # to train on and to test on, and digits, where no folder is given
SEED = 0  # of these scenes, whatever the training's: the committed teacher has seen the ones to train on


def load_teacher(path: Path | None = None) -> tuple[nn.Module, DetrConfig]:
    """A trained detector and its configuration; the committed one unless told."""
    if path is not None and not path.exists():
        raise FileNotFoundError(f"train: expected the checkpoint of a teacher, got no {path}")
    return load_student(path or COMMITTED)[:2]


def train(
    config: DetrConfig,
    fabric: Fabric,
    root: Path | None,
    output: Path,
    *,
    teacher: Path | None = None,
    resume: bool = False,
    workers: int = 0,
    malformed: Malformed = "raise",
    backbone_weights: Path | None = None,
    dry_run: int = 0,
) -> None:
    """Trains on the data set below ``root``, or on generated scenes; what ``pydistill train detr`` does.

    Args:
        config: what to train.
        fabric: devices and precision.
        root: folder of the data set; None: scenes are generated into ``output/data``.
        output: folder for checkpoint, log and events.
        teacher: checkpoint of the teacher; None: the committed one, an RT-DETR that knows the generated scenes only.
        resume: go on from ``output/last.pt``.
        workers: processes that read pictures ahead.
        malformed: what becomes of entries and files that cannot be used.
        backbone_weights: torchvision state dict for a ResNet's backbone, whose statistics and first stage then stay.
        dry_run: train so many steps, write nothing but the scenes, and say what the whole training would take. A
            ResNet without a teacher then has an untrained ResNet-101 for one.

    Raises:
        ValueError: for weights of a backbone that the model does not have, or a teacher that does not fit.
        FileNotFoundError: where there is nothing to resume from, no data or no teacher.
    """
    last = last_checkpoint(output, resume)
    if backbone_weights:
        if config.backbone == "compact":
            raise ValueError("train: expected a ResNet for backbone weights, got compact")
        config = replace(config, frozen=True)
    if config.detrdistill and teacher is None and root is not None and not dry_run:
        raise ValueError("train: expected --teacher beside --data, as the committed one knows generated scenes only")
    if root is None:
        with fabric.rank_zero_first():  # the other processes find what it wrote
            root = write_coco(output / "data", SEED, *SCENES, classes=CLASSES)
        fabric.print(f"generated scenes, as there is no --data: {root}")
    pictures = open_data(config, root, "train", training=True, malformed=malformed)
    probe = open_data(config, root, "val", malformed=malformed)
    teaching = _teacher(config, teacher, len(pictures.dataset.classes), dry_run)
    training = Training(config, pictures, probe, fabric, None if dry_run else output, workers, teaching)
    if backbone_weights:
        load_backbone(training.student.backbone, backbone_weights)
    if dry_run:
        fabric.print(rehearse(training, dry_run))
        return
    if resume:
        training.load(last)
    run_with_progress(training, config.detector)
    export(training, output / "half.pt")
    fabric.print(f"checkpoint: {last.resolve()}\nscore it:   pydistill evaluate detr {last} --data {root}")


def _teacher(config: DetrConfig, path: Path | None, classes: int, dry_run: int) -> nn.Module | None:
    if not config.detrdistill:
        return None
    if path is None and dry_run and config.backbone != "compact":
        torch.manual_seed(config.seed)
        untrained: nn.Module = build_model(replace(config, backbone="resnet101"), classes)
        return untrained
    teacher, its = load_teacher(path)
    check_pair(config, its)
    return teacher
