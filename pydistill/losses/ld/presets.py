"""Which detector is distilled, and how paper and codes weigh and normalise: what ``LDLoss`` reads instead of cases."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pydistill.losses.options import check_not_negative, check_positive

Preset = Literal["gfl", "gflv2", "atss", "fcos", "retina"]
Reference = Literal["paper", "released", "mmdet"]

REFERENCES = ("paper", "released", "mmdet")


@dataclass(frozen=True)
class Weights:
    """The weight of each term; a term of weight 0 is not computed."""

    classification: float = 1.0
    centerness: float = 0.0
    box: float = 2.0
    dfl: float = 0.0
    main_ld: float = 0.25
    vlr_ld: float = 0.0625
    main_kd: float = 10.0
    vlr_kd: float = 0.0
    imitation: float = 0.0
    pseudo_box: float = 0.0


@dataclass(frozen=True)
class Detector:
    """What a detector learns by itself."""

    weights: Weights
    assigner: Literal["atss", "points", "max_iou"] = "atss"
    classification: Literal["quality", "quality_of_scores", "focal"] = "focal"
    box_weight: Literal["score", "centerness", "one"] = "centerness"
    kd_temperature: float = 2.0


DETECTORS = {
    "gfl": Detector(Weights(dfl=0.25), classification="quality", box_weight="score"),
    "gflv2": Detector(Weights(dfl=0.25), classification="quality_of_scores", box_weight="score"),
    "atss": Detector(Weights(centerness=1.0, vlr_ld=0.0375)),
    "fcos": Detector(Weights(centerness=1.0, box=1.0), assigner="points"),
    "retina": Detector(
        Weights(main_ld=0.3125, vlr_ld=0.009375), assigner="max_iou", box_weight="one", kd_temperature=8.0
    ),
}


@dataclass(frozen=True)
class LDRules:
    """Where paper and codes disagree; each field can be given to ``LDLoss`` by its name."""

    box_loss: Literal["giou", "diou", "ciou", "ciou_released", "ciou_mmdet"] = "giou"
    """Of box and pseudo box: one minus which IoU. Of CIoU alpha is ``"constant"``, or as each code has it; see
    :func:`pydistill.ops.ciou_loss`."""
    vlr_region: Literal["band", "inside", "negatives"] = "band"
    """``"band"``: anchors as of ``pydistill.ops.valuable_localization_region``; ``"inside"``: negatives with the centre
    inside a box; ``"negatives"``: all of them."""
    vlr_measure: Literal["diou", "diou_released"] = "diou"
    """What is compared with the band: DIoU, or what the released code has under this name, IoF less the distance."""
    vlr_upper: Literal["closed", "open"] = "closed"
    """Whether the upper end belongs to the band."""
    vlr_threshold: Literal["assigner", "atss"] = "assigner"
    """The upper end: the assigner's positive threshold if it has one, or that of ATSS whoever assigns."""
    vlr_weight: Literal["iou", "score", "one"] = "iou"
    """Of an anchor there: its IoU with the box (of ``"band"`` only), the student's largest class probability, 1."""
    positives_in_vlr: bool = False
    """Whether anchors that are positive for one box are in the region of another, and so distilled twice."""
    ignored_in_vlr: bool = False
    """Whether anchors in ignored regions are in the region."""
    joint_sides: bool = False
    """One softmax over the 4 n logits of a box instead of one over the n logits of each side."""
    bins: Literal["mean", "sum"] = "mean"
    """Mean of the divergence's terms over the bins (classes), as both codes have it, or their sum: n (C) times more."""
    ld_normalizer: Literal["images", "sum"] = "images"
    """Main and VLR LD: ``images_per_process`` times the mean over all images, or the sum over a process' own."""
    kd_normalizer: Literal["rows", "levels"] = "rows"
    """KD as a mean over the anchors of all levels and processes, or as the sum of the levels' own means."""
    samples: Literal["images", "batch", "process"] = "images"
    """What divides the classification: the positives of all processes, at least one an image; at least one in all; or
    those of the process alone, at least one an image."""
    imitation_scope: Literal["image", "batch"] = "image"
    """General instances: the best of each image or of the batch. ``"batch"`` also takes each process' own mean, and
    nothing on a level without positives."""
    images_per_process: int = 2
    """The number of images for which ``ld_normalizer="images"`` is the released sum."""
    box_offset: float = 0.0
    """Added to the sum of the weights that divides the box and distribution focal losses."""
    eps: float = 0.0
    """Added to every other divisor."""


_PAPER = LDRules()
_RELEASED = LDRules(
    vlr_measure="diou_released",
    vlr_upper="open",
    vlr_threshold="atss",
    positives_in_vlr=True,
    ignored_in_vlr=True,
    ld_normalizer="sum",
    kd_normalizer="levels",
    imitation_scope="batch",
    box_offset=1e-6,
)
_FLOAT32_EPS = 2.0**-23


def rules_of(preset: Preset, reference: Reference, overrides: dict[str, Any]) -> LDRules:
    """What ``reference`` does with detector ``preset``, but for ``overrides``."""
    known = {field.name: field for field in fields(LDRules)}
    for name, value in overrides.items():
        if name not in known:
            raise TypeError(f"LDLoss: expected options in {tuple(known)}, got {name!r}")
        choices = _CHOICES.get(name)
        if choices is not None and value not in choices:
            raise ValueError(f"LDLoss: expected {name} in {choices}, got {value!r}")
    rules = _PAPER if reference == "paper" else _RELEASED
    if reference == "mmdet":
        rules = replace(rules, eps=_FLOAT32_EPS)
    if preset == "fcos":
        rules = replace(rules, vlr_region="inside", vlr_weight="score", positives_in_vlr=False)
        if reference == "released":
            rules = replace(rules, samples="batch")
    if preset == "retina" and reference == "released":
        rules = replace(rules, positives_in_vlr=False, joint_sides=True, samples="process")
    if preset not in ("gfl", "gflv2"):
        rules = replace(rules, box_offset=0.0)
    rules = replace(rules, **overrides)
    check_not_negative("LDLoss", dict(box_offset=rules.box_offset, eps=rules.eps))
    check_positive("LDLoss", dict(images_per_process=rules.images_per_process))
    if rules.vlr_region != "band" and rules.vlr_weight == "iou":
        raise ValueError(f"LDLoss: expected vlr_weight 'score' or 'one' of the region {rules.vlr_region!r}, got 'iou'")
    return rules


def weights_of(preset: Preset, reference: Reference, overrides: dict[str, float | None]) -> Weights:
    """The weights of ``reference`` for detector ``preset``, but for ``overrides`` that are not None."""
    weights = DETECTORS[preset].weights
    if reference == "released" and preset == "retina":
        weights = replace(weights, main_ld=5.0, vlr_ld=0.15)
    if reference == "mmdet":
        weights = replace(weights, vlr_ld=0.0, main_kd=0.0)
    return replace(weights, **{name: value for name, value in overrides.items() if value is not None})


_CHOICES: dict[str, tuple[str, ...]] = {
    "box_loss": ("giou", "diou", "ciou", "ciou_released", "ciou_mmdet"),
    "vlr_region": ("band", "inside", "negatives"),
    "vlr_measure": ("diou", "diou_released"),
    "vlr_upper": ("closed", "open"),
    "vlr_threshold": ("assigner", "atss"),
    "vlr_weight": ("iou", "score", "one"),
    "bins": ("mean", "sum"),
    "ld_normalizer": ("images", "sum"),
    "kd_normalizer": ("rows", "levels"),
    "samples": ("images", "batch", "process"),
    "imitation_scope": ("image", "batch"),
}
