"""What it costs to match each query with each target of its image: the costs of DETR and of those that followed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill import _C
from pydistill.ops._register import Op, accumulator

CLASS_COSTS = ("focal", "softmax", "binary_focal", "soft_bce", "none")
_KERNEL_CLASS_COSTS = ("focal", "softmax", "soft_focal", "binary_focal", "soft_bce", "none")  # math::ClassCost
_TERMS = ("class", "l1", "giou")


@dataclass(frozen=True)
class MatchOptions:
    """The options of ``match_cost`` that a preset stands for. The defaults are Deformable DETR's."""

    class_cost: str = "focal"
    weights: tuple[float, float, float] = (2.0, 5.0, 2.0)  # class, l1, giou
    alpha: float = 0.25
    gamma: float = 2.0
    eps: float = 1e-8
    l1_format: str = "cxcywh"
    giou_eps: float = 0.0
    clamp_targets: bool = False
    pixels: bool = False  # giou_eps is a number of square pixels: image_sizes are needed


_DETR = MatchOptions(class_cost="softmax", weights=(1.0, 5.0, 2.0))
_FOCAL = MatchOptions()
_MMDET = MatchOptions(eps=1e-12, giou_eps=1e-6, pixels=True)
PRESETS = {
    "detr": _DETR,
    "deformable_detr": _FOCAL,
    "rt_detr": _FOCAL,
    "hf_detr": _DETR,
    "hf_deformable_detr": replace(_FOCAL, weights=(1.0, 5.0, 2.0)),
    "hf_rt_detr": _FOCAL,
    "hf_d_fine": _FOCAL,
    "hf_lw_detr": _FOCAL,
    "hf_grounding_dino": replace(_FOCAL, weights=(1.0, 5.0, 2.0)),  # with target_scores: the normalised label map
    "mmdet_detr": replace(_DETR, giou_eps=1e-6, pixels=True),
    "mmdet_deformable_detr": _MMDET,
    "mmdet_dino": _MMDET,
    "mmdet_conditional_detr": _MMDET,
    "mmdet_dab_detr": replace(_MMDET, eps=1e-8),
    "mmdet_grounding_dino": replace(_MMDET, class_cost="binary_focal"),
    "adamixer": replace(_MMDET, l1_format="xyxy"),
    "detrdistill": replace(
        _MMDET, class_cost="soft_bce", weights=(1.0, 5.0, 2.0), clamp_targets=True
    ),  # target_scores: the teacher's sigmoid
}


