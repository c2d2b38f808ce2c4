"""The assignment against SciPy itself: indices, not only costs, wherever SciPy has an answer."""

import os
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment as scipy_assignment
from torch._subclasses.fake_tensor import FakeTensorMode

from pydistill.ops.linear_sum_assignment import linear_sum_assignment, linear_sum_assignment_reference
from tests.conformance import assert_captured
from tests.golden import golden

GOLDEN = golden("detr_lsa")
CASES = sorted({name[4:6] for name in GOLDEN})
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
INF = float("inf")
# tests/cpp/shim plays every thread of a GPU, some hundred times slower
MATRICES = 200 if os.environ.get("PYDISTILL_ISA") == "shim" else 4994
each_device = pytest.mark.parametrize("device", DEVICES)


def solve(matrix, device="cpu", **options):
    return linear_sum_assignment(torch.as_tensor(matrix)[None].to(device), **options)


def scipy_maps(matrix, maximize=False):
    """SciPy's pairs in our form."""
    rows, columns = np.full(matrix.shape[0], -1), np.full(matrix.shape[1], -1)
    i, j = scipy_assignment(matrix, maximize)
    rows[i], columns[j] = j, i
    return rows, columns


def assert_same(result, want, p=0):
    np.testing.assert_array_equal(result.column_of_row[p].cpu().numpy(), want[0])
    np.testing.assert_array_equal(result.row_of_column[p].cpu().numpy(), want[1])


@each_device
@pytest.mark.parametrize("case", CASES)
def test_golden(case, device):
    cost, maximize, row, col, error = (GOLDEN[f"lsa_{case}_{k}"] for k in ("cost", "maximize", "row", "col", "err"))
    options = {"maximize": bool(maximize), "nonfinite": "raise"}
    if error:
        message = ["", "cost matrix is infeasible", "matrix contains invalid numeric entries"][error]
        with pytest.raises(ValueError, match=message):
            solve(cost, device, **options)
        return
    result = solve(cost, device, **options)
    matched = (result.column_of_row[0] >= 0).nonzero()[:, 0]
    assert matched.tolist() == row.tolist()
    assert result.column_of_row[0, matched].tolist() == col.tolist()
    assert cost[row, col].sum() == pytest.approx(GOLDEN[f"lsa_{case}_value"], rel=1e-12)
    assert result.status.item() == 0


def random_matrix(rng, largest=24):
    r, c = (int(n) for n in rng.integers(1, largest, 2))
    kind = rng.integers(6)
    if kind == 0:
        return rng.integers(0, 4, (r, c)).astype(np.float64)
    if kind == 1:
        return rng.integers(-3, 3, (r, c)).astype([np.int64, np.int32][rng.integers(2)])
    if kind == 2:
        return rng.integers(0, 2, (r, c)).astype(bool)
    if kind == 3:
        return np.round(rng.normal(size=(r, c)), 1).astype(np.float32)
    matrix = rng.normal(size=(r, c)).astype([np.float32, np.float64][rng.integers(2)])
    if kind == 4:
        matrix[rng.random((r, c)) < 0.15] = INF
    return matrix


@pytest.mark.parametrize("seed", range(4))
def test_random_matrices_give_scipys_indices(seed):
    """With the large ones 20000 matrices: ties, integers, infinities; tall, wide, square; plain and transposed."""
    rng = np.random.default_rng(seed)
    for _ in range(MATRICES):
        matrix = random_matrix(rng)
        maximize = bool(rng.integers(2)) and not np.isinf(matrix).any()
        if rng.integers(2):
            matrix = matrix.T
        try:
            want = scipy_maps(matrix, maximize)
        except ValueError:
            with pytest.raises(ValueError, match="cost matrix is infeasible"):
                solve(matrix, nonfinite="raise")
            continue
        assert_same(solve(matrix, maximize=maximize, nonfinite="raise"), want)
        assert_same(solve(matrix, maximize=maximize), want)


