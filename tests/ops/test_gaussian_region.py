import numpy as np
import pytest
import torch

from pydistill import checking
from pydistill.ops import BEVGrid, gaussian_region
from pydistill.ops.gaussian_region import gaussian_region_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.golden import golden
from tests.ops.bev import OFFICIAL, RECT, SMALL, array, random_boxes
from tests.ops.cases import CASES

Z = golden("unidistill_masks")
GRID = BEVGrid(-4, -3, 0.5, 0.25, 11, 17)


def boxes(b, m, grid=GRID, *, classes=0):
    def make(rng):
        made = list(random_boxes(rng, b, m, grid))
        return made + [torch.randint(-1, classes + 1, (b, m), generator=rng)] * bool(classes)

    return make


def on_grid(fn):
    """``fn`` on GRID, with labels by position."""

    def call(boxes, valid, labels=None, **kwargs):
        return fn(boxes, valid, GRID, labels=labels, **kwargs)

    return call


B, V = torch.rand(2, 3, 7), torch.ones(2, 3, dtype=torch.bool)


class TestGaussianRegion(Conformance):
    fn, reference = on_grid(gaussian_region), on_grid(gaussian_region_reference)
    cases = {
        "released": Case(boxes(2, 6)),
        "corrected": Case(boxes(2, 6), dict(formula="corrected", overlap=0.1, min_radius=2)),
        "classes": Case(boxes(2, 9, classes=3), dict(num_classes=3)),
        "no-boxes": Case(boxes(2, 0)),
    }
    empty = Case(boxes(0, 6))
    wrong = {
        "boxes": (lambda: gaussian_region(B[0], V, GRID), ValueError, r"\(B, M, 5 or more\), got \[3, 7\]"),
        "dtype": (lambda: gaussian_region(B.long(), V, GRID), TypeError, "boxes of a floating point dtype"),
        "grid": (lambda: gaussian_region(B, V, None), TypeError, "expected grid as a BEVGrid, got NoneType"),
        "valid": (lambda: gaussian_region(B, V[:1], GRID), ValueError, r"valid of shape \[2, 3\], got \[1, 3\]"),
        "valid-dtype": (
            lambda: gaussian_region(B, V.int(), GRID),
            TypeError,
            "valid of dtype torch.bool, got torch.int32",
        ),
        "labels": (lambda: gaussian_region(B, V, GRID, labels=V.long()), ValueError, "together, got labels .* None"),
        "classes": (
            lambda: gaussian_region(B, V, GRID, num_classes=2),
            ValueError,
            "got labels None and num_classes 2",
        ),
        "overlap": (lambda: gaussian_region(B, V, GRID, overlap=1.0), ValueError, r"in \(0, 1\), got 1.0"),
        "radius": (lambda: gaussian_region(B, V, GRID, min_radius=-1), ValueError, "min_radius >= 0, got -1"),
        "formula": (lambda: gaussian_region(B, V, GRID, formula="x"), ValueError, "formula in .*, got 'x'"),
    }


@pytest.mark.parametrize("fn", [gaussian_region, gaussian_region_reference])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "grid"), [("small", SMALL), ("rect", RECT), ("official", OFFICIAL)])
def test_golden(name, grid, dtype, fn):
    """A barrier's centre lies on the edge of a cell; a sum of all ten numbers that is 0 ends the released loop."""
    at = array(Z[f"{name}_boxes"], dtype)
    got = fn(at, at.abs().sum(-1) > 0, grid)
    assert relative_error(got, torch.tensor(Z[f"{name}_mask"])) < 1e-6


def test_golden_radii():
    """A box alone on a large map paints as far as its radius reaches."""
    grid = BEVGrid(-200, -200, 1, 1, 401, 401)
    for overlap in (0.7, 0.1, 0.5):
        table = Z[f"radius_table_overlap{overlap}"]
        sizes = [(i, k) for i in range(11) for k in range(11) if table[i, k] < 200 and table[i, k] % 1 > 1e-6]
        at = torch.zeros(len(sizes), 1, 7, dtype=torch.float64)
        for row, (i, k) in enumerate(sizes):
            at[row, 0, 3], at[row, 0, 4] = Z["radius_sizes"][i], Z["radius_sizes"][k]
        for first in range(0, len(sizes), 40):
            some = at[first : first + 40]
            region = gaussian_region(some, torch.ones(len(some), 1, dtype=torch.bool), grid, overlap=overlap)
            reach = ((region[:, 200] > 0).sum(-1) - 1) // 2
            assert reach.tolist() == [int(table[i, k]) for i, k in sizes[first : first + 40]]


