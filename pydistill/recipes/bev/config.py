"""What the training of a detector in bird's-eye view depends on, and the presets."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydistill.adapters import Adapter
from pydistill.losses.unidistill import Path as LossPath
from pydistill.losses.unidistill import Reference, UniDistillLoss
from pydistill.ops import BEVGrid
from pydistill.recipes.bev.network import MODALITIES, Modality
from pydistill.recipes.dense.backbone import BACKBONES, Backbone
from pydistill.recipes.training import Optimizer, falling_rate, read_settings

AdapterKind = Literal["none", "1x1", "3x3"]
ADAPTERS: tuple[AdapterKind, ...] = ("none", "1x1", "3x3")
TERMS = ("feature", "relation", "response")  # weights of what a teacher tells


@dataclass(frozen=True)
class BevConfig:
    """Everything that a training depends on, samples and teacher excepted.

    Args:
        modality: ``"lidar"``, ``"camera"`` or ``"fusion"``.
        reach: of the map from the LiDAR, along x and y, in metres.
        cells: rows and columns of the map, even.
        low, high, head, blocks, depths, backbone, width, stages: of
            ``BEVDetector``.
        size: height and width that pictures are brought to.
        max_points: of a sample.
        sweeps: turns of the LiDAR that make up a cloud.
        augment: whether the ground is turned, scaled and mirrored.
        seed: of initial weights, batch order, augmentation.
        steps: optimiser steps.
        batch: samples a step, over all devices.
        optimizer: ``"adamw"``, the paper's, or ``"sgd"`` with momentum 0.9.
        lr: learning rate after ``warmup`` steps.
        clip: largest norm of the gradient; 0: any.
        drops: shares of the steps after which the learning rate falls to a tenth; empty: it falls as a cosine.
        unidistill: whether there is distillation; with it off nothing else changes.
        feature, relation, response: weights of ``UniDistillLoss``; None: those of student and teacher.
        reference: of ``UniDistillLoss``.
        adapter: what stands between the student's features and the losses, at both levels.
        log_every, evaluate_every: steps between rows of the log, and between evaluations of ``probe`` samples.
        save_every: steps between checkpoints.
    """

    modality: Modality = "camera"
    reach: float = 16.0
    cells: int = 32
    low: int = 32
    high: int = 64
    head: int = 16
    blocks: int = 1
    depths: tuple[float, float, float] = (1.0, 22.0, 1.0)
    backbone: Backbone = "compact"
    width: float = 0.5
    stages: int = 2
    size: tuple[int, int] = (48, 96)
    max_points: int = 8000
    sweeps: int = 2
    augment: bool = True
    seed: int = 0
    steps: int = 450
    batch: int = 8
    optimizer: Optimizer = "adamw"
    lr: float = 4e-3
    weight_decay: float = 1e-4
    clip: float = 5.0
    warmup: int = 50
    drops: tuple[float, ...] = ()
    unidistill: bool = False
    feature: float | None = None
    relation: float | None = None
    response: float | None = None
    reference: Reference = "paper"
    adapter: AdapterKind = "none"
    log_every: int = 10
    evaluate_every: int = 100
    probe: int = 48
    save_every: int = 100

    def __post_init__(self) -> None:
        for name, allowed in (
            ("modality", MODALITIES),
            ("backbone", BACKBONES),
            ("optimizer", ("sgd", "adamw")),
            ("adapter", ADAPTERS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"BevConfig: expected {name} in {allowed}, got {getattr(self, name)!r}")
        for name in ("cells", "max_points", "sweeps", "steps", "batch", "log_every", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"BevConfig: expected {name} >= 1, got {getattr(self, name)}")
        for name in ("seed", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"BevConfig: expected {name} >= 0, got {getattr(self, name)}")
        if not self.reach > 0:
            raise ValueError(f"BevConfig: expected reach > 0, got {self.reach}")

    @property
    def grid(self) -> BEVGrid:
        """The cells of the map."""
        side = 2 * self.reach / self.cells
        return BEVGrid(-self.reach, -self.reach, side, side, self.cells, self.cells)

    def loss(self, teacher: "BevConfig") -> UniDistillLoss:
        """What a teacher of that configuration tells."""
        adapters: list[Adapter | None] = [None, None]
        if self.adapter != "none":
            widths = (self.low, teacher.low), (self.high, teacher.high)
            adapters = [Adapter(self.adapter, *width) for width in widths]
        weights: dict[str, Any] = {name: getattr(self, name) for name in TERMS}
        return UniDistillLoss(
            self.grid,
            path=path_of(self.modality, teacher.modality),
            reference=self.reference,
            low_adapter=adapters[0],
            high_adapter=adapters[1],
            **weights,
        )

    def learning_rate(self, step: int) -> float:
        """Learning rate of ``step``."""
        return self.lr * min(1.0, (step + 1) / max(self.warmup, 1)) * falling_rate(step / self.steps, self.drops)

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BevConfig":
        """Of what ``to_dict`` returned, or JSON made of it.

        Raises:
            ValueError: for names that this version does not know.
        """
        return read_settings(cls, values, ["size", "depths", "drops"])


def path_of(student: Modality, teacher: Modality) -> LossPath:
    """The preset of ``UniDistillLoss`` for a pair; pairs that the paper does not have take that of one modality."""
    paths: dict[tuple[Modality, Modality], LossPath] = {
        ("camera", "lidar"): "camera_from_lidar",
        ("camera", "fusion"): "camera_from_fusion",
        ("lidar", "camera"): "lidar_from_camera",
        ("lidar", "fusion"): "lidar_from_fusion",
    }
    return paths.get((student, teacher), "same_modality")


# One camera student for the demo and for the table: 16 m around the car, cells of 1 m, small pictures, two to three
# minutes on one core. It is far from done learning: the camera teacher, with twice the steps, finds twice as much.
# The teachers are committed, and trained by the preset `teacher`.
STUDENT = BevConfig()
TEACHER = replace(STUDENT, modality="lidar", steps=900, evaluate_every=450)

# The released plan of nuScenes: 20 epochs of 28 130 samples, a tenth of the rate after the 10th and the 15th.
PAPER = BevConfig(
    reach=54.0, cells=180, low=256, high=512, head=64, blocks=5, depths=(2.0, 58.0, 0.5), backbone="resnet50",
    width=1.0, stages=3, size=(256, 704), max_points=300_000, sweeps=10, steps=28_130, batch=20, lr=2e-4,
    weight_decay=1e-7, clip=0.1, drops=(0.5, 0.75), unidistill=True, log_every=50, evaluate_every=1407, probe=500,
    save_every=500,
)  # fmt: skip