@each_device
@pytest.mark.parametrize(
    "shape",
    # the state of (900, 100) is just under 48 KB, which on a GPU is too much for a block's own memory
    [(300, 900), (900, 300), (300, 300), (1, 900), (900, 20), (900, 100), (128, 129), (127, 128), (64, 65)],
)
@pytest.mark.parametrize("kind", ["normal", "ties", "near"])
def test_large_matrices(shape, kind, device):
    rng = np.random.default_rng(7)
    x = {"normal": rng.normal(size=shape), "ties": rng.integers(0, 9, shape), "near": 1e8 + rng.integers(0, 50, shape)}[
        kind
    ]
    x = x.astype(np.float32 if kind == "near" else np.float64)
    assert_same(solve(x, device), scipy_maps(x))


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_floating_type_is_solved_in_float64(dtype, device):
    cost = torch.randn(3, 40, 25, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    result = linear_sum_assignment(cost)
    for p in range(3):
        assert_same(result, scipy_maps(cost[p].double().cpu().numpy()), p)


def test_integers_beyond_2_to_53_round_like_scipys():
    cost = 2**62 + np.arange(9).reshape(3, 3)[::-1] * 3
    assert_same(solve(cost), scipy_maps(cost))


@each_device
def test_ragged_problems_read_only_their_part(device):
    rng = torch.Generator().manual_seed(2)
    cost = torch.randn(40, 15, 18, generator=rng)
    rows, columns = torch.randint(-2, 18, (40,), generator=rng), torch.randint(-2, 21, (40,), generator=rng)
    m, n = rows.clamp(0, 15), columns.clamp(0, 18)
    for p in range(40):
        cost[p, m[p] :], cost[p, :, n[p] :] = float("nan"), float("nan")
    result = linear_sum_assignment(cost.to(device), rows.to(device), columns.to(device), nonfinite="raise")
    for p in range(40):
        want = np.full(15, -1), np.full(18, -1)
        want[0][: m[p]], want[1][: n[p]] = scipy_maps(cost[p, : m[p], : n[p]].numpy())
        assert_same(result, want, p)


@each_device
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 0, 0)])
def test_empty(shape, device):
    result = linear_sum_assignment(torch.empty(shape, device=device))
    p, r, c = shape
    assert result.column_of_row.tolist() == [[-1] * r] * p
    assert result.row_of_column.tolist() == [[-1] * c] * p
    assert result.status.tolist() == [0] * p


@each_device
def test_strides_do_not_matter(device):
    cost = torch.randn(4, 30, 20, 2, device=device)[..., 0]
    want = linear_sum_assignment(cost.contiguous())
    for view in (
        cost,
        cost.flip(0).flip(0),
        cost.transpose(1, 2).contiguous().transpose(1, 2),
        cost.transpose(0, 1).contiguous().transpose(0, 1),
    ):
        for got, expected in zip(linear_sum_assignment(view), want):
            assert torch.equal(got, expected)


def brute_force(matrix):
    """(forbidden pairs, exact cost) of the best assignment."""
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    entries = [[(0, Fraction(x)) if np.isfinite(x) else (1, Fraction(0)) for x in row] for row in matrix.tolist()]
    r, c = matrix.shape
    return min(tuple(map(sum, zip(*(entries[i][j] for i, j in enumerate(x))))) for x in permutations(range(c), r))


def value_of(result, matrix):
    pairs = [(i, j) for i, j in enumerate(result.column_of_row[0].tolist()) if j >= 0]
    assert all(result.row_of_column[0, j] == i for i, j in pairs)
    assert (result.row_of_column[0] >= 0).sum() == len(pairs)
    assert all(np.isfinite(matrix[i, j]) for i, j in pairs)
    forced = min(matrix.shape) - len(pairs)
    assert result.status.item() == (forced > 0)
    return forced, sum((Fraction(float(matrix[i, j])) for i, j in pairs), Fraction(0))


@pytest.mark.parametrize("maximize", [False, True])
def test_forbid_is_lexicographic(maximize):
    """Against all assignments in exact arithmetic; costs from 1e-6 to 1e6: a large stand-in would lose digits."""
    rng = np.random.default_rng(3)
    sign = -1 if maximize else 1
    forced = 0
    for _ in range(500):
        r, c = rng.integers(1, 6, 2)
        matrix = rng.integers(-99, 99, (r, c)) * 10.0 ** rng.integers(-6, 7, (r, c))
        bad = rng.random((r, c)) < 0.5
        matrix[bad] = rng.choice([INF, -INF, np.nan], bad.sum())
        got, want = value_of(solve(matrix, maximize=maximize), matrix), brute_force(sign * matrix)
        assert got[0] == want[0] and float(sign * got[1]) == pytest.approx(float(want[1]), rel=1e-9, abs=1e-9)
        forced += got[0] > 0
    assert forced > 100


def test_forced_pairs_leave_the_others_optimal():
    """10 queries, 9 targets, two queries without any finite cost: where float32's largest value stands in for infinity
    most of the other pairs come out wrong (346 of 400 in SciPy); here none does."""
    rng = np.random.default_rng(4)
    wrong = {"forbid": 0, "finfo_max": 0}
    for _ in range(400):
        matrix = rng.random((10, 9)).astype(np.float32)
        bad = rng.choice(10, 2, replace=False)
        matrix[bad] = np.nan
        rest = np.delete(matrix, bad, 0).astype(np.float64)
        best = rest[scipy_assignment(rest)].sum()
        for nonfinite in wrong:
            pairs = [
                (i, j)
                for i, j in enumerate(solve(matrix, nonfinite=nonfinite).column_of_row[0].tolist())
                if j >= 0 and i not in bad
            ]
            assert len(pairs) == 8
            wrong[nonfinite] += sum(float(matrix[i, j]) for i, j in pairs) > best + 1e-6
    assert wrong["forbid"] == 0
    assert wrong["finfo_max"] > 200


