"""What it costs to match each query with each target of its image: the costs of DETR and of those that followed."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.ops._match_options import MatchOptions, resolve
from pydistill.ops._match_points import at_points
from pydistill.ops._match_tensors import MatchTensors, arguments, cost_of_targets, tensors_of
from pydistill.ops._register import accumulator


def match_cost(
    logits: Tensor,
    boxes: Tensor | None,
    target_labels: Tensor | None,
    target_boxes: Tensor | None,
    counts: Tensor | None = None,
    *,
    class_cost: str | None = None,
    target_scores: Tensor | None = None,
    token_mask: Tensor | None = None,
    mask_logits: Tensor | None = None,
    target_masks: Tensor | None = None,
    points: Tensor | None = None,
    weights: Mapping[str, float] | None = None,
    alpha: float | None = None,
    gamma: float | None = None,
    eps: float | None = None,
    box_format: str = "cxcywh",
    l1_format: str | None = None,
    giou_eps: float | None = None,
    image_sizes: Tensor | None = None,
    clamp_targets: bool | None = None,
    mask_cost: str | None = None,
    dice_eps: float | None = None,
    dice_squared: bool | None = None,
    preset: str | None = None,
) -> Tensor:
    r"""Costs of matching Q queries with the T targets of their own image, for all images and layers at once.

    .. math:: c_{q,t} = w_\text{class} \, \text{class}(x_q, t) + w_\text{l1} \lVert b_q - b_t \rVert_1
        - w_\text{giou} \operatorname{GIoU}(b_q, b_t) + w_\text{mask} \, \text{mask}(m_q, y_t)
        + w_\text{dice} \, \text{dice}(m_q, y_t)

    with, for :math:`p = \sigma(x)`, :math:`pos = \alpha (1-p)^\gamma (-\log(p + \epsilon))` and
    :math:`neg = (1-\alpha) p^\gamma (-\log(1 - p + \epsilon))`, the class term

    ===============  ===================================================================================================
    "focal"          pos - neg of the target's label, or with ``target_scores`` y the sum over classes of y (pos - neg)
    "softmax"        -softmax(x) of the label; logits may have a further class, for background
    "binary_focal"   sum over classes of y pos + (1 - y) neg; classes may be text tokens
    "soft_bce"       sum over classes of y softplus(-x) + (1 - y) softplus(x), in DETRDistill
    "none"           0; also where the class weight is 0
    ===============  ===================================================================================================

    and for masks at P points, with :math:`p = \sigma(m)`, the terms

    .. math:: \text{mask} = \frac1P \sum_i \operatorname{softplus}(m_i) - m_i y_i \quad \text{or, "focal",} \quad
        \frac1P \sum_i y_i \, pos_i + (1 - y_i) \, neg_i

    .. math:: \text{dice} = 1 - \frac{2 \sum_i p_i y_i + \epsilon_\text{dice}}{\sum_i p_i^k + \sum_i y_i^k
        + \epsilon_\text{dice}}, \qquad k = 1 \text{ or, with dice_squared, } 2

    whose sums are matrix products of torch, at the precision that is set for float32 there, autocast apart. Nothing is
    computed between images. Not differentiable: all inputs are read as constants.

    Args:
        logits: (..., B, Q, C), before sigmoid or softmax. Leading dimensions are layers.
        boxes: (..., B, Q, 4), in coordinates that are 0 to 1 over the image. None, as ``target_boxes``, where "l1" and
            "giou" have no weight.
        target_labels: (B, T) or (..., B, T) int64 in [0, C). None where the class term has no labels.
        target_boxes: (B, T, 4) or (..., B, T, 4), in the same coordinates.
        counts: (B,) or (..., B) int64, targets of each image, clamped to [0, T]; None: T.
        class_cost: One of the table.
        target_scores: (B, T, C) or (..., B, T, C), y: probabilities, or weights of tokens.
        token_mask: (B, C) bool, which classes (tokens) take part; with ``target_scores``.
        mask_logits: (..., B, Q, P), the predicted masks before sigmoid, at P points of the image that the caller
            chose, or at all pixels. Given if, and only if, "mask" or "dice" has a weight; so are ``target_masks``.
        target_masks: (B, T, P) or (..., B, T, P), at the same points, 0 to 1 or bool.
        points: (B, P, 2), x and y from 0 to 1 over the image, at which ``mask_logits`` (..., B, Q, h, w) and
            ``target_masks`` (B, T, H, W) or (..., B, T, H, W) are then sampled as Mask2Former does: bilinearly between
            the centres of pixels, 0 outside. The caller draws them.
        weights: Of "class", "l1", "giou", "mask" and "dice"; those that are not named keep the preset's value.
        alpha: Of the focal terms.
        gamma: Of the focal terms.
        eps: Of the focal terms, inside the logarithms.
        box_format: "cxcywh" or "xyxy", of ``boxes`` and ``target_boxes``.
        l1_format: In which of these the L1 distance is taken, always on 0 to 1 coordinates.
        giou_eps: Smallest union and hull, in pixels^2 with ``image_sizes``. At 0, two boxes without area have GIoU NaN.
        image_sizes: (B, 2), height and width in pixels, for GIoU and ``clamp_targets``.
        clamp_targets: Cut target boxes at the image before both box terms.
        mask_cost: "bce" or "focal".
        dice_eps: Added to numerator and denominator.
        dice_squared: Square the terms of the denominator.
        preset: Values for all that is not given, default "deformable_detr". As facebookresearch: "detr",
            "deformable_detr", "rt_detr". As transformers 5: "hf_detr", "hf_deformable_detr", "hf_rt_detr", "hf_d_fine",
            "hf_lw_detr", "hf_grounding_dino"; with masks "hf_rf_detr", "hf_mask2former". As mmdet 3 (need
            ``image_sizes``): "mmdet_detr", "mmdet_deformable_detr", "mmdet_dino", "mmdet_conditional_detr",
            "mmdet_dab_detr", "mmdet_grounding_dino"; with masks, without sizes, "mmdet_mask2former". "adamixer". As
            BIVLab-USTC/DETRDistill's teacher targets: "detrdistill". What those do with entries that are not finite is
            ``nonfinite`` of ``linear_sum_assignment``.

    Returns:
        (..., B, Q, T) float32, or float64 of float64, stored as (..., B, T, Q). Infinite for a target beyond its
        image's count, a label outside [0, C), and a box that is inverted or not finite; NaN only in the row of a query
        with a NaN logit, where a mask of the pair is not finite, and where ``giou_eps`` allows 0 / 0.

    Raises:
        ValueError: For shapes and options; under ``pydistill.checking`` for counts, labels, boxes and logits that this
            page calls wrong.
        TypeError: For dtypes.

    Reference:
        Carion et al., "End-to-End Object Detection with Transformers", arXiv:2005.12872, section 3.1; focal form: Zhu
        et al., "Deformable DETR", arXiv:2010.04159, appendix A.4; masks: Cheng et al., "Masked-attention Mask
        Transformer", arXiv:2112.01527, section 3.3.
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
        mask_cost=mask_cost,
        dice_eps=dice_eps,
        dice_squared=dice_squared,
    )
    targets = target_labels, target_boxes, counts, target_scores, token_mask
    given = MatchTensors(logits, boxes, *targets, mask_logits, target_masks, image_sizes)
    tensors = tensors_of("match_cost", given, points)
    cost = cost_of_targets(tensors, arguments("match_cost", tensors, box_format, options), options)
    return cost.view(*logits.shape[:-2], *cost.shape[1:]).transpose(-1, -2)


