"""What the training of a detector by queries depends on, and the presets."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydistill.losses.detr import DETRDistillLoss
from pydistill.recipes.dense.augment import PRESETS
from pydistill.recipes.dense.backbone import BACKBONES, Backbone
from pydistill.recipes.detr.models import MODELS, Model
from pydistill.recipes.training import Optimizer, falling_rate, read_settings

Region = Literal["quality", "query", "boxes", "none"]
Pairs = Literal["all", "positives", "negatives", "none"]
Assignment = Literal["teacher", "rematch"]
Stage = Literal["same", "last"]
Reference = Literal["paper", "released"]

DISTILLED = ("instance", "feature", "relation", "group")  # weights of what a teacher tells
_RULES = ("instance_stage", "instance_class_pairs", "instance_box_pairs", "feature_region", "assignment")
DISTILL_OPTIONS = (*DISTILLED, *_RULES)  # unused without a teacher


@dataclass(frozen=True)
class DetrConfig:
    """Everything that a training depends on, pictures and teacher excepted.

    Args:
        detector: one of ``pydistill.recipes.detr.models.MODELS``.
        backbone: ``"compact"``, or a ResNet for pictures of hundreds of pixels.
        width: share of the backbone's channels; torchvision's weights fit 1 only.
        strides, channels, queries, layers, encoder_layers, feedforward, dropout, refine: of ``build``.
        frozen: the backbone keeps its statistics, and its first stage its weights: for weights of torchvision.
        seed: of initial weights, batch order, augmentation.
        size: height and width in pixels that pictures fit into.
        augment: name of one of ``pydistill.recipes.dense.augment.PRESETS``.
        steps: optimiser steps.
        batch: pictures a step, over all devices.
        optimizer: ``"adamw"``, the paper's, or ``"sgd"`` with momentum 0.9.
        lr: learning rate after ``warmup`` steps.
        backbone_lr: factor of it for the backbone, sampling offsets and reference points.
        clip: largest norm of the gradient; 0: any.
        drops: shares of the steps after which the learning rate falls to a tenth; empty: it falls as a cosine.
        detrdistill: whether there is distillation; with it off nothing else changes.
        instance, feature, relation, group: weights of ``DETRDistillLoss``; None: as ``reference``.
        reference, instance_stage, instance_class_pairs, instance_box_pairs, feature_region, assignment: of
            ``DETRDistillLoss``; None: as ``reference``.
        log_every, evaluate_every: steps between rows of the log, and between evaluations of ``probe`` pictures.
        save_every: steps between checkpoints.
    """

    detector: Model = "rt_detr"
    backbone: Backbone = "compact"
    width: float = 0.25
    strides: tuple[int, ...] | None = None
    channels: int = 64
    queries: int = 20
    layers: int = 3
    encoder_layers: int = 1
    feedforward: int = 128
    dropout: float = 0.0
    refine: bool = True
    frozen: bool = False
    seed: int = 0
    size: tuple[int, int] = (64, 64)
    augment: str = "digits"
    steps: int = 300
    batch: int = 16
    optimizer: Optimizer = "adamw"
    lr: float = 4e-3
    backbone_lr: float = 1.0
    weight_decay: float = 1e-4
    clip: float = 1.0
    warmup: int = 50
    drops: tuple[float, ...] = ()
    detrdistill: bool = False
    instance: float | None = None
    feature: float | None = None
    relation: float | None = None
    group: float | None = None
    reference: Reference = "paper"
    instance_stage: Stage | None = None
    instance_class_pairs: Pairs | None = None
    instance_box_pairs: Pairs | None = None
    feature_region: Region | None = None
    assignment: Assignment | None = None
    log_every: int = 10
    evaluate_every: int = 100
    probe: int = 48
    save_every: int = 100

    def __post_init__(self) -> None:
        for name, allowed in (
            ("detector", MODELS),
            ("backbone", BACKBONES),
            ("optimizer", ("sgd", "adamw")),
            ("augment", tuple(PRESETS)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"DetrConfig: expected {name} in {allowed}, got {getattr(self, name)!r}")
        for name in ("queries", "layers", "steps", "batch", "log_every", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"DetrConfig: expected {name} >= 1, got {getattr(self, name)}")
        for name in ("seed", "clip", "backbone_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"DetrConfig: expected {name} >= 0, got {getattr(self, name)}")

    def loss(self, distilled: bool = True) -> DETRDistillLoss:
        """The objective; without ``detrdistill``, or where ``distilled`` is not wanted, the detector's own."""
        on = self.detrdistill and distilled
        weights = {name: getattr(self, name) if on else 0.0 for name in DISTILLED}
        given = weights | {name: getattr(self, name) for name in ("reference", *_RULES)}
        projection = (self.channels, 2 * self.channels)  # as wide as the released one beside its queries
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        return DETRDistillLoss(detector=self.detector, projection=projection, **options)

    def needed(self) -> list[str]:
        """The terms that need a teacher."""
        weights = self.loss().settings.weights
        return [term for term in DISTILLED if any(w for name, w in weights.items() if name.startswith(term))]

    def learning_rate(self, step: int) -> float:
        """Learning rate of ``step``."""
        return self.lr * min(1.0, (step + 1) / max(self.warmup, 1)) * falling_rate(step / self.steps, self.drops)

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DetrConfig":
        """Of what ``to_dict`` returned, or JSON made of it.

        Raises:
            ValueError: for names that this version does not know.
        """
        names = [name for name in ("size", "strides", "drops") if values[name] is not None]
        return read_settings(cls, values, names)


# One student for the demo and for the table, and its teacher: committed, and trained by the preset `teacher`.
STUDENT = DetrConfig(steps=500)
TEACHER = replace(STUDENT, width=0.45, steps=1600, lr=3e-3, evaluate_every=400)

# The released plan of COCO: Deformable DETR without refinement, 50 epochs of 117 266 pictures, a tenth of the rate
# after the 40th, and of it for the backbone, sampling offsets and reference points.
PAPER = DetrConfig(
    detector="deformable_detr", backbone="resnet50", width=1.0, strides=(8, 16, 32, 64), channels=256, queries=300,
    layers=6, encoder_layers=6, feedforward=1024, dropout=0.1, refine=False, size=(800, 1333), augment="flip",
    steps=366_450, batch=16, lr=2e-4, backbone_lr=0.1, clip=0.1, drops=(0.8,), detrdistill=True, log_every=50,
    evaluate_every=7329, probe=500, save_every=1000,
)  # fmt: skip
