"""The goals that were set before the kernels were written, and why some are missed.

`tools/readme.py` writes docs/goals.md from them; it fails where a goal is missed and ``REASONS`` does not say why.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

FLOOR, EAGER = 1.5, 3.0  # of every operator on a CPU: so near its floor or faster than torch.compile, faster than eager
GPU_COMPILED, GPU_EAGER, GPU_TRANSFORMERS, GPU_BANDWIDTH = 2.0, 5.0, 20.0, 0.8
LARGE = 4  # the scale from which bandwidth is what bounds an operator


@dataclass(frozen=True)
class Goal:
    """What one row, or several, was to reach."""

    label: str
    rows: Sequence[str]
    faster: dict[str, float] = field(default_factory=dict)
    """At least so many times as fast as a peer."""
    floor: float | None = None
    """At most so many times as long as the floor."""
    memory: float | None = None
    """At most so many megabytes allocated."""
    share: tuple[str, float, float] | None = None
    """Peer, part of its memory that we may take, and the megabytes of gradients that count for neither."""


def _rows(case: str, *ids: str) -> list[str]:
    return [f"{case}[{i}]" for i in ids]


_PRESETS = ("detr", "deformable_detr")
_SMALL = _rows("hungarian_match/images", *(f"300-20-{preset}" for preset in _PRESETS))
_LARGE = _rows("hungarian_match/images", *(f"900-100-{preset}" for preset in _PRESETS))
_PAIRS = [f"{pair}-{spread}" for pair in ("same", "upsampled") for spread in (0.1, 0.6, 1.0)]
_ATTENTION = _rows("attention_distillation_loss/features", *_PAIRS)
_ONE = _rows("linear_sum_assignment/one", "300x20", "20x300", "900x100", "300x300", "900x900")
_MANY = [f"{key}@2" for key in _rows("linear_sum_assignment/of_96_on_two_threads", "300x20", "300x100")]
_CALLS = ("attention_distillation_loss", "softmax_kl", "soft_iou_loss", "quality_focal_loss")
_FOCAL = _rows("quality_focal_loss/classes", "10", "20", "80") + ["sigmoid_focal_loss/classes"]
_FOCAL += _rows("distribution_focal_loss/sides", "1.0")
_MAPS = ("nchw-256", "nchw-512", "last-256", "last-512")
_FEATURE, _RELATION = _rows("keypoint_feature_loss/map", *_MAPS), _rows("keypoint_relation_loss/map", *_MAPS)
_LD = "a step of LD; a quarter of the memory beyond gradients"

GOALS = [
    Goal("self attention distillation, three spreads", _ATTENTION, {"eager": 3, "compiled": 1}, floor=1.5),
    Goal("`softmax_kl`, 106744 x 17", ["softmax_kl/rows"], {"eager": 3, "compiled": 2}),
    Goal("`softmax_kl`, weights on 2% of the rows", ["softmax_kl/few_weighted_rows"], floor=1.5),
    Goal("`assign_atss` and region, under 20 MB", ["assign_atss/assign_and_region"], {"eager": 5}, memory=20),
    Goal("matching beside a loop with SciPy", _SMALL + _LARGE, {"loop": 3}),
    Goal("matching, 300 queries, 20 boxes", _SMALL, {"transformers": 20}),
    Goal("matching, 900 queries, 100 boxes", _LARGE, {"transformers": 40}),
    Goal("`linear_sum_assignment`, one problem", _ONE, {"scipy": 1}),
    Goal("the same, 96 problems on two threads", _MANY, {"scipy": 1.5}),
    Goal("60% of the overhead of a call", [f"{op}/call_overhead" for op in _CALLS], {"eager": 1 / 0.6}),
    Goal(_LD, ["ld_step/step"], {"mmdet": 4}, share=("mmdet", 0.25, 69)),
    Goal("focal losses of dense detectors", _FOCAL, {"eager": 3}),
    Goal("a step of DETR, matching included", ["detr_step/detector"], {"transformers": 8}),
    Goal("`keypoint_feature_loss`, beside filling the gradient", _FEATURE, floor=1.3),
    Goal("`keypoint_relation_loss`, the same", _RELATION, floor=1.3),
    Goal("`response_loss`, beside filling the gradients", ["response_loss/heads"], {"compiled": 1}, floor=1.5),
    Goal("`gaussian_region`", ["gaussian_region/boxes"], {"released": 20}),
]

GPU_GOALS = [
    f"memory-bound operators at large sizes: {GPU_BANDWIDTH:.0%} of the copy bandwidth",
    f"at the papers' sizes: {GPU_COMPILED:g} times as fast as `torch.compile`, {GPU_EAGER:g} times as eager PyTorch",
    "assignment: twice as fast as torch-linear-assignment 0.1.0",
    f"a captured step of DETR, 6 layers, 16 images, 300 queries, 100 boxes: {GPU_TRANSFORMERS:g} times transformers",
]

_HALF = "half precision is converted by integers and keeps no gradient, so backward takes the exponentials again"
_WIDE = "PyTorch's operators use AVX-512 here; on a Zen 3, without it, ours was {} times as fast"
REASONS = {
    "/call_overhead": "what Python and the exchange of tensors cost each call; eager PyTorch calls few operators here",
    "keypoint_": "at the floor: the time is that of the gradient's memory, of which eager PyTorch needs as much",
    "bev_step": "at the floor: the time is that of the gradients' memory, of which eager PyTorch needs as much",
    "attention_map/energy": "near the floor, which eager PyTorch reaches to a half as well",
    "attention_map/map": _WIDE.format("3.9"),
    "sad_step": "the cross entropy of `LaneLoss` is PyTorch's on both sides; `torch.compile` takes a third less for it",
    "softmax_kl/few_weighted_rows": "scattered reads of the weighted rows, twice, and the overhead of two calls",
    "/half": _HALF,
    "soft_iou_loss/lanes[float16]": _HALF,
    "quality_focal_loss/classes": _WIDE.format("3.3 to 3.6"),
    "ld_step": "half of it are its kernels, of these a third exponentials of the focal loss; the rest is fresh memory "
    "for gradients, and PyTorch's operators. " + _WIDE.format("4.4 (mmdetection) and 3.4 (eager)"),
    "detr_step/distilled": "exponentials and matching, not bytes, bound it; `torch.compile` was left out",
    "integral": "the exponentials of 17 bins bound it, in backward again: the same with inputs in a cache; one "
    "`torch.exp` of the logits takes 3.9 ms",
    "match_cost/masks": "its two products are PyTorch's on both sides, and 40% of its time",
    "masked_feature_loss": "where all pixels count, backward reads both maps again; the floor reads them once",
    "distance_to_box": "its two kernels take a quarter of it, `square().sum()` and its gradient more than a third",
    "info_nce_loss": "near the floor, two products of PyTorch's",
    "matched_class_loss/labels": "the overhead of a call; `torch.compile` was left out",
    "matched_class_loss/logits": _WIDE.format("3.2"),
    "matched_distillation_loss": "a composition of operators, with PyTorch's own between them",
    "pack_targets": "a loop over lists on the host, meant for outside of a step",
    "query_feature_mask": "products of pixels and queries bound it, 55% of the time, which PyTorch gives to a matrix "
    "product; 30% add up their partial sums",
    "hungarian_match": "exponentials and logarithms of the costs, and the assignment, which takes as long as SciPy's",
    "response_loss": "in the cells that count, each channel of each tensor is a line of a cache of its own",
}
"""Why a row misses its goal, by a part of its key; the longest that fits counts."""


def reason(key: str) -> str | None:
    """What is written of a row that misses."""
    return max(((k, text) for k, text in REASONS.items() if k in key), default=(None, None))[1]