def test_golden_bells():
    for radius in (0, 1, 2, 3, 5, 8):
        grid = BEVGrid(-0.5 - radius, -0.5 - radius, 1, 1, 2 * radius + 1, 2 * radius + 1)
        one = torch.zeros(1, 1, 7, dtype=torch.float64)
        got = gaussian_region(one, torch.ones(1, 1, dtype=torch.bool), grid, min_radius=radius)[0]
        assert relative_error(got, torch.tensor(Z[f"patch_r{radius}"])) < 1e-12


def least_iou(length, width, r):
    """Of a box with itself moved by r along both axes, shrunk by r on each side, or grown."""
    area, moved = length * width, max(length - r, 0) * max(width - r, 0)
    shrunk = max(length - 2 * r, 0) * max(width - 2 * r, 0)
    return min(moved / (2 * area - moved), shrunk / area, area / ((length + 2 * r) * (width + 2 * r)))


def test_corrected_radius_is_the_largest_that_keeps_the_overlap():
    rng = np.random.default_rng(0)
    grid = BEVGrid(-100, -100, 1, 1, 1, 201)
    for _ in range(CASES):
        length, width, overlap = *rng.uniform(3, 90, 2), rng.uniform(0.2, 0.9)
        box = torch.tensor([[[0.5, -99.5, 0, length, width, 1, 0]]], dtype=torch.float64)
        region = gaussian_region(box, torch.ones(1, 1, dtype=torch.bool), grid, overlap=overlap, formula="corrected")
        reach = (int((region > 0).sum()) - 1) // 2
        assert least_iou(length, width, reach) >= overlap - 1e-9
        assert least_iou(length, width, reach + 1) < overlap + 1e-9


@each_device
def test_what_paints_nothing(device):
    good = torch.tensor([0.0, 0, 0, 4, 2, 1, 0])
    for at, value in ((0, torch.nan), (1, torch.inf), (3, torch.inf), (4, torch.nan), (3, -1.0), (4, -0.1), (0, 1e30)):
        bad = good.clone()
        bad[at] = value
        at = torch.stack([good, bad])[:, None].to(device)
        region = gaussian_region(at, torch.ones(2, 1, dtype=torch.bool, device=device), OFFICIAL)
        assert region[0].max() == 1 and (region[1] == 0).all()
    nothing = gaussian_region(at, torch.zeros(2, 1, dtype=torch.bool, device=device), OFFICIAL)
    assert (nothing == 0).all()


def test_zero_size_and_just_below_zero():
    """One cell each. The released code rounds towards 0: -0.9 cells are in cell 0."""
    at = torch.zeros(1, 2, 7)
    at[0, 0, :2], at[0, 1, :2] = torch.tensor([-4.45, -3.2]), torch.tensor([0.1, -1.9])
    region = gaussian_region(at, torch.ones(1, 2, dtype=torch.bool), GRID)[0]
    assert region.sum() == 2 and region.nonzero().tolist() == [[0, 0], [4, 8]]


@pytest.mark.parametrize("length", [torch.nan, -1.0])
def test_checking_says_where(length):
    at, valid, labels = torch.zeros(1, 3, 7), torch.tensor([[True, True, False]]), torch.tensor([[0, 1, -1]])
    at[0, 2] = torch.nan  # not looked at
    with checking(True):
        gaussian_region(at, valid, GRID, labels=labels, num_classes=2)
        with pytest.raises(ValueError, match=r"expected labels in \[0, 1\), got 1 at \[0, 1\]"):
            gaussian_region(at, valid, GRID, labels=labels, num_classes=1)
        at[0, 1, 3] = length
        with pytest.raises(ValueError, match=r"expected finite boxes, not inverted, got \[.*\] at \[0, 1\]"):
            gaussian_region(at, valid, GRID)
