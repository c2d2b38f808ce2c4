"""DETR's matching, for all images, layers and groups of queries in one call that stays on the device."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill.ops import _check
from pydistill.ops._match_options import resolve
from pydistill.ops._match_search import fused, search
from pydistill.ops._match_tensors import MatchTensors, arguments, cost_of_targets, tensors_of
from pydistill.ops.linear_sum_assignment import assign, linear_sum_assignment_reference, policy, raise_on
from pydistill.ops.match_cost import match_cost_reference


class Match(NamedTuple):
    """Who is matched with whom, int64, -1 where nobody is."""

    query_of_target: Tensor
    """(..., B, groups, T)"""
    target_of_query: Tensor
    """(..., B, Q)"""


class MatchProblem(NamedTuple):
    """The arguments of ``hungarian_match``, for ``hungarian_match_all``."""

    logits: Tensor
    boxes: Tensor | None
    target_labels: Tensor | None
    target_boxes: Tensor | None
    counts: Tensor | None = None
    groups: int = 1
    nonfinite: str = "forbid"
    class_cost: str | None = None
    target_scores: Tensor | None = None
    token_mask: Tensor | None = None
    mask_logits: Tensor | None = None
    target_masks: Tensor | None = None
    points: Tensor | None = None
    weights: Mapping[str, float] | None = None
    alpha: float | None = None
    gamma: float | None = None
    eps: float | None = None
    box_format: str = "cxcywh"
    l1_format: str | None = None
    giou_eps: float | None = None
    image_sizes: Tensor | None = None
    clamp_targets: bool | None = None
    mask_cost: str | None = None
    dice_eps: float | None = None
    dice_squared: bool | None = None
    preset: str | None = None


def hungarian_match(
    logits: Tensor,
    boxes: Tensor | None,
    target_labels: Tensor | None,
    target_boxes: Tensor | None,
    counts: Tensor | None = None,
    *,
    groups: int = 1,
    nonfinite: str = "forbid",
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
) -> Match:
    r"""Matches queries with targets, one to one in each image, layer and group, at the smallest total cost.

    .. math:: \min_x \sum_t c_{x(t),t}, \qquad c = \text{match\_cost}(\ldots)

    The same as ``match_cost`` followed by ``linear_sum_assignment``: exact, SciPy's choice among ties, no host
    synchronisation (but for ``nonfinite="raise"``), not differentiable. Costs of float32 logits, labels and boxes are
    computed where the search reads them, and none but those of the image in work are kept, where targets are fewer
    than the queries of a group. Those of masks, of ``target_scores`` and of other dtypes are all made first.

    Args:
        logits: (..., B, Q, C). Leading dimensions are layers.
        boxes: (..., B, Q, 4), or None, as ``target_boxes``, where boxes have no weight.
        target_labels: (B, T) or (..., B, T) int64.
        target_boxes: (B, T, 4) or (..., B, T, 4).
        counts: (B,) or (..., B) int64, targets of each image.
        groups: Splits the queries into so many equal consecutive parts, each matched with all targets (Group DETR,
            LW-DETR).
        nonfinite: What a cost that is not finite means, see ``linear_sum_assignment``. A preset does not set it: SciPy
            and mmdet behave as "raise", transformers as "finfo_max".
        class_cost: This and all that follows: see ``match_cost``.
        target_scores: (B, T, C) or (..., B, T, C).
        token_mask: (B, C) bool.
        mask_logits: (..., B, Q, P).
        target_masks: (B, T, P) or (..., B, T, P).
        points: (B, P, 2), of masks that are maps.
        weights: Of "class", "l1", "giou", "mask" and "dice".
        alpha: Of the focal terms.
        gamma: Of the focal terms.
        eps: Of the focal terms.
        box_format: "cxcywh" or "xyxy".
        l1_format: "cxcywh" or "xyxy".
        giou_eps: Smallest union and hull.
        image_sizes: (B, 2), height and width in pixels.
        clamp_targets: Cut target boxes at the image.
        mask_cost: "bce" or "focal".
        dice_eps: Added to numerator and denominator.
        dice_squared: Square the terms of the denominator.
        preset: Whose costs.

    Returns:
        ``query_of_target`` (..., B, groups, T), indices into Q, and ``target_of_query`` (..., B, Q). -1 where nobody is
        matched: targets beyond the count, queries left over, and pairs whose cost is not finite under ``"forbid"``.

    Raises:
        ValueError: For shapes and options; with ``nonfinite="raise"`` SciPy's errors; under ``pydistill.checking`` for
            counts, labels, boxes and logits as in ``match_cost``.
        TypeError: For dtypes.

    Reference:
        Carion et al., "End-to-End Object Detection with Transformers", arXiv:2005.12872, equation 1; groups: Chen et
        al., "Group DETR", arXiv:2207.13085.
    """
    problem = MatchProblem(
        logits,
        boxes,
        target_labels,
        target_boxes,
        counts,
        groups,
        nonfinite,
        class_cost,
        target_scores,
        token_mask,
        mask_logits,
        target_masks,
        points,
        weights,
        alpha,
        gamma,
        eps,
        box_format,
        l1_format,
        giou_eps,
        image_sizes,
        clamp_targets,
        mask_cost,
        dice_eps,
        dice_squared,
        preset,
    )
    return hungarian_match_all([problem])[0]


def hungarian_match_all(problems: Sequence[MatchProblem]) -> list[Match]:
    """Several calls of ``hungarian_match`` as one: the student's, the teacher's and a group's matches of a step.

    Args:
        problems: The arguments of each call; shapes and options may differ from one to the next.

    Returns:
        What ``hungarian_match`` returns for each of them.

    Raises:
        ValueError: As ``hungarian_match``.
        TypeError: As ``hungarian_match``, and for what is not a ``MatchProblem``.
    """
    for x in problems:
        if not isinstance(x, MatchProblem):
            raise TypeError(f"hungarian_match_all: expected a sequence of MatchProblem, got one of {type(x).__name__}")
    return [_match(problem) for problem in problems]


def _match(x: MatchProblem) -> Match:
    options = resolve(
        x.preset,
        class_cost=x.class_cost,
        weights=x.weights,
        alpha=x.alpha,
        gamma=x.gamma,
        eps=x.eps,
        l1_format=x.l1_format,
        giou_eps=x.giou_eps,
        clamp_targets=x.clamp_targets,
        mask_cost=x.mask_cost,
        dice_eps=x.dice_eps,
        dice_squared=x.dice_squared,
    )
    targets = x.target_labels, x.target_boxes, x.counts, x.target_scores, x.token_mask
    given = MatchTensors(x.logits, x.boxes, *targets, x.mask_logits, x.target_masks, x.image_sizes)
    tensors = tensors_of("hungarian_match", given, x.points)
    number, groups = policy("hungarian_match", x.nonfinite), x.groups
    _check.numbers("hungarian_match", groups=groups)
    if groups < 1 or x.logits.ndim < 2 or x.logits.shape[-2] % groups:
        raise ValueError(
            f"hungarian_match: expected groups that divide the queries of {list(x.logits.shape)}, got {groups}"
        )
    a = arguments("hungarian_match", tensors, x.box_format, options)
    *layers, q, _ = x.logits.shape
    if fused(tensors, a, groups):
        target_of_query, query_of_target, status = search(a, number, groups)
    else:
        matrices, columns = cost_of_targets(tensors, a, options).transpose(1, 2), a.counts
        target_of_query, query_of_target, status = assign(matrices, None, columns, False, number, groups)
    if x.nonfinite == "raise":
        raise_on(status)
    return Match(query_of_target.view(*layers, groups, a.targets), target_of_query.view(*layers, q))


def hungarian_match_reference(
    logits: Tensor,
    boxes: Tensor | None,
    target_labels: Tensor | None,
    target_boxes: Tensor | None,
    counts: Tensor | None = None,
    *,
    groups: int = 1,
    nonfinite: str = "forbid",
    **options: Any,
) -> Match:
    """The specification: costs in plain PyTorch, then SciPy for one image, layer and group after the other."""
    cost = match_cost_reference(logits, boxes, target_labels, target_boxes, counts, **options)
    *layers, q, t = cost.shape
    problems = cost.reshape(prod(layers) * groups, q // groups, t)
    columns = None
    if counts is not None:
        columns = counts.expand(layers).flatten().repeat_interleave(groups)
    target_of_query, query_of_target, _ = linear_sum_assignment_reference(
        problems, columns=columns, nonfinite=nonfinite
    )
    first = torch.arange(groups).unsqueeze(-1) * (q // groups)
    query_of_target = query_of_target.view(*layers, groups, t)
    query_of_target = torch.where(query_of_target < 0, -1, query_of_target + first)
    return Match(query_of_target, target_of_query.view(*layers, q))
