"""linear_sum_assignment against SciPy and, where it is installed, torch-linear-assignment.

Operations depend on the costs, and are not counted.
"""

from importlib.util import find_spec

import pytest
import torch
from scipy.optimize import linear_sum_assignment as scipy_assignment

from pydistill.benchmarks.cases import agree, sides
from pydistill.benchmarks.timing import rotate
from pydistill.ops import linear_sum_assignment


def random_costs(problems, scale, rows, columns):
    return torch.rand(problems, *sides(scale, rows, columns), generator=torch.Generator().manual_seed(0))


def name(shape):
    return f"{shape[0]}x{shape[1]}"


def scipy(cost):
    """SciPy on each, once it agrees with ours."""
    totals = torch.tensor([m[scipy_assignment(m)].sum() for m in cost.numpy()])
    column = linear_sum_assignment(cost).column_of_row
    ours = cost.gather(2, column.clamp(min=0)[..., None])[..., 0].where(column >= 0, 0).sum(1)
    agree("ours", ours, totals, 1e-5)
    return rotate(lambda matrices: [scipy_assignment(m) for m in matrices], cost.numpy())


def batch_linear_assignment(cost):
    """The peer torch-linear-assignment on the same matrices, or nothing where it is not installed."""
    if not find_spec("torch_linear_assignment"):
        return {}
    from torch_linear_assignment import batch_linear_assignment as assign

    agree("torch-linear-assignment", assign(cost), linear_sum_assignment(cost).column_of_row)
    return {"torch_linear_assignment": rotate(assign, cost)}


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (900, 100), (300, 300), (900, 900)], ids=name)
def test_one(compare, device, scale, shape):
    cost = random_costs(1, scale, *shape)
    compare(
        ours=rotate(linear_sum_assignment, cost.to(device)),
        scipy=scipy(cost),
        bytes_moved=4 * cost.numel(),
        iterations=max(1, 500_000 // cost.numel()),
        rounds=5 if cost.numel() > 500_000 else 15,
    )


@pytest.mark.parametrize("shape", [(300, 100), (300, 300), (300, 600)], ids=name)
def test_of_208(compare, device, scale, shape):
    """The shapes that torch-linear-assignment publishes its times for."""
    if device == "cpu" and shape != (300, 100):
        pytest.skip("0.7 s a round and more on a CPU, and the other shapes say as much of it")
    cost = random_costs(208, scale, *shape)
    there = cost.to(device)
    compare(
        ours=rotate(linear_sum_assignment, there),
        **batch_linear_assignment(there),
        scipy=scipy(cost),
        bytes_moved=4 * cost.numel(),
        rounds=5,
    )


@pytest.mark.parametrize("shape", [(300, 20), (300, 100)], ids=name)
def test_of_96_on_two_threads(compare, device, scale, shape):
    cost = random_costs(96, scale, *shape)
    torch.set_num_threads(2)
    compare(
        ours=rotate(linear_sum_assignment, cost.to(device)),
        scipy=scipy(cost),
        bytes_moved=4 * cost.numel(),
    )
