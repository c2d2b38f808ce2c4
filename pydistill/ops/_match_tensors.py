"""What ``match_cost`` and ``hungarian_match`` share: their tensors, checked, and the costs as they lie in memory."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._match_options import MatchOptions
from pydistill.ops._match_points import at_points
from pydistill.ops._register import Op, accumulator

_KERNEL_CLASS_COSTS = ("focal", "softmax", "soft_focal", "binary_focal", "soft_bce", "none")  # math::ClassCost


class MatchTensors(NamedTuple):
    """The tensors of a call, shaped as ``match_cost`` says."""

    logits: Tensor
    boxes: Tensor | None
    target_labels: Tensor | None
    target_boxes: Tensor | None
    counts: Tensor | None
    target_scores: Tensor | None = None
    token_mask: Tensor | None = None
    mask_logits: Tensor | None = None
    target_masks: Tensor | None = None
    image_sizes: Tensor | None = None

    def targets(self) -> int:
        """T."""
        for t, rest in (
            (self.target_boxes, 1),
            (self.target_masks, 1),
            (self.target_scores, 1),
            (self.target_labels, 0),
        ):
            if t is not None:
                return t.shape[-1 - rest] if t.ndim > rest else 0
        raise ValueError("match_cost: expected target_boxes, target_masks, target_scores or target_labels, got None")


class MatchArguments(NamedTuple):
    """A call as the kernels take it: leading dimensions are one, N, and no tensor has a gradient."""

    logits: Tensor
    boxes: Tensor | None
    labels: Tensor | None
    target_boxes: Tensor | None
    counts: Tensor | None
    image_sizes: Tensor | None
    scores: Tensor | None
    token_mask: Tensor | None
    targets: int
    class_cost: int
    numbers: list[float]
    corners: bool
    l1_corners: bool
    clamp_targets: bool


def tensors_of(op: str, given: MatchTensors, points: Tensor | None) -> MatchTensors:
    """What is ``given``, if these are tensors, with masks at ``points``."""
    logits, boxes, labels, target_boxes, counts, scores, token_mask, mask_logits, target_masks, image_sizes = given
    _check.tensors(op, logits=logits)
    _check.optional(
        op, boxes=boxes, target_labels=labels, target_boxes=target_boxes, counts=counts, target_scores=scores,
        token_mask=token_mask, mask_logits=mask_logits, target_masks=target_masks, image_sizes=image_sizes,
        points=points,
    )  # fmt: skip
    if points is None:
        return given
    masks = at_points(mask_logits, target_masks, points)
    return MatchTensors(logits, boxes, labels, target_boxes, counts, scores, token_mask, *masks, image_sizes)


def arguments(op: str, x: MatchTensors, box_format: str, options: MatchOptions) -> MatchArguments:
    """Checks the call."""
    _check_shapes(x, box_format, options)
    kind = _kernel_class_cost(options, x.target_labels, x.target_scores)
    leading, c, t = tuple(x.logits.shape[:-2]), x.logits.shape[-1], x.targets()
    labels = x.target_labels if kind < 2 else None
    scores, token_mask = (x.target_scores, x.token_mask) if 2 <= kind < 5 else (None, None)
    narrow = x.logits.dtype
    for prediction in (x.boxes, x.mask_logits):
        narrow = narrow if prediction is None else torch.promote_types(narrow, prediction.dtype)
    flat = (
        _flat("target_labels", labels, leading, (t,)),
        _flat("target_boxes", x.target_boxes, leading, (t, 4)),
        _flat("counts", x.counts, leading, ()),
        _flat("image_sizes", x.image_sizes, leading, (2,)),
        _flat("target_scores", scores, leading, (t, c)),
        _flat("token_mask", token_mask, leading, (c,)),
    )
    if _check.enabled():
        _check_data(op, x, labels, box_format == "xyxy")
    return MatchArguments(
        x.logits.detach().to(narrow).flatten(0, -3),
        None if x.boxes is None else x.boxes.detach().to(narrow).flatten(0, -3),
        *flat,
        t,
        kind,
        [*options.weights[:3], options.alpha, options.gamma, options.eps, options.giou_eps],
        box_format == "xyxy",
        options.l1_format == "xyxy",
        options.clamp_targets,
    )


def cost_of_targets(x: MatchTensors, a: MatchArguments, options: MatchOptions) -> Tensor:
    """The costs as they lie in memory, (N, T, Q)."""
    given = (*a,)  # before torch 2.7 a compiled function cannot slice a named tuple
    cost: Tensor = _op(*given[:8], _mask_terms(x, accumulator(a.logits.dtype), options), *given[8:])
    return cost


def _check_shapes(x: MatchTensors, box_format: str, options: MatchOptions) -> None:
    queries, boxes = x.logits.shape[:-1], x.boxes
    if x.logits.ndim < 3 or (boxes is not None and boxes.shape != (*queries, 4)):
        raise ValueError(
            "match_cost: expected logits (..., B, Q, C) and boxes (..., B, Q, 4),"
            f" got {list(x.logits.shape)} and {None if boxes is None else list(boxes.shape)}"
        )
    if (boxes is None) != (x.target_boxes is None):
        raise ValueError("match_cost: expected both boxes and target_boxes, or none of them, got one")
    if boxes is None and (options.weight("l1") or options.weight("giou")):
        raise ValueError("match_cost: expected boxes with weights of l1 or giou, got None")
    if box_format not in ("cxcywh", "xyxy"):
        raise ValueError(f"match_cost: expected box_format to be cxcywh or xyxy, got {box_format}")
    if options.pixels and x.image_sizes is None:
        raise ValueError("match_cost: expected image_sizes, whose pixels giou_eps of this preset counts, got None")
    masks, weighted = (x.mask_logits, x.target_masks), bool(options.weight("mask") or options.weight("dice"))
    if any((t is None) == weighted for t in masks):
        raise ValueError(
            "match_cost: expected mask_logits and target_masks where mask or dice has a weight, and only there,"
            f" got {', '.join('None' if t is None else 'a tensor' for t in masks)} with weights"
            f" {options.weight('mask')}, {options.weight('dice')}"
        )
    if any(t is not None and t.is_complex() for t in masks):
        raise TypeError("match_cost: expected real mask_logits and target_masks, got complex ones")
    if x.mask_logits is not None and (x.mask_logits.shape[:-1] != queries or x.mask_logits.shape[-1] == 0):
        raise ValueError(
            f"match_cost: expected mask_logits of shape {[*queries]} and one or more points,"
            f" got {list(x.mask_logits.shape)}"
        )


def _check_data(op: str, x: MatchTensors, labels: Tensor | None, corners: bool) -> None:
    """The checks that ``pydistill.checking`` turns on."""

    def spread(t: Tensor, dims: int) -> Tensor:  # to the layers of counts, whose places are what is reported
        missing = x.counts is not None and x.counts.ndim + dims > t.ndim
        return t.expand(*x.counts.shape, *t.shape[-dims:]) if missing and x.counts is not None else t

    if x.counts is not None:
        _check.counts(op, x.counts, x.targets())
    if labels is not None:
        _check.labels(op, spread(labels, 1), x.logits.shape[-1], x.counts)
    if x.boxes is not None and x.target_boxes is not None:
        _check.boxes(op, x.boxes, None, corners)
        _check.boxes(op, spread(x.target_boxes, 2), x.counts, corners, "target_boxes")
    _check.finite(op, "logits", x.logits)
    if x.mask_logits is not None:
        _check.finite(op, "mask_logits", x.mask_logits)


def _kernel_class_cost(options: MatchOptions, labels: Tensor | None, scores: Tensor | None) -> int:
    name = options.class_cost if options.weight("class") != 0 else "none"
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


def _mask_terms(x: MatchTensors, wide: torch.dtype, o: MatchOptions) -> Tensor | None:
    """The weighted terms of masks, (N, T, Q). A target has its own row of each product: its NaN stay there."""
    if x.mask_logits is None or x.target_masks is None:
        return None
    *layers, _, points = x.mask_logits.shape
    _flat("target_masks", x.target_masks, tuple(layers), (x.targets(), points))  # for its shape alone: it broadcasts
    with torch.autocast(x.mask_logits.device.type, enabled=False):
        logits, masks = x.mask_logits.detach().to(wide), x.target_masks.detach().to(wide)
        cost, p = logits.new_zeros(()), logits.sigmoid()
        if o.weight("mask"):
            cost = o.weight("mask") / points * _mask_sums(logits, p, masks, o)
        if o.weight("dice"):
            sizes = [(t.square() if o.dice_squared else t).sum(-1) for t in (p, masks)]
            ratio = (2 * (masks @ p.mT) + o.dice_eps) / (sizes[0].unsqueeze(-2) + sizes[1].unsqueeze(-1) + o.dice_eps)
            cost = cost + o.weight("dice") * (1 - ratio)
    return cost.flatten(0, -3).contiguous()


def _mask_sums(x: Tensor, p: Tensor, y: Tensor, o: MatchOptions) -> Tensor:
    """The mask cost of each pair, summed over the points; p = sigmoid(x)."""
    if o.mask_cost == "bce":
        return _softplus_sum(x, p).unsqueeze(-2) - y @ x.mT
    pos = o.alpha * (1 - p).pow(o.gamma) * -(p + o.eps).log()
    neg = (1 - o.alpha) * p.pow(o.gamma) * -(1 - p + o.eps).log()
    return neg.sum(-1).unsqueeze(-2) + y @ (pos - neg).mT


def _softplus_sum(x: Tensor, p: Tensor) -> Tensor:
    """The sum of softplus(x) = max(x, 0) - log max(p, 1 - p) over the last dimension.

    A logarithm takes longer than many products: log a + log b = log a b.
    """
    q = 1 - p
    q = torch.maximum(p, q, out=q)
    for _ in range(5):  # the product of 32 numbers in [1/2, 1] does not underflow
        if q.shape[-1] % 2 == 0:
            a, b = q.chunk(2, -1)
            q = a * b
    return x.clamp_min(0).sum(-1) - q.log().sum(-1)


def contiguous(*tensors: Any) -> Any:
    return [None if t is None else t.contiguous() for t in tensors]


def _cost(
    logits: Tensor,
    boxes: Tensor | None,
    labels: Tensor | None,
    target_boxes: Tensor | None,
    counts: Tensor | None,
    sizes: Tensor | None,
    scores: Tensor | None,
    mask: Tensor | None,
    extra: Tensor | None,
    targets: int,
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
    cost = logits.new_empty((n, targets, q), dtype=wide)
    slopes = constant = None
    if scores is not None:
        slopes, constant = logits.new_empty((n, c, q), dtype=wide), logits.new_empty((n, q), dtype=wide)
    target_boxes, sizes, scores = (None if t is None else t.to(wide) for t in (target_boxes, sizes, scores))
    logits, boxes, labels, target_boxes, counts, sizes, scores, mask, extra = contiguous(
        logits, boxes, labels, target_boxes, counts, sizes, scores, mask, extra
    )
    kernels.match_cost(
        where, logits, boxes, labels, target_boxes, counts, sizes, scores, mask, class_cost,
        class_weight, l1_weight, giou_weight, alpha, gamma, eps, giou_eps, corners, l1_corners, clamp_targets,
        extra, slopes, constant, cost,
    )  # fmt: skip
    return cost


_op = Op(
    "match_cost(Tensor logits, Tensor? boxes, Tensor? labels, Tensor? target_boxes, Tensor? counts,"
    " Tensor? image_sizes, Tensor? scores, Tensor? mask, Tensor? extra, SymInt targets, int class_cost,"
    " float[] numbers, bool corners, bool l1_corners, bool clamp_targets) -> Tensor",
    _cost,
    fake=lambda logits, *rest: logits.new_empty(
        (logits.shape[0], rest[8], logits.shape[1]), dtype=accumulator(logits.dtype)
    ),
)
