"""SciPy's own tests of ``linear_sum_assignment``, with ours in its place."""

import numpy as np
import pytest
import torch
from scipy.optimize.tests import test_linear_assignment as scipy_tests

from pydistill.ops.linear_sum_assignment import linear_sum_assignment


def as_scipy(cost, maximize=False):
    """SciPy's contract: array-like in, two index arrays out, its errors."""
    cost = np.asarray(cost)
    if cost.ndim != 2:
        raise ValueError(f"expected a matrix (2-D array), got a {cost.ndim} array")
    if cost.dtype.kind not in "biuf":
        raise TypeError(f"Cannot cast array data from {cost.dtype} to float64")
    result = linear_sum_assignment(torch.tensor(cost)[None], maximize=maximize, nonfinite="raise")
    columns = result.column_of_row[0].numpy()
    rows = np.flatnonzero(columns >= 0)
    return rows, columns[rows]


@pytest.fixture(autouse=True)
def ours_in_scipys_place(monkeypatch):
    monkeypatch.setattr(scipy_tests, "linear_sum_assignment", as_scipy)


globals().update({name: test for name, test in vars(scipy_tests).items() if name.startswith("test_")})