@each_device
@pytest.mark.parametrize("nonfinite", ["clamp", "finfo_max", "forbid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_policies_equal_the_reference(nonfinite, dtype, device):
    rng = torch.Generator().manual_seed(5)
    cost = 20 * torch.randn(60, 12, 9, generator=rng)  # some beyond 10, none beyond 100
    chance = torch.rand(cost.shape, generator=rng)
    cost[chance < 0.1], cost[(chance > 0.1) & (chance < 0.2)], cost[chance > 0.95] = INF, float("nan"), -INF
    cost = cost.to(device, dtype)
    for got, want in zip(
        linear_sum_assignment(cost, nonfinite=nonfinite), linear_sum_assignment_reference(cost, nonfinite=nonfinite)
    ):
        assert torch.equal(got, want)


@each_device
def test_every_entry_forbidden(device):
    result = linear_sum_assignment(torch.full((2, 3, 4), float("nan"), device=device))
    assert (result.column_of_row == -1).all() and (result.row_of_column == -1).all()
    assert result.status.tolist() == [1, 1]


def test_raise_reports_the_first_of_scipys_errors():
    cost = torch.zeros(2, 2, 2)
    cost[1, 0, 0] = -INF
    with pytest.raises(ValueError, match="matrix contains invalid numeric entries"):
        linear_sum_assignment(cost, nonfinite="raise")
    assert linear_sum_assignment(cost, maximize=True, nonfinite="raise").status.tolist() == [0, 0]


@each_device
def test_repeats_bit_for_bit(device):
    cost = torch.randint(0, 3, (9, 70, 50), generator=torch.Generator().manual_seed(6)).to(device)
    for a, b in zip(linear_sum_assignment(cost), linear_sum_assignment(cost)):
        assert torch.equal(a, b)


def test_threads_do_not_matter():
    cost, threads = torch.randn(20, 60, 70), torch.get_num_threads()
    one, two = [], []
    for n, kept in ((1, one), (2, two)):
        torch.set_num_threads(n)
        kept.extend(linear_sum_assignment(cost))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, two))


@each_device
def test_registration(device):
    cost, counts = torch.randn(4, 6, 5, device=device), torch.tensor([1, 5], device=device)
    overload = torch.ops.pydistill.linear_sum_assignment.default
    torch.library.opcheck(overload, (cost, None, None, False, 0, 1))
    torch.library.opcheck(overload, (cost.double(), counts, counts, True, 2, 3))


def test_fake_tensors():
    with FakeTensorMode():
        result = linear_sum_assignment(torch.empty(2, 5, 3, device="cuda"))
    assert [tuple(t.shape) for t in result] == [(2, 5), (2, 3), (2,)]
    assert all(t.dtype == torch.int64 and t.device.type == "cuda" for t in result)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", [(6, 20, 30), (2, 400, 900)], ids=str)
def test_captured_in_a_graph(shape):
    """Problems in shared memory, and problems that exceed it."""
    cost, other = torch.rand(2, *shape, device="cuda")
    assert_captured(lambda: linear_sum_assignment(cost), [cost], [other])


def test_has_no_gradient():
    assert not linear_sum_assignment(torch.rand(1, 3, 3, requires_grad=True)).column_of_row.requires_grad


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: linear_sum_assignment(torch.rand(3, 4)),
            ValueError,
            r"expected cost of shape \(P, R, C\), got \[3, 4\]",
        ),
        (
            lambda: linear_sum_assignment(torch.rand(1, 3, 4), nonfinite="x"),
            ValueError,
            "expected nonfinite to be one of forbid, .*, got x",
        ),
        (
            lambda: linear_sum_assignment(torch.rand(1, 3, 4).to(torch.complex64)),
            TypeError,
            "expected cost of dtype .*, got torch.complex64",
        ),
        (
            lambda: linear_sum_assignment(torch.rand(2, 3, 4), torch.zeros(3).long()),
            ValueError,
            r"expected rows of one entry a problem, got \[3\]",
        ),
        (
            lambda: linear_sum_assignment(torch.rand(2, 3, 4), None, torch.zeros(2)),
            TypeError,
            "expected columns of dtype int64, got float32",
        ),
        (
            lambda: linear_sum_assignment(torch.rand(2, 3, 4), torch.zeros(1, 2).long()),
            ValueError,
            r"expected rows of shape \(P,\), got \[1, 2\]",
        ),
    ],
)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=f"linear_sum_assignment: {message}"):
        call()
