"""From folders and options to a training: what the commands share."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from lightning.fabric import Fabric

from pydistill.recipes.dense.augment import PRESETS
from pydistill.recipes.dense.coco import CocoDataset
from pydistill.recipes.dense.config import DenseConfig
from pydistill.recipes.dense.data import DenseData
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.network import GFLDetector
from pydistill.recipes.dense.training import Training, build_model, export, load_student
from pydistill.recipes.faults import Malformed
from pydistill.recipes.progress import rehearse, run_with_progress
from pydistill.recipes.resnet import load_backbone
from pydistill.recipes.training import last_checkpoint

COMMITTED = Path(__file__).with_name("teacher.pt")  # of `pydistill train dense --preset teacher`
SCENES, CLASSES = (1200, 300), 3  # to train on and to test on, and digits, where no folder is given
SEED = 0  # of these scenes, whatever the training's: the committed teacher has seen the ones to train on
_CACHED = 2**30  # bytes of pictures at the network's size that are kept in memory


class PictureConfig(Protocol):
    """What pictures depend on."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels that they fit into."""

    @property
    def augment(self) -> str:
        """Name of one of ``augment.PRESETS``."""


def open_data(
    config: PictureConfig, root: Path, split: str, *, training: bool = False, malformed: Malformed = "raise"
) -> DenseData:
    """Pictures of a split for a network; for ``training`` augmented, and without pictures that have no boxes."""
    dataset = CocoDataset(root, split, malformed=malformed, filled=training)
    small = len(dataset) * 3 * config.size[0] * config.size[1] <= _CACHED
    augment = PRESETS[config.augment] if training else None
    return DenseData(dataset, config.size, augment, cache=small, unreadable=malformed)


def load_teacher(path: Path | None = None) -> GFLDetector:
    """A trained detector; the committed one unless told."""
    if path is not None and not path.exists():
        raise FileNotFoundError(f"train: expected the checkpoint of a teacher, got no {path}")
    return load_student(path or COMMITTED)[0]


def train(
    config: DenseConfig,
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
    """Trains on the data set below ``root``, or on generated scenes; what ``pydistill train dense`` does.

    Args:
        config: what to train.
        fabric: devices and precision.
        root: folder of the data set; None: scenes are generated into ``output/data``.
        output: folder for checkpoint, log and events.
        teacher: checkpoint of the teacher; None: the committed one, which knows the generated scenes only.
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
    if config.ld and teacher is None and root is not None and not dry_run:
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
    run_with_progress(training, config.backbone)
    export(training, output / "half.pt")
    fabric.print(f"checkpoint: {last.resolve()}\nscore it:   pydistill evaluate dense {last} --data {root}")


def _teacher(config: DenseConfig, path: Path | None, classes: int, dry_run: int) -> GFLDetector | None:
    if not config.ld:
        return None
    if path is None and dry_run and config.backbone != "compact":
        torch.manual_seed(config.seed)
        return build_model(replace(config, backbone="resnet101"), classes).eval()
    return load_teacher(path)