def match_cost(
    logits: Tensor,
    boxes: Tensor,
    target_labels: Tensor | None,
    target_boxes: Tensor,
    counts: Tensor | None = None,
    *,
    class_cost: str | None = None,
    target_scores: Tensor | None = None,
    token_mask: Tensor | None = None,
    weights: Mapping[str, float] | None = None,
    alpha: float | None = None,
    gamma: float | None = None,
    eps: float | None = None,
    box_format: str = "cxcywh",
    l1_format: str | None = None,
    giou_eps: float | None = None,
    image_sizes: Tensor | None = None,
    clamp_targets: bool | None = None,
    preset: str | None = None,
) -> Tensor:
    r"""Costs of matching Q queries with the T targets of their own image, for all images and layers at once.

    .. math:: c_{q,t} = w_\text{class} \, \text{class}(x_q, t) + w_\text{l1} \lVert b_q - b_t \rVert_1
        - w_\text{giou} \operatorname{GIoU}(b_q, b_t)

    with, for :math:`p = \sigma(x)`, :math:`pos = \alpha (1-p)^\gamma (-\log(p + \epsilon))` and
    :math:`neg = (1-\alpha) p^\gamma (-\log(1 - p + \epsilon))`, the class term

    ===============  ===================================================================================================
    "focal"          pos - neg of the target's label, or with ``target_scores`` y the sum over classes of y (pos - neg)
    "softmax"        -softmax(x) of the label; logits may have a further class, for background
    "binary_focal"   sum over classes of y pos + (1 - y) neg; classes may be text tokens
    "soft_bce"       sum over classes of y softplus(-x) + (1 - y) softplus(x), in DETRDistill
    "none"           0; also where the class weight is 0
    ===============  ===================================================================================================

    Nothing is computed between images. Not differentiable: all inputs are read as constants. Costs of masks are not
    part of this op.

    Args:
        logits: (..., B, Q, C), before sigmoid or softmax. Leading dimensions are layers.
        boxes: (..., B, Q, 4), in coordinates that are 0 to 1 over the image.
        target_labels: (B, T) or (..., B, T) int64 in [0, C). None where the class term has no labels.
        target_boxes: (B, T, 4) or (..., B, T, 4), in the same coordinates.
        counts: (B,) or (..., B) int64, targets of each image, clamped to [0, T]; None: T.
        class_cost: One of the table.
        target_scores: (B, T, C) or (..., B, T, C), y: probabilities, or weights of tokens.
        token_mask: (B, C) bool, which classes (tokens) take part; with ``target_scores``.
        weights: Of "class", "l1" and "giou"; those that are not named keep the preset's value.
        alpha: Of the focal terms.
        gamma: Of the focal terms.
        eps: Of the focal terms, inside the logarithms.
        box_format: "cxcywh" or "xyxy", of ``boxes`` and ``target_boxes``.
        l1_format: In which of these the L1 distance is taken, always on 0 to 1 coordinates.
        giou_eps: Smallest union and hull, in pixels^2 with ``image_sizes``. At 0, two boxes without area have GIoU NaN.
        image_sizes: (B, 2), height and width in pixels, for GIoU and ``clamp_targets``.
        clamp_targets: Cut target boxes at the image before both box terms.
        preset: Values for all that is not given, default "deformable_detr". As facebookresearch: "detr",
            "deformable_detr", "rt_detr". As transformers 5: "hf_detr", "hf_deformable_detr", "hf_rt_detr", "hf_d_fine",
            "hf_lw_detr", "hf_grounding_dino". As mmdet 3 (need ``image_sizes``): "mmdet_detr", "mmdet_deformable_detr",
            "mmdet_dino", "mmdet_conditional_detr", "mmdet_dab_detr", "mmdet_grounding_dino"; "adamixer". As
            BIVLab-USTC/DETRDistill's teacher targets: "detrdistill". What those do with entries that are not finite is
            ``nonfinite`` of ``linear_sum_assignment``.

    Returns:
        (..., B, Q, T) float32, or float64 of float64, stored as (..., B, T, Q). Infinite for a target beyond its
        image's count, a label outside [0, C), and a box that is inverted or not finite; NaN only in the row of a query
        with a NaN logit, and where ``giou_eps`` allows 0 / 0.

    Raises:
        ValueError: For shapes and options.
        TypeError: For dtypes.

    Reference:
        Carion et al., "End-to-End Object Detection with Transformers", arXiv:2005.12872, section 3.1; focal form: Zhu
        et al., "Deformable DETR", arXiv:2010.04159, appendix A.4.
    """
    options = resolve(
        preset,
        class_cost=class_cost,
        weights=weights,
        alpha=alpha,
        gamma=gamma,
        eps=eps,
        l1_format=l1_format,
        giou_eps=giou_eps,
        clamp_targets=clamp_targets,
    )
    return cost_of_targets(
        logits, boxes, target_labels, target_boxes, counts, target_scores, token_mask, image_sizes, box_format, options
    ).transpose(-1, -2)


