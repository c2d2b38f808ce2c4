"""What a lane training depends on, and the presets."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from pydistill.losses.sad import Direction, Reference
from pydistill.ops.attention_map import Normalize
from pydistill.recipes.lanes.augment import PRESETS

Model = Literal["enet", "resnet18", "resnet34"]
Format = Literal["tusimple", "culane", "bdd100k"]
Pairs = tuple[tuple[int, int], ...]

MODELS: tuple[Model, ...] = ("enet", "resnet18", "resnet34")
FORMATS: tuple[Format, ...] = ("tusimple", "culane", "bdd100k")

# (learner, teacher) among the stages E1 to E4, from 0 on.
ADJACENT: Pairs = ((1, 2), (2, 3))  # E2 from E3, E3 from E4: the paper's
_PORT: Pairs = ((0, 1), (1, 2), (2, 3))
_TENSORFLOW: Pairs = ((-1, 0), (0, 1), (1, 2))  # -1: the initial block

_GAMMA: dict[Reference, float] = {"paper": 0.1, "port": 0.1, "tensorflow": 1.0}
_PAIRS: dict[Reference, Pairs] = {"paper": ADJACENT, "port": _PORT, "tensorflow": _TENSORFLOW}


@dataclass(frozen=True)
class LaneConfig:
    """Everything that a training depends on, the pictures excepted.

    Args:
        model: ``"enet"``, ``"resnet18"`` or ``"resnet34"``, each with the existence branch P1.
        width: share of a ResNet's channels; below 1 for small machines.
        shared: ENet's stages E2, E3 and E4 share their weights.
        dilated: P1 with a dilated convolution.
        format: layout, decoder and metric: ``"tusimple"``, ``"culane"`` or ``"bdd100k"``.
        seed: of initial weights, batch order, augmentation, dropout.
        size: height and width in pixels of the network's input, multiples of 8.
        line_width: of TuSimple's labels, in pixels of 1280 x 720; the others bring their label pictures.
        augment: name of one of ``pydistill.recipes.lanes.augment.PRESETS``.
        steps: optimiser steps.
        batch: pictures a step, over all devices.
        optimizer: ``"sgd"`` with Nesterov momentum 0.9, the paper's, or ``"adamw"``, which needs far fewer steps.
        lr: first learning rate; it falls as (1 - step / steps)^0.9 after ``warmup`` steps.
        smooth: side of the mean filter of the decoder, at ``size``.
        reference: of ``LaneLoss`` and ``SADLoss``; also the pairs and gamma where they are None.
        alpha, beta: weights of IoU and existence; None: as ``reference`` has them.
        sad: whether SAD is on; with it off nothing else changes.
        gamma: weight of the summed SAD terms; None: 0.1, in the TensorFlow port 1.
        pairs: (learner, teacher) stages from 0 (E1) to 3 (E4), -1 for ENet's initial block; None: as ``reference``.
        direction: which of a pair learns.
        normalize: of the attention maps. None is the paper's; ENet's maps then saturate, see ``docs/losses.md``.
        sad_start: share of the steps before SAD starts.
        sad_ramp: share of the steps over which its weight grows from 0.
        log_every, evaluate_every: steps between rows of the log, and between evaluations of ``probe`` pictures.
        save_every: steps between checkpoints.
    """

    model: Model = "enet"
    width: float = 1.0
    shared: bool = False
    dilated: bool = True
    format: Format = "tusimple"
    seed: int = 0
    size: tuple[int, int] = (96, 160)
    line_width: int = 15
    augment: str = "flip"
    steps: int = 600
    batch: int = 8
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    warmup: int = 20
    smooth: int = 3
    reference: Reference = "paper"
    alpha: float | None = None
    beta: float | None = None
    sad: bool = False
    gamma: float | None = None
    pairs: Pairs | None = None
    direction: Direction = "deep_to_shallow"
    normalize: Normalize | None = "mean"
    sad_start: float = 2 / 3
    sad_ramp: float = 0.05
    log_every: int = 10
    evaluate_every: int = 100
    probe: int = 48
    save_every: int = 100

    def __post_init__(self) -> None:
        for name, allowed in (
            ("model", MODELS),
            ("format", FORMATS),
            ("optimizer", ("sgd", "adamw")),
            ("augment", tuple(PRESETS)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"LaneConfig: expected {name} in {allowed}, got {getattr(self, name)!r}")
        positive = ("steps", "batch", "log_every", "evaluate_every", "save_every")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"LaneConfig: expected {name} >= 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"LaneConfig: expected seed >= 0, got {self.seed}")
        for name in ("sad_start", "sad_ramp"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"LaneConfig: expected {name} in [0, 1], got {getattr(self, name)}")

    @property
    def start(self) -> int:
        """The step at which SAD starts."""
        return round(self.sad_start * self.steps)

    @property
    def sad_pairs(self) -> Pairs:
        """The pairs of SAD, those of ``reference`` where none are given."""
        return _PAIRS[self.reference] if self.pairs is None else self.pairs

    @property
    def sad_weight(self) -> float:
        """The weight of SAD, that of ``reference`` where none is given; 0 where SAD is off."""
        return (_GAMMA[self.reference] if self.gamma is None else self.gamma) if self.sad else 0.0

    @property
    def trains_existence(self) -> bool:
        """Whether the existence branch learns; a decoder cannot go by it otherwise."""
        return self.beta > 0 if self.beta is not None else self.reference != "tensorflow"

    def learning_rate(self, step: int) -> float:
        """Learning rate of ``step``."""
        return self.lr * min(1.0, (step + 1) / max(self.warmup, 1)) * math.pow(1 - step / self.steps, 0.9)

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LaneConfig":
        """Of what ``to_dict`` returned, or JSON made of it.

        Raises:
            ValueError: for names that this version does not know.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"LaneConfig: expected the fields of this version, got {unknown}")
        pairs = values.get("pairs")
        return cls(**values | {"size": tuple(values["size"]), "pairs": pairs and tuple(tuple(pair) for pair in pairs)})


# AdamW and wide labels, because a few hundred steps must do: SGD on 15-pixel lines, the paper's, finds no lane by then.
DEMO = LaneConfig(optimizer="adamw", lr=4e-3, line_width=32)

# The paper's and the released codes' plans. TuSimple: 1200 of 1800 epochs before SAD; CULane: 40 000 of 60 000 steps.
_PAPER = LaneConfig(
    lr=0.01, batch=12, smooth=9, augment="paper", normalize=None, sad=True, sad_ramp=0.0, warmup=50,
    log_every=50, evaluate_every=5000, probe=200, save_every=1000,
)  # fmt: skip
PAPER: dict[Format, LaneConfig] = {
    "tusimple": replace(_PAPER, size=(368, 640), steps=50_000),
    "culane": replace(_PAPER, format="culane", size=(288, 800), steps=60_000),
    "bdd100k": replace(_PAPER, format="bdd100k", size=(360, 640), steps=60_000, beta=0.0),
}
