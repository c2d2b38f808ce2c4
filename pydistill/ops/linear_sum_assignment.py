"""Linear sum assignment of many cost matrices at once: SciPy's answer, without leaving the device."""

from typing import NamedTuple

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._register import Op

NONFINITE = ("forbid", "raise", "clamp", "finfo_max")  # in the order of math::NonFinite
_COSTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)


class Assignment(NamedTuple):
    """Who is matched with whom, int64, -1 where nobody is."""

    column_of_row: Tensor
    """(P, R)"""
    row_of_column: Tensor
    """(P, C)"""
    status: Tensor
    """(P,): 0 all of the shorter side are matched, 1 not all can be, 2 NaN or -inf under ``nonfinite="raise"``."""


def linear_sum_assignment(
    cost: Tensor,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    *,
    maximize: bool = False,
    nonfinite: str = "forbid",
) -> Assignment:
    r"""Matches rows with columns, one to one, so that the costs of the matched pairs have the smallest sum.

    .. math:: \min_x \sum_i c_{i,x(i)}

    over the one-to-one maps x from the shorter side to the longer, for each of P matrices. Exact, by shortest
    augmenting paths with potentials in float64; the indices are those that ``scipy.optimize.linear_sum_assignment``
    returns, among equally good assignments too. Not differentiable: ``cost`` is read as a constant.

    Args:
        cost: (P, R, C), any strides; float64, float32, float16, bfloat16, int64, int32 or bool. Each entry is converted
            to float64, so integers beyond 2^53 are rounded to the nearest float64 (SciPy does the same). Other types
            than float64 and float32 are copied first.
        rows: (P,) int64, how many leading rows of each matrix take part, clamped to [0, R]; None: all. The others are
            not read.
        columns: (P,) int64, the same for columns.
        maximize: Find the largest sum instead.
        nonfinite: What an entry that is not finite means.
            ``"forbid"``: the pair is forbidden. Assignments are compared by the number of forbidden pairs first, then
            by the cost of the others, without a large number standing in for infinity; forbidden pairs that cannot be
            avoided are left unmatched (-1).
            ``"raise"``: as SciPy: +inf forbids a pair, -inf or NaN is an error, and so is a matrix in which the shorter
            side cannot be matched completely (with ``maximize``, -inf and +inf change places). This is the only option
            that waits for the device.
            ``"clamp"``: NaN and +inf become 100, -inf becomes -100, as in many DETR3D style assigners.
            ``"finfo_max"``: each becomes the largest finite value of the dtype, as in transformers' matchers. Beside
            numbers of that size the other costs lose their digits: where such a pair is chosen the rest may be wrong.

    Returns:
        ``column_of_row`` (P, R) and ``row_of_column`` (P, C), inverse to each other, -1 where unmatched, and ``status``
        (P,). All are int64 and on the device of ``cost``.

    Raises:
        ValueError: For shapes and options; with ``nonfinite="raise"`` for "cost matrix is infeasible" and "matrix
            contains invalid numeric entries"; under ``pydistill.checking`` for ``rows`` and ``columns`` out of range.
        TypeError: For a dtype that is not listed.

    Reference:
        D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE Transactions on Aerospace and
        Electronic Systems 52(4), 2016; the order among equal columns is that of SciPy 1.17.
    """
    _check.tensors("linear_sum_assignment", cost=cost)
    _check.optional("linear_sum_assignment", rows=rows, columns=columns)
    if cost.ndim == 3:
        for name, counts, size in (("rows", rows, cost.shape[1]), ("columns", columns, cost.shape[2])):
            if counts is not None:
                _check.counts("linear_sum_assignment", counts, size, name)
    result = Assignment(*assign(cost, rows, columns, maximize, policy("linear_sum_assignment", nonfinite), 1))
    if nonfinite == "raise":
        raise_on(result.status)
    return result


def linear_sum_assignment_reference(
    cost: Tensor,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    *,
    maximize: bool = False,
    nonfinite: str = "forbid",
) -> Assignment:
    """The specification, by SciPy: one matrix at a time on the host.

    ``"forbid"`` uses a cost larger than any assignment of the finite ones can make up for, so it is exact only while
    that number leaves the others their digits.
    """
    from scipy.optimize import linear_sum_assignment as solve

    p, r, c = cost.shape
    column_of_row, row_of_column, status = (torch.full(shape, -1) for shape in ((p, r), (p, c), (p,)))
    for k in range(p):
        m, n = (size if t is None else min(max(int(t[k]), 0), size) for t, size in ((rows, r), (columns, c)))
        matrix = cost[k, :m, :n].detach().cpu()
        finite = matrix.isfinite()
        entries = _without_nonfinite(matrix, finite, nonfinite, maximize).double()
        i, j = (torch.from_numpy(index) for index in solve(entries.numpy(), maximize))
        kept = finite[i, j] | (nonfinite != "forbid")
        column_of_row[k, i[kept]], row_of_column[k, j[kept]] = j[kept], i[kept]
        status[k] = int(not kept.all())
    return Assignment(*(t.to(cost.device) for t in (column_of_row, row_of_column, status)))


