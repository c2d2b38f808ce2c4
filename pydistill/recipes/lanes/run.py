"""From folders and options to a training: what the commands share."""

from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from pydistill.recipes.faults import Malformed
from pydistill.recipes.lanes.config import LaneConfig
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.generate import write_culane, write_tusimple
from pydistill.recipes.lanes.resnet import ResNetSAD
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import Training
from pydistill.recipes.progress import rehearse, run_with_progress
from pydistill.recipes.resnet import load_backbone
from pydistill.recipes.training import last_checkpoint


def train(
    config: LaneConfig,
    fabric: Fabric,
    root: Path | None,
    output: Path,
    *,
    resume: bool = False,
    workers: int = 0,
    malformed: Malformed = "raise",
    backbone_weights: Path | None = None,
    dry_run: int = 0,
) -> None:
    """Trains on the data set below ``root``, or on generated scenes; what ``pydistill train lanes`` does.

    Args:
        config: what to train.
        fabric: devices and precision.
        root: folder of the data set; None: scenes are generated into ``output/data``.
        output: folder for checkpoint, log and events.
        resume: go on from ``output/last.pt``.
        workers: processes that read pictures ahead.
        malformed: what becomes of lines and files that cannot be used.
        backbone_weights: torchvision state dict for a ResNet's backbone.
        dry_run: train so many steps, write nothing but the scenes, and say what the whole training would take.

    Raises:
        ValueError: for weights of a backbone that the model does not have.
        FileNotFoundError: where there is nothing to resume from, or no data.
    """
    last = last_checkpoint(output, resume)
    if root is None:
        with fabric.rank_zero_first():  # the other processes find what it wrote
            root = _generated(config, output / "data")
        fabric.print(f"generated scenes, as there is no --data: {root}")
    pictures = open_data(config, root, "train", training=True, malformed=malformed)
    training = Training(config, pictures, _probe(config, root, malformed), fabric, None if dry_run else output, workers)
    if backbone_weights:
        if not isinstance(training.student, ResNetSAD):
            raise ValueError(f"train: expected a ResNet for backbone weights, got {config.model}")
        load_backbone(training.student, backbone_weights)
    if dry_run:
        fabric.print(rehearse(training, dry_run))
        return
    if resume:
        training.load(last)
    run_with_progress(training, config.model)
    fabric.print(f"checkpoint: {last.resolve()}\nscore it:   pydistill evaluate lanes {last} --data {root}")


def _generated(config: LaneConfig, root: Path) -> Path:
    write = {"tusimple": write_tusimple, "culane": write_culane}.get(config.format)
    if write is None:
        raise ValueError("train: expected the folder of the data set in --data, as BDD100K is not generated")
    return write(root, config.seed, 800, 200, workers=2)


def _probe(config: LaneConfig, root: Path, malformed: Malformed) -> LaneData[Any] | None:
    """Pictures to look at along the way: of the split for validation, where there is one."""
    try:
        return open_data(config, root, "val", malformed=malformed)
    except FileNotFoundError:
        return None
