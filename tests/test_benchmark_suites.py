"""Every public op is timed by a suite that says what it times, and contenders that disagree are not timed."""

import inspect

import pytest
import torch

from pydistill import ops
from pydistill.benchmarks.cases import agree, contenders, sides
from pydistill.benchmarks.suites import docstring, suites, timed

SUITES = [*suites().values()]
OPS = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]


def test_every_public_op_has_a_benchmark():
    missing = set(OPS).difference(*map(timed, SUITES))
    assert not missing, f"no suite in pydistill/benchmarks imports and names {sorted(missing)}"


@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_suites_say_how_operations_are_counted(suite):
    assert "Operations" in docstring(suite)


def test_contenders_that_disagree_are_not_timed():
    x = torch.ones(3, requires_grad=True)
    contenders(lambda x: x.sum(), lambda x: x.sum() * (1 + 1e-6), x, compiled=False)
    with pytest.raises(AssertionError, match="ours, output 0 of 2: relative error 0.001"):
        contenders(lambda x: x.sum() * 1.001, lambda x: x.sum(), x)
    with pytest.raises(AssertionError, match="peer, output 1 of 2: relative error 1,"):
        contenders(
            lambda x: x.sum(), lambda x: x.sum(), x, compiled=False, peer=lambda x: x.sum().detach() + 0 * x.sum()
        )
    with pytest.raises(AssertionError, match="ours, output 0 of 1: 1 of 2 differ"):
        agree("ours", torch.tensor([True, False]), torch.tensor([True, True]))


def test_scale_is_that_of_the_area():
    assert sides(4, 100, 168) == (200, 336)
    assert sides(0.0625, 100, 168) == (25, 42)
    assert sides(0.0001, 10) == (1,)
