"""What the training of a dense detector depends on, and the presets."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydistill.losses.ld import LDLoss
from pydistill.losses.ld.presets import Reference
from pydistill.recipes.dense.augment import PRESETS
from pydistill.recipes.dense.backbone import BACKBONES, Backbone
from pydistill.recipes.training import Optimizer, falling_rate, read_settings

Region = Literal["general_instance", "fine_grained", "inside"]

DISTILLED = ("main_ld", "vlr_ld", "main_kd", "vlr_kd", "imitation", "pseudo_box")  # weights of what a teacher tells
LD_OPTIONS = (*DISTILLED, "gamma", "temperature", "kd_temperature", "imitation_region")  # unused without LD


@dataclass(frozen=True)
class DenseConfig:
    """Everything that a training depends on, pictures and teacher excepted.

    Args:
        backbone: ``"compact"``, or a ResNet for pictures of hundreds of pixels.
        width: share of the channels; torchvision's weights fit 1 only.
        strides: of the levels.
        reg_max: the largest side that the bins reach, in strides.
        fpn_channels, convolutions, blocks: of ``GFLDetector``.
        frozen: the backbone keeps its statistics, and its first stage its weights: for weights of torchvision.
        seed: of initial weights, batch order, augmentation.
        size: height and width in pixels that pictures fit into.
        augment: name of one of ``pydistill.recipes.dense.augment.PRESETS``.
        steps: optimiser steps.
        batch: pictures a step, over all devices.
        optimizer: ``"sgd"`` with momentum 0.9, the paper's, or ``"adamw"``, which needs far fewer steps.
        lr: learning rate after ``warmup`` steps.
        drops: shares of the steps after which the learning rate falls to a tenth; empty: it falls as a cosine.
        ld: whether there is distillation; with it off nothing else changes.
        main_ld, vlr_ld, main_kd, vlr_kd, imitation, pseudo_box, dfl: weights of ``LDLoss``; None: as ``reference``.
        gamma, temperature, kd_temperature, imitation_region, reference: of ``LDLoss``.
        log_every, evaluate_every: steps between rows of the log, and between evaluations of ``probe`` pictures.
        save_every: steps between checkpoints.
    """

    backbone: Backbone = "compact"
    width: float = 0.25
    strides: tuple[int, ...] = (8, 16, 32)
    reg_max: int = 16
    fpn_channels: int | None = None
    convolutions: int | None = None
    blocks: int = 1
    frozen: bool = False
    seed: int = 0
    size: tuple[int, int] = (128, 128)
    augment: str = "digits"
    steps: int = 300
    batch: int = 8
    optimizer: Optimizer = "adamw"
    lr: float = 3e-3
    weight_decay: float = 1e-4
    warmup: int = 20
    drops: tuple[float, ...] = ()
    ld: bool = False
    main_ld: float | None = None
    vlr_ld: float | None = None
    main_kd: float | None = None
    vlr_kd: float | None = None
    imitation: float | None = None
    pseudo_box: float | None = None
    dfl: float | None = None
    gamma: float = 0.25
    temperature: float = 10.0
    kd_temperature: float | None = None
    imitation_region: Region = "general_instance"
    reference: Reference = "paper"
    log_every: int = 10
    evaluate_every: int = 100
    probe: int = 48
    save_every: int = 100

    def __post_init__(self) -> None:
        for name, allowed in (
            ("backbone", BACKBONES),
            ("optimizer", ("sgd", "adamw")),
            ("augment", tuple(PRESETS)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"DenseConfig: expected {name} in {allowed}, got {getattr(self, name)!r}")
        for name in ("steps", "batch", "log_every", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"DenseConfig: expected {name} >= 1, got {getattr(self, name)}")
        if self.frozen and self.backbone == "compact":
            raise ValueError("DenseConfig: expected a ResNet as frozen backbone, got compact")
        if self.seed < 0:
            raise ValueError(f"DenseConfig: expected seed >= 0, got {self.seed}")

    def loss(self) -> LDLoss:
        """The objective; without ``ld`` the detector's own."""
        weights = {name: getattr(self, name) if self.ld else 0.0 for name in DISTILLED}
        return LDLoss(
            self.strides, preset="gfl", reference=self.reference, dfl=self.dfl, gamma=self.gamma,
            temperature=self.temperature, kd_temperature=self.kd_temperature, imitation_region=self.imitation_region,
            **weights,
        )  # fmt: skip

    def learning_rate(self, step: int) -> float:
        """Learning rate of ``step``."""
        return self.lr * min(1.0, (step + 1) / max(self.warmup, 1)) * falling_rate(step / self.steps, self.drops)

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DenseConfig":
        """Of what ``to_dict`` returned, or JSON made of it.

        Raises:
            ValueError: for names that this version does not know.
        """
        return read_settings(cls, values, ("size", "strides", "drops"))


# One student for the demo and for the table, and its teacher: committed, and trained by the preset `teacher`.
STUDENT = DenseConfig(fpn_channels=48, steps=400, lr=5e-3)
TEACHER = replace(STUDENT, width=0.5, convolutions=3, steps=2000, evaluate_every=500)

# The released plan of COCO, 1x: 12 epochs of 117 266 pictures; a tenth of the rate after the 8th and after the 11th.
PAPER = DenseConfig(
    backbone="resnet50", width=1.0, strides=(8, 16, 32, 64, 128), size=(800, 1333), augment="flip", steps=87_948,
    batch=16, optimizer="sgd", lr=0.01, warmup=500, drops=(8 / 12, 11 / 12), ld=True, log_every=50,
    evaluate_every=7329, probe=500, save_every=1000,
)  # fmt: skip