def match_cost_reference(
    logits: Tensor,
    boxes: Tensor,
    target_labels: Tensor | None,
    target_boxes: Tensor,
    counts: Tensor | None = None,
    *,
    target_scores: Tensor | None = None,
    token_mask: Tensor | None = None,
    box_format: str = "cxcywh",
    image_sizes: Tensor | None = None,
    preset: str | None = None,
    **given: Any,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    o = resolve(preset, **given)
    wide = accumulator(logits.dtype)
    logits, boxes, target_boxes = logits.to(wide), boxes.to(wide), target_boxes.to(wide)
    classes = _class_reference(logits, target_labels, target_scores, token_mask, o)
    sizes = torch.ones(2, dtype=wide) if image_sizes is None else image_sizes[:, None].to(wide)
    unit, target = (b if box_format == "xyxy" else _corners(b) for b in (boxes, target_boxes))
    pixels, target_pixels = (b * sizes.flip(-1).repeat_interleave(2, -1)[..., [0, 2, 1, 3]] for b in (unit, target))
    if o.clamp_targets:
        most = sizes.flip(-1).expand(*target.shape[:-1], 2).repeat(*[1] * (target.ndim - 1), 2)
        target_pixels = target_pixels.clamp_min(0).minimum(most)
        target = target_pixels / most
    near, far = (b if o.l1_format == "xyxy" else _centred(b) for b in (unit, target))
    distance = (near.unsqueeze(-2) - far.unsqueeze(-3)).abs().sum(-1)
    overlap = _giou_reference(pixels.unsqueeze(-2), target_pixels.unsqueeze(-3), o.giou_eps)
    cost = o.weights[0] * classes + o.weights[1] * distance - o.weights[2] * overlap
    none = ~_proper(pixels).unsqueeze(-1) | ~_proper(target_pixels).unsqueeze(-2)
    if target_scores is None and target_labels is not None and o.class_cost != "none" and o.weights[0] != 0:
        none = none | ((target_labels < 0) | (target_labels >= logits.shape[-1])).unsqueeze(-2)
    if counts is not None:
        none = none | (torch.arange(target_boxes.shape[-2]) >= counts.unsqueeze(-1)).unsqueeze(-2)
    return cost.where(~none, torch.inf)


def _class_reference(
    logits: Tensor, labels: Tensor | None, scores: Tensor | None, mask: Tensor | None, o: MatchOptions
) -> Tensor:
    if o.class_cost == "none" or o.weights[0] == 0:
        return logits.new_zeros(())
    if scores is None:
        assert labels is not None
        scores = F.one_hot(labels.clamp(0, logits.shape[-1] - 1), logits.shape[-1])
    scores = scores.to(logits.dtype).unsqueeze(-3)
    if o.class_cost == "softmax":
        return -(logits.softmax(-1).unsqueeze(-2) * scores).sum(-1)
    p = logits.sigmoid()
    pos = o.alpha * (1 - p).pow(o.gamma) * -(p + o.eps).log()
    neg = (1 - o.alpha) * p.pow(o.gamma) * -(1 - p + o.eps).log()
    if o.class_cost == "soft_bce":
        pos, neg = F.softplus(-logits), F.softplus(logits)
    pos, neg = pos.unsqueeze(-2), neg.unsqueeze(-2)
    terms = scores * (pos - neg) if o.class_cost == "focal" else scores * pos + (1 - scores) * neg
    return (terms if mask is None else terms.where(mask[:, None, None], 0.0)).sum(-1)


def _corners(b: Tensor) -> Tensor:
    return torch.cat([b[..., :2] - 0.5 * b[..., 2:], b[..., :2] + 0.5 * b[..., 2:]], -1)


def _centred(b: Tensor) -> Tensor:
    return torch.cat([0.5 * (b[..., :2] + b[..., 2:]), b[..., 2:] - b[..., :2]], -1)


def _proper(b: Tensor) -> Tensor:
    return b.isfinite().all(-1) & (b[..., 2:] >= b[..., :2]).all(-1)


def _giou_reference(a: Tensor, b: Tensor, eps: float) -> Tensor:
    area = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    either = (area[0] + area[1] - both).clamp_min(eps)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    hull = hull.clamp_min(eps)
    return both / either - (hull - either) / hull


def resolve(preset: str | None, **given: Any) -> MatchOptions:
    """The preset's options with those that were given in their place."""
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"match_cost: expected preset to be one of {', '.join(PRESETS)}, got {preset}")
    options = PRESETS[preset or "deformable_detr"]
    given = {name: value for name, value in given.items() if value is not None}
    if "weights" in given:
        given["weights"] = _weights(options.weights, given["weights"])
    options = replace(options, **given) if given else options
    if options.class_cost not in CLASS_COSTS:
        raise ValueError(
            f"match_cost: expected class_cost to be one of {', '.join(CLASS_COSTS)}, got {options.class_cost}"
        )
    if options.l1_format not in ("cxcywh", "xyxy"):
        raise ValueError(f"match_cost: expected l1_format to be cxcywh or xyxy, got {options.l1_format}")
    return options


def _weights(base: tuple[float, float, float], given: Mapping[str, float]) -> tuple[float, ...]:
    if not set(given) <= set(_TERMS):
        raise ValueError(f"match_cost: expected weights of {', '.join(_TERMS)}, got {', '.join(given)}")
    return tuple(float(given.get(term, value)) for term, value in zip(_TERMS, base))


