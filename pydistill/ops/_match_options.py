"""The options of ``match_cost`` and the presets: whose costs they make."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydistill.ops import _check

_NUMBERS = ("alpha", "gamma", "eps", "giou_eps", "dice_eps")
TERMS = ("class", "l1", "giou", "mask", "dice")
CHOICES = {
    "class_cost": ("focal", "softmax", "binary_focal", "soft_bce", "none"),
    "l1_format": ("cxcywh", "xyxy"),
    "mask_cost": ("bce", "focal"),
}


@dataclass(frozen=True)
class MatchOptions:
    """The options of ``match_cost`` that a preset stands for. The defaults are Deformable DETR's."""

    class_cost: str = "focal"
    weights: tuple[float, ...] = (2.0, 5.0, 2.0, 0.0, 0.0)  # in the order of TERMS
    alpha: float = 0.25
    gamma: float = 2.0
    eps: float = 1e-8
    l1_format: str = "cxcywh"
    giou_eps: float = 0.0
    clamp_targets: bool = False
    mask_cost: str = "bce"
    dice_eps: float = 1.0
    dice_squared: bool = False
    pixels: bool = False  # giou_eps is a number of square pixels: image_sizes are needed

    def weight(self, term: str) -> float:
        return self.weights[TERMS.index(term)]


_DETR = MatchOptions(class_cost="softmax", weights=(1.0, 5.0, 2.0, 0.0, 0.0))
_FOCAL = MatchOptions()
_FOCAL_1 = replace(_FOCAL, weights=(1.0, 5.0, 2.0, 0.0, 0.0))
_MMDET = MatchOptions(eps=1e-12, giou_eps=1e-6, pixels=True)
_MASK2FORMER = MatchOptions(class_cost="softmax", weights=(2.0, 0.0, 0.0, 5.0, 5.0))
PRESETS = {
    "detr": _DETR,
    "deformable_detr": _FOCAL,
    "rt_detr": _FOCAL,
    "hf_detr": _DETR,
    "hf_deformable_detr": _FOCAL_1,
    "hf_rt_detr": _FOCAL,
    "hf_d_fine": _FOCAL,
    "hf_lw_detr": _FOCAL,
    "hf_rf_detr": replace(_FOCAL, weights=(2.0, 5.0, 2.0, 5.0, 5.0)),
    "hf_grounding_dino": _FOCAL_1,  # with target_scores: the normalised label map
    "hf_mask2former": _MASK2FORMER,
    "mmdet_detr": replace(_DETR, giou_eps=1e-6, pixels=True),
    "mmdet_deformable_detr": _MMDET,
    "mmdet_dino": _MMDET,
    "mmdet_conditional_detr": _MMDET,
    "mmdet_dab_detr": replace(_MMDET, eps=1e-8),
    "mmdet_grounding_dino": replace(_MMDET, class_cost="binary_focal"),
    "mmdet_mask2former": _MASK2FORMER,
    "adamixer": replace(_MMDET, l1_format="xyxy"),
    "detrdistill": replace(
        _MMDET, class_cost="soft_bce", weights=_FOCAL_1.weights, clamp_targets=True
    ),  # target_scores: the teacher's sigmoid
}


def resolve(preset: str | None, **given: Any) -> MatchOptions:
    """The preset's options with those that were given in their place."""
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"match_cost: expected preset to be one of {', '.join(PRESETS)}, got {preset}")
    options = PRESETS[preset or "deformable_detr"]
    given = {name: value for name, value in given.items() if value is not None}
    if "weights" in given:
        given["weights"] = _weights(options.weights, given["weights"])
    _check.numbers("match_cost", **{name: value for name, value in given.items() if name in _NUMBERS})
    options = replace(options, **given) if given else options
    for name, choices in CHOICES.items():
        if (value := getattr(options, name)) not in choices:
            raise ValueError(f"match_cost: expected {name} to be one of {', '.join(choices)}, got {value}")
    return options


def _weights(base: tuple[float, ...], given: Mapping[str, float]) -> tuple[float, ...]:
    if not isinstance(given, Mapping):
        raise TypeError(f"match_cost: expected weights as a mapping, got {type(given).__name__}")
    if not set(given) <= set(TERMS):
        raise ValueError(f"match_cost: expected weights of {', '.join(TERMS)}, got {', '.join(given)}")
    _check.numbers("match_cost", **{f"weights[{term!r}]": value for term, value in given.items()})
    return tuple(float(given.get(term, value)) for term, value in zip(TERMS, base))