def _without_nonfinite(matrix: Tensor, finite: Tensor, nonfinite: str, maximize: bool) -> Tensor:
    if nonfinite == "raise" or finite.all():
        return matrix
    if nonfinite == "clamp":
        return matrix.nan_to_num(100.0, 100.0, -100.0)
    if nonfinite == "finfo_max":
        return matrix.where(finite, torch.finfo(matrix.dtype).max)
    matrix = matrix.double()
    big = 2 * min(matrix.shape) * matrix.where(finite, 0.0).abs().max() + 1
    return matrix.where(finite, -big if maximize else big)


def policy(op: str, nonfinite: str) -> int:
    """The number by which the kernels know ``nonfinite``."""
    if nonfinite not in NONFINITE:
        raise ValueError(f"{op}: expected nonfinite to be one of {', '.join(NONFINITE)}, got {nonfinite}")
    return NONFINITE.index(nonfinite)


def raise_on(status: Tensor) -> None:
    """SciPy's errors. Waits for the device."""
    worst = int(status.max()) if status.numel() else 0
    if worst:
        raise ValueError("matrix contains invalid numeric entries" if worst == 2 else "cost matrix is infeasible")


def _solve(
    cost: Tensor, rows: Tensor | None, columns: Tensor | None, maximize: bool, nonfinite: int, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    if cost.dtype not in _COSTS:
        raise TypeError(f"linear_sum_assignment: expected cost of dtype float, int64, int32 or bool, got {cost.dtype}")
    kernels, where = _C.on(cost)
    outputs = _shapes(cost, rows, columns, maximize, nonfinite, groups)
    problems, r, c = outputs[2].numel(), cost.shape[1] // groups, cost.shape[2]
    largest = torch.finfo(cost.dtype).max if cost.dtype.is_floating_point else 0.0
    if cost.dtype not in (torch.float64, torch.float32):  # rare, so not worth kernels of their own
        cost = cost.to(torch.float32 if cost.dtype.is_floating_point else torch.float64)
    size = kernels.linear_sum_assignment_workspace(r, c, nonfinite == 0)
    workspace = cost.new_empty((problems, size), dtype=torch.uint8) if size else None
    rows, columns = (None if t is None else t.contiguous() for t in (rows, columns))
    kernels.linear_sum_assignment(where, cost, rows, columns, maximize, nonfinite, largest, groups, workspace, *outputs)
    return outputs


def _shapes(
    cost: Tensor, rows: object, columns: object, maximize: bool, nonfinite: int, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    if cost.ndim != 3:
        raise ValueError(f"linear_sum_assignment: expected cost of shape (P, R, C), got {list(cost.shape)}")
    p, r, c = cost.shape
    if groups < 1 or r % groups:
        raise ValueError(f"linear_sum_assignment: expected groups that divide {r} rows, got {groups}")
    column_of_row = cost.new_empty((p, r), dtype=torch.int64)
    return column_of_row, column_of_row.new_empty(p * groups, c), column_of_row.new_empty(p * groups)


_op = Op(
    "linear_sum_assignment(Tensor cost, Tensor? rows, Tensor? columns, bool maximize, int nonfinite, int groups)"
    " -> (Tensor, Tensor, Tensor)",
    _solve,
    fake=_shapes,
)


def assign(
    cost: Tensor, rows: Tensor | None, columns: Tensor | None, maximize: bool, nonfinite: int, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The op: each matrix is ``groups`` problems, of R / groups consecutive rows each.

    ``rows`` (of a group) and ``columns`` may be shorter than P where their length divides it: they then repeat.
    Returns (P, R), (P * groups, C) with rows numbered in the whole matrix, (P * groups,).
    """
    cost = cost.detach() if cost.requires_grad else cost
    return _op(cost, rows, columns, maximize, nonfinite, groups)  # type: ignore[no-any-return]