def cost_of_targets(
    logits: Tensor,
    boxes: Tensor,
    target_labels: Tensor | None,
    target_boxes: Tensor,
    counts: Tensor | None,
    target_scores: Tensor | None,
    token_mask: Tensor | None,
    image_sizes: Tensor | None,
    box_format: str,
    options: MatchOptions,
) -> Tensor:
    """The costs as they lie in memory, (..., B, T, Q)."""
    if logits.ndim < 3 or boxes.shape != (*logits.shape[:-1], 4):
        raise ValueError(
            "match_cost: expected logits (..., B, Q, C) and boxes (..., B, Q, 4),"
            f" got {list(logits.shape)} and {list(boxes.shape)}"
        )
    if box_format not in ("cxcywh", "xyxy"):
        raise ValueError(f"match_cost: expected box_format to be cxcywh or xyxy, got {box_format}")
    if options.pixels and image_sizes is None:
        raise ValueError("match_cost: expected image_sizes, whose pixels giou_eps of this preset counts, got None")
    kind = _kernel_class_cost(options, target_labels, target_scores)
    *leading, q, c = logits.shape
    layers = tuple(leading)
    t = target_boxes.shape[-2] if target_boxes.ndim > 1 else 0
    narrow = torch.promote_types(logits.dtype, boxes.dtype)
    cost: Tensor = _op(
        logits.detach().to(narrow).flatten(0, -3),
        boxes.detach().to(narrow).flatten(0, -3),
        _flat("target_labels", target_labels if kind < 2 else None, layers, (t,)),
        _flat("target_boxes", target_boxes, layers, (t, 4)),
        _flat("counts", counts, layers, ()),
        _flat("image_sizes", image_sizes, layers, (2,)),
        _flat("target_scores", target_scores if 2 <= kind < 5 else None, layers, (t, c)),
        _flat("token_mask", token_mask if 2 <= kind < 5 else None, layers, (c,)),
        kind,
        [*options.weights, options.alpha, options.gamma, options.eps, options.giou_eps],
        box_format == "xyxy",
        options.l1_format == "xyxy",
        options.clamp_targets,
    )
    return cost.view(*leading, t, q)


def _kernel_class_cost(options: MatchOptions, labels: Tensor | None, scores: Tensor | None) -> int:
    name = options.class_cost if options.weights[0] != 0 else "none"
    if name == "focal" and scores is not None:
        name = "soft_focal"
    if name == "softmax" and scores is not None:
        raise ValueError("match_cost: expected no target_scores with class_cost softmax, got some")
    if name in ("binary_focal", "soft_bce") and scores is None:
        raise ValueError(f"match_cost: expected target_scores with class_cost {name}, got None")
    if name in ("focal", "softmax") and labels is None:
        raise ValueError(f"match_cost: expected target_labels with class_cost {name}, got None")
    return _KERNEL_CLASS_COSTS.index(name)


def _flat(name: str, t: Tensor | None, layers: tuple[int, ...], rest: tuple[int, ...]) -> Tensor | None:
    """``t`` of shape (B, *rest) or (*layers, *rest), ``layers`` ending in B, with its leading dimensions as one."""
    if t is None:
        return None
    if t.shape not in ((layers[-1], *rest), (*layers, *rest)):
        raise ValueError(
            f"match_cost: expected {name} of shape {[layers[-1], *rest]} or {[*layers, *rest]}, got {list(t.shape)}"
        )
    return (t.detach() if t.requires_grad else t).flatten(0, -1 - len(rest))


def _cost(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor | None,
    target_boxes: Tensor,
    counts: Tensor | None,
    sizes: Tensor | None,
    scores: Tensor | None,
    mask: Tensor | None,
    class_cost: int,
    numbers: list[float],
    corners: bool,
    l1_corners: bool,
    clamp_targets: bool,
) -> Tensor:
    kernels, where = _C.on(logits)
    class_weight, l1_weight, giou_weight, alpha, gamma, eps, giou_eps = numbers
    wide = accumulator(logits.dtype)
    n, q, c = logits.shape
    cost = logits.new_empty((n, target_boxes.shape[1], q), dtype=wide)
    slopes = constant = None
    if scores is not None:
        slopes, constant = logits.new_empty((n, c, q), dtype=wide), logits.new_empty((n, q), dtype=wide)
    target_boxes = target_boxes.to(wide).contiguous()
    sizes, scores = (None if t is None else t.to(wide).contiguous() for t in (sizes, scores))
    labels, counts, mask = (None if t is None else t.contiguous() for t in (labels, counts, mask))
    kernels.match_cost(
        where, logits.contiguous(), boxes.contiguous(), labels, target_boxes, counts, sizes, scores, mask, class_cost,
        class_weight, l1_weight, giou_weight, alpha, gamma, eps, giou_eps, corners, l1_corners, clamp_targets,
        slopes, constant, cost,
    )  # fmt: skip
    return cost


_op = Op(
    "match_cost(Tensor logits, Tensor boxes, Tensor? labels, Tensor target_boxes, Tensor? counts, Tensor? image_sizes,"
    " Tensor? scores, Tensor? mask, int class_cost, float[] numbers, bool corners, bool l1_corners, bool clamp_targets)"
    " -> Tensor",
    _cost,
    fake=lambda logits, boxes, labels, target_boxes, *_: logits.new_empty(
        (logits.shape[0], target_boxes.shape[1], logits.shape[1]), dtype=accumulator(logits.dtype)
    ),
)
