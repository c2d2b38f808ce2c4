"""Which detector is distilled, and where paper and released code differ: what ``DETRDistillLoss`` reads, not cases."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pydistill.losses.options import check_not_negative
from pydistill.ops._match_options import PRESETS
from pydistill.ops.info_nce_loss import check_temperature
from pydistill.ops.query_feature_mask import check_options as check_mask
from pydistill.ops.query_quality import check_options as check_quality

Reference = Literal["paper", "released"]
DetectorName = Literal["deformable_detr", "conditional_detr", "detr", "rt_detr", "d_fine", "adamixer"]
Pairs = Literal["pos_neg", "all", "positives", "negatives", "none"]

REFERENCES = ("paper", "released")


@dataclass(frozen=True)
class Detector:
    """What a detector learns by itself."""

    matching: str  # preset of hungarian_match
    released_matching: str  # the same in mmdetection
    form: Literal["focal", "softmax", "varifocal"] = "focal"
    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    l1_format: Literal["cxcywh", "xyxy"] = "cxcywh"

    @property
    def background(self) -> bool:
        """Whether the last class logit is that of no object."""
        return self.form == "softmax"


DETECTORS = {
    "deformable_detr": Detector("deformable_detr", "mmdet_deformable_detr"),
    "conditional_detr": Detector("deformable_detr", "mmdet_conditional_detr"),
    "detr": Detector("detr", "mmdet_detr", form="softmax", classification=1.0),
    "rt_detr": Detector("rt_detr", "rt_detr", form="varifocal", classification=1.0),
    "d_fine": Detector("hf_d_fine", "hf_d_fine", form="varifocal", classification=1.0),
    "adamixer": Detector("adamixer", "adamixer", l1_format="xyxy"),
}


@dataclass(frozen=True)
class DETRRules:
    """Where paper and released code disagree, and what neither fixes; ``DETRDistillLoss`` takes each by its name."""

    matching: str | None = None
    """The preset of :func:`pydistill.ops.hungarian_match` for annotated boxes; None: the detector's."""
    instance_stage: Literal["same", "last"] = "same"
    """The teacher's stage that a stage of the student learns from: that of ``stages``, or the last."""
    pairs: Pairs = "pos_neg"
    """Which pairs of queries teach: ``"pos_neg"`` classes by the positives and boxes by all; else both by ``"all"``,
    ``"positives"`` or ``"negatives"``. Positive is a teacher's query that is matched with an annotated box."""
    instance_class_pairs: Pairs | None = None
    """Of the classes alone, in place of ``pairs``; ``"none"`` too."""
    instance_box_pairs: Pairs | None = None
    """Of the boxes alone, in place of ``pairs``; ``"none"`` too."""
    positive: float = 1.0
    """Weight of positive pairs."""
    negative: float = 1.0
    """Weight of negative pairs."""
    instance_weights: tuple[float, float, float] = (1.0, 5.0, 2.0)
    """Of class, L1 and GIoU, within the instance term and in its matching."""
    instance_divisor: Literal["pairs", "positives"] = "pairs"
    """What divides the instance terms of a stage: all pairs, B times the smaller number of queries, or the positive
    ones, at least one in all."""
    clamp_teacher: bool = True
    """Cut the teacher's boxes at the image."""
    quality: Literal["paper", "released"] = "paper"
    """Form of :func:`pydistill.ops.query_quality`."""
    gamma: float = 0.5
    """Of the quality's paper form."""
    topk: int = 100
    """The largest number of queries in a mask of quality."""
    floor: float = 1e-2
    """Smallest value of a mask, before it is normalised."""
    normalize: Literal["max", "none"] = "max"
    """Divide each image's mask by its largest value, or not."""
    assignment: Literal["teacher", "rematch"] = "teacher"
    """What the group learns: what the teacher's queries are matched with, or its own matching."""
    temperature: float = 0.07
    """Of the relation term."""
    eos_weight: float = 0.1
    """Of queries without a box in the cross entropy of softmax detectors."""
    giou_eps: float = 0.0
    """Smallest union and hull of GIoU in the losses and in the matching of teacher and student."""
    pixels: bool = False
    """Whether ``giou_eps`` is an area in pixels; else the image has the area 1."""
    scope: Literal["joint", "process"] = "joint"
    """Whether instance classes, features and cross entropy are divided by the numbers of all processes or by their
    own. Boxes always are by those of all."""
    eps: float = 0.0
    """Added to every divisor but that of the features."""


_RELEASED = DETRRules(
    pairs="all",
    quality="released",
    assignment="rematch",
    giou_eps=1e-6,
    pixels=True,
    scope="process",
    eps=2.0**-23,
)
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "matching": (None, *PRESETS),
    "instance_stage": ("same", "last"),
    "pairs": ("pos_neg", "all", "positives", "negatives"),
    "instance_class_pairs": (None, "all", "positives", "negatives", "none"),
    "instance_box_pairs": (None, "all", "positives", "negatives", "none"),
    "instance_divisor": ("pairs", "positives"),
    "quality": ("paper", "released"),
    "normalize": ("max", "none"),
    "assignment": ("teacher", "rematch"),
    "scope": ("joint", "process"),
}


def rules_of(reference: Reference, overrides: dict[str, Any]) -> DETRRules:
    """What ``reference`` does, but for ``overrides``."""
    known = tuple(field.name for field in fields(DETRRules))
    for name, value in overrides.items():
        if name not in known:
            raise TypeError(f"DETRDistillLoss: expected options in {known}, got {name!r}")
        choices = _CHOICES.get(name)
        if choices is not None and value not in choices:
            raise ValueError(f"DETRDistillLoss: expected {name} in {choices}, got {value!r}")
    rules = replace(DETRRules() if reference == "paper" else _RELEASED, **overrides)
    names = ("positive", "negative", "giou_eps", "eps", "eos_weight")
    check_not_negative("DETRDistillLoss", {name: getattr(rules, name) for name in names})
    check_quality("DETRDistillLoss", rules.quality, rules.gamma, rules.topk)
    check_mask("DETRDistillLoss", rules.floor, rules.normalize)
    check_temperature("DETRDistillLoss", rules.temperature)
    if len(rules.instance_weights) != 3 or not all(w >= 0 for w in rules.instance_weights):
        raise ValueError(
            f"DETRDistillLoss: expected instance_weights of class, L1 and GIoU >= 0, got {rules.instance_weights}"
        )
    return rules


_TEACH = {
    "all": (1.0, 1.0),
    "positives": (1.0, 0.0),
    "negatives": (0.0, 1.0),
    "none": (0.0, 0.0),
}


def pair_weights(rules: DETRRules) -> tuple[tuple[float, float], tuple[float, float]]:
    """What a positive and a negative pair weigh: in the class term, and in those of the box."""
    both = ("positives", "all") if rules.pairs == "pos_neg" else (rules.pairs, rules.pairs)
    chosen = rules.instance_class_pairs or both[0], rules.instance_box_pairs or both[1]
    of_class, of_box = ((rules.positive * _TEACH[x][0], rules.negative * _TEACH[x][1]) for x in chosen)
    return of_class, of_box
