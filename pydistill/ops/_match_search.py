"""Matching whose costs are computed where the search reads them."""

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops._match_tensors import MatchArguments, MatchTensors, contiguous
from pydistill.ops._register import Op


def fused(x: MatchTensors, a: MatchArguments, groups: int) -> bool:
    """Whether ``search`` takes the call. Else the costs are made first: sums over classes or points are products of
    matrices, and where targets are not fewer than queries the search would read a query's costs.
    """
    whole = a.scores is None and x.mask_logits is None and a.logits.dtype == torch.float32
    return whole and a.targets < a.logits.shape[1] // groups


def search(a: MatchArguments, nonfinite: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """``target_of_query`` (N, Q), ``query_of_target`` (N * groups, T) and the status of each problem."""
    given = (*a,)  # before torch 2.7 a compiled function cannot slice a named tuple
    found: tuple[Tensor, Tensor, Tensor] = _op(*given[:6], *given[8:], nonfinite, groups)
    return found


def _search(
    logits: Tensor,
    boxes: Tensor | None,
    labels: Tensor | None,
    target_boxes: Tensor | None,
    counts: Tensor | None,
    sizes: Tensor | None,
    targets: int,
    class_cost: int,
    numbers: list[float],
    corners: bool,
    l1_corners: bool,
    clamp_targets: bool,
    nonfinite: int,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    kernels, where = _C.on(logits)
    class_weight, l1_weight, giou_weight, alpha, gamma, eps, giou_eps = numbers
    outputs = _shapes(logits, targets, groups)
    target_boxes, sizes = (None if t is None else t.float() for t in (target_boxes, sizes))
    logits, boxes, labels, target_boxes, counts, sizes = contiguous(logits, boxes, labels, target_boxes, counts, sizes)
    size = kernels.hungarian_match_workspace(targets, logits.shape[1] // groups, groups, nonfinite == 0)
    workspace = logits.new_empty((outputs[2].numel(), size), dtype=torch.uint8) if size else None
    kernels.hungarian_match(
        where, logits, boxes, labels, target_boxes, counts, sizes, class_cost, class_weight, l1_weight, giou_weight,
        alpha, gamma, eps, giou_eps, corners, l1_corners, clamp_targets, nonfinite, groups, workspace, *outputs,
    )  # fmt: skip
    return outputs


def _shapes(logits: Tensor, targets: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    n, q, _ = logits.shape
    target_of_query = logits.new_empty((n, q), dtype=torch.int64)
    return target_of_query, target_of_query.new_empty(n * groups, targets), target_of_query.new_empty(n * groups)


_op = Op(
    "hungarian_match(Tensor logits, Tensor? boxes, Tensor? labels, Tensor? target_boxes, Tensor? counts,"
    " Tensor? image_sizes, SymInt targets, int class_cost, float[] numbers, bool corners, bool l1_corners,"
    " bool clamp_targets, int nonfinite, int groups) -> (Tensor, Tensor, Tensor)",
    _search,
    fake=lambda logits, *rest: _shapes(logits, rest[5], rest[-1]),
)
