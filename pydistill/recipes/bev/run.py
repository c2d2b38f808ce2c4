"""From folders and options to a training: what the commands share."""

from dataclasses import replace
from pathlib import Path

from lightning.fabric import Fabric

from pydistill.recipes.bev.config import BevConfig
from pydistill.recipes.bev.data import Augment, BEVData
from pydistill.recipes.bev.generate import write_nuscenes
from pydistill.recipes.bev.network import BEVDetector, Modality
from pydistill.recipes.bev.nuscenes import NuScenes
from pydistill.recipes.bev.training import Training, build_model, check_pair, load_student
from pydistill.recipes.faults import Malformed
from pydistill.recipes.progress import rehearse, run_with_progress
from pydistill.recipes.resnet import load_backbone
from pydistill.recipes.training import export, last_checkpoint

SCENES = (500, 100)  # to train on and to test on, two samples each, where no folder is given
SEED = 0  # of these scenes, whatever the training's: the committed teachers have seen the ones to train on
_CACHED = 2**30  # bytes of samples that are kept in memory


def open_data(
    config: BevConfig, root: Path, split: str, *, training: bool = False, malformed: Malformed = "raise"
) -> BEVData:
    """Samples of a split for a network; for ``training`` augmented, and without those that have no boxes."""
    dataset = NuScenes(root, split, sweeps=config.sweeps, malformed=malformed, filled=training)
    small = len(dataset) * (18 * config.size[0] * config.size[1] + 20 * config.max_points) <= _CACHED
    augment = Augment() if training and config.augment else None
    return BEVData(
        dataset, config.size, max_points=config.max_points, augment=augment, cache=small, unreadable=malformed
    )


def committed(modality: Modality) -> Path:
    """Where the package keeps its teacher of a modality, of ``pydistill train bev --preset teacher --student``."""
    return Path(__file__).with_name(f"teacher_{modality}.pt")


def load_teacher(modality: Modality | None, path: Path | None = None) -> tuple[BEVDetector, BevConfig]:
    """A trained detector and its configuration; the committed one of ``modality`` unless told."""
    if path is not None and not path.exists():
        raise FileNotFoundError(f"train: expected the checkpoint of a teacher, got no {path}")
    network, config = load_student(path or committed(modality or "lidar"))
    if modality not in (None, config.modality):
        raise ValueError(f"train: expected a {modality} teacher, got one of modality {config.modality} in {path}")
    return network, config


def train(
    config: BevConfig,
    fabric: Fabric,
    root: Path | None,
    output: Path,
    *,
    teacher: Modality | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    workers: int = 0,
    malformed: Malformed = "raise",
    backbone_weights: Path | None = None,
    dry_run: int = 0,
) -> None:
    """Trains on the data set below ``root``, or on generated scenes; what ``pydistill train bev`` does.

    Args:
        config: what to train.
        fabric: devices and precision.
        root: folder of the data set; None: scenes are generated into ``output/data``.
        output: folder for checkpoint, log and events.
        teacher: modality of the teacher, where there is distillation; None: that of ``checkpoint``, or LiDAR.
        checkpoint: of the teacher; None: the committed one, which knows the generated scenes only.
        resume: go on from ``output/last.pt``.
        workers: processes that read samples ahead.
        malformed: what becomes of samples and files that cannot be used.
        backbone_weights: torchvision state dict for a ResNet's backbone of the cameras.
        dry_run: train so many steps, write nothing but a few scenes into ``output/rehearsal``, and say what the whole
            training would take. A large network without a checkpoint of a teacher then has an untrained one.

    Raises:
        ValueError: for a teacher that does not fit, or weights of a backbone that the network does not have.
        FileNotFoundError: where there is nothing to resume from, no data or no teacher.
    """
    last = last_checkpoint(output, resume)
    if config.unidistill and checkpoint is None and root is not None and not dry_run:
        raise ValueError("train: expected --teacher-checkpoint beside --data, as ours know generated scenes only")
    if backbone_weights and (config.modality == "lidar" or config.backbone == "compact"):
        got = "a LiDAR alone" if config.modality == "lidar" else config.backbone
        raise ValueError(f"train: expected cameras with a ResNet for backbone weights, got {got}")
    teaching = _teacher(config, teacher, checkpoint, dry_run)
    if root is None:
        folder, scenes = ("rehearsal", (config.batch // 2 + 1, 1)) if dry_run else ("data", SCENES)
        with fabric.rank_zero_first():  # the other processes find what it wrote
            root = write_nuscenes(output / folder, SEED, *scenes, size=config.size)
        fabric.print(f"generated scenes, as there is no --data: {root}")
    samples = open_data(config, root, "train", training=True, malformed=malformed)
    probe = open_data(config, root, "val", malformed=malformed)
    training = Training(config, samples, probe, fabric, None if dry_run else output, workers, teaching)
    if backbone_weights:
        load_backbone(training.student.camera, backbone_weights)
    if dry_run:
        fabric.print(rehearse(training, dry_run))
        return
    if resume:
        training.load(last)
    run_with_progress(training, config.modality)
    export(training, output / "half.pt")
    fabric.print(f"checkpoint: {last.resolve()}\nscore it:   pydistill evaluate bev {last} --data {root}")


def _teacher(
    config: BevConfig, modality: Modality | None, path: Path | None, dry_run: int
) -> tuple[BEVDetector, BevConfig] | None:
    if not config.unidistill:
        return None
    if path is None and dry_run and config.backbone != "compact":
        its = replace(config, modality=modality or "lidar")
        return build_model(its), its
    network, its = load_teacher(modality, path)
    check_pair(config, its)
    return network, its