def match_cost_reference(
    logits: Tensor,
    boxes: Tensor | None,
    target_labels: Tensor | None,
    target_boxes: Tensor | None,
    counts: Tensor | None = None,
    *,
    target_scores: Tensor | None = None,
    token_mask: Tensor | None = None,
    mask_logits: Tensor | None = None,
    target_masks: Tensor | None = None,
    points: Tensor | None = None,
    box_format: str = "cxcywh",
    image_sizes: Tensor | None = None,
    preset: str | None = None,
    **given: Any,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    o = resolve(preset, **given)
    mask_logits, target_masks = at_points(mask_logits, target_masks, points)
    tensors = MatchTensors(logits, boxes, target_labels, target_boxes, counts, target_scores, target_masks=target_masks)
    targets, wide = tensors.targets(), accumulator(logits.dtype)
    logits, none = logits.to(wide), torch.zeros((), dtype=torch.bool)
    cost = logits.new_zeros(*logits.shape[:-1], targets)
    cost = cost + o.weight("class") * _class_reference(logits, target_labels, target_scores, token_mask, o)
    if boxes is not None and target_boxes is not None:
        terms, none = _box_reference(boxes.to(wide), target_boxes.to(wide), image_sizes, box_format, o)
        cost = cost + terms
    if mask_logits is not None and target_masks is not None:
        cost = cost + _mask_reference(mask_logits.to(wide).unsqueeze(-2), target_masks.to(wide).unsqueeze(-3), o)
    if target_scores is None and target_labels is not None and o.class_cost != "none" and o.weight("class") != 0:
        none = none | ((target_labels < 0) | (target_labels >= logits.shape[-1])).unsqueeze(-2)
    if counts is not None:
        none = none | (torch.arange(targets) >= counts.unsqueeze(-1)).unsqueeze(-2)
    return cost.where(~none, torch.inf)


def _box_reference(
    boxes: Tensor, target_boxes: Tensor, image_sizes: Tensor | None, box_format: str, o: MatchOptions
) -> tuple[Tensor, Tensor]:
    """The weighted terms of boxes, and which pairs have a box that matches nothing."""
    sizes = boxes.new_ones(2) if image_sizes is None else image_sizes[:, None].to(boxes.dtype)
    unit, target = (b if box_format == "xyxy" else _corners(b) for b in (boxes, target_boxes))
    pixels, target_pixels = (b * sizes.flip(-1).repeat_interleave(2, -1)[..., [0, 2, 1, 3]] for b in (unit, target))
    if o.clamp_targets:
        most = sizes.flip(-1).expand(*target.shape[:-1], 2).repeat(*[1] * (target.ndim - 1), 2)
        target_pixels = target_pixels.clamp_min(0).minimum(most)
        target = target_pixels / most
    near, far = (b if o.l1_format == "xyxy" else _centred(b) for b in (unit, target))
    distance = (near.unsqueeze(-2) - far.unsqueeze(-3)).abs().sum(-1)
    overlap = _giou_reference(pixels.unsqueeze(-2), target_pixels.unsqueeze(-3), o.giou_eps)
    none = ~_proper(pixels).unsqueeze(-1) | ~_proper(target_pixels).unsqueeze(-2)
    return o.weight("l1") * distance - o.weight("giou") * overlap, none


def _mask_reference(x: Tensor, y: Tensor, o: MatchOptions) -> Tensor:
    """The weighted terms of masks, pair by pair and point by point."""
    p, k = x.sigmoid(), 2 if o.dice_squared else 1
    if o.mask_cost == "focal":
        pos = o.alpha * (1 - p).pow(o.gamma) * -(p + o.eps).log()
        neg = (1 - o.alpha) * p.pow(o.gamma) * -(1 - p + o.eps).log()
        mask = y * pos + (1 - y) * neg
    else:
        mask = y * -F.logsigmoid(x) + (1 - y) * -F.logsigmoid(-x)
    dice = 1 - (2 * (p * y).sum(-1) + o.dice_eps) / (p.pow(k).sum(-1) + y.pow(k).sum(-1) + o.dice_eps)
    return o.weight("mask") * mask.mean(-1) + o.weight("dice") * dice


def _class_reference(
    logits: Tensor, labels: Tensor | None, scores: Tensor | None, mask: Tensor | None, o: MatchOptions
) -> Tensor:
    if o.class_cost == "none" or o.weight("class") == 0:
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
