"""What the losses of matched pairs share: their shapes, what a query is matched with, and sums per stage."""

import torch
from torch import Tensor

from pydistill.ops import _check

REDUCTIONS = ("stages", "none")


def check_match(op: str, name: str, predictions: Tensor, last: str, target_of_query: Tensor) -> None:
    """``predictions`` (..., B, Q, last) of a floating point dtype, ``target_of_query`` (..., B, Q) int64."""
    _check.tensors(op, target_of_query=target_of_query, **{name: predictions})
    if predictions.ndim < 3:
        raise ValueError(f"{op}: expected {name} of shape (..., B, Q, {last}), got {list(predictions.shape)}")
    if not predictions.is_floating_point():
        raise TypeError(f"{op}: expected {name} of a floating point dtype, got {predictions.dtype}")
    check_queries(op, target_of_query, predictions.shape[:-1])


def check_queries(op: str, target_of_query: Tensor, shape: torch.Size) -> None:
    if target_of_query.shape != shape:
        raise ValueError(f"{op}: expected target_of_query of shape {list(shape)}, got {list(target_of_query.shape)}")
    if target_of_query.dtype != torch.int64:
        raise TypeError(f"{op}: expected target_of_query of dtype torch.int64, got {target_of_query.dtype}")


def check_targets(op: str, name: str, targets: Tensor, predictions: Tensor, last: int | None) -> None:
    """``targets`` (B, T) or (..., B, T), followed by ``last`` if it is given."""
    _check.tensors(op, **{name: targets})
    batch, ends = predictions.shape[:-2], () if last is None else (last,)
    got = tuple(targets.shape)
    rank = len(ends) + 1  # T and what follows
    if len(got) <= rank or got[:-rank] not in (tuple(batch[-1:]), tuple(batch)) or got[len(got) - len(ends) :] != ends:
        want = [str(n) for n in (*batch, "T", *ends)]
        short = [str(n) for n in (batch[-1], "T", *ends)]
        raise ValueError(
            f"{op}: expected {name} of shape [{', '.join(short)}] or [{', '.join(want)}], got {list(targets.shape)}"
        )


def check_reduction(op: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f'{op}: expected reduction "stages" or "none", got {reduction!r}')


def matched(target_of_query: Tensor, targets: int) -> Tensor:
    """Which queries have a target; an index outside [0, T) is none."""
    return (target_of_query >= 0) & (target_of_query < targets)


def of_queries(values: Tensor, target_of_query: Tensor, dim: int) -> Tensor:
    """For each query the entry of ``values`` (B, T, ...) or (..., B, T, ...) of its target; ``dim`` is that of T.

    A query without a target has any entry; with T = 0 all of them have zeros.
    """
    rest = values.shape[values.ndim + dim + 1 :]
    leading = target_of_query.shape[:-1]
    if values.shape[dim] == 0:
        return values.new_zeros(*target_of_query.shape, *rest)
    index = target_of_query.clamp(0, values.shape[dim] - 1)
    index = index.view(*index.shape, *[1] * len(rest)).expand(*index.shape, *rest)
    return values.expand(*leading, *values.shape[dim:]).gather(dim, index)


def sum_stages(rows: Tensor, reduction: str) -> Tensor:
    """The losses of queries (..., B, Q), or their sum per stage (...).

    Dimension after dimension: what is left of the first sum is too little for threads to share, and the order stays.
    """
    return rows if reduction == "none" else rows.sum(-1).sum(-1)
