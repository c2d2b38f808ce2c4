import numpy as np
import pytest
import torch

from pydistill.ops import inside_region
from pydistill.ops.inside_region import inside_region_reference
from tests.conformance import Case, Conformance, each_device
from tests.ops.boxes import grid_anchors, numpy_boxes, random_boxes
from tests.ops.cases import CASES

POINTS = grid_anchors(128, 192)[0].view(-1, 2, 2).mean(1)
BOXES = torch.rand(1, 2, 4)
ONE = torch.tensor([1])


def tensors_first(fn):
    return lambda points, boxes, counts, valid=None: fn(points, boxes, counts, valid=valid)


def images(*counts, padding=6, valid=False):
    def make(rng):
        made = [POINTS, random_boxes(rng, len(counts), padding, size=60.0), torch.tensor(counts, dtype=torch.int64)]
        return made + [torch.rand(len(counts), len(POINTS), generator=rng) < 0.7] * valid

    return make


class TestInsideRegion(Conformance):
    fn, reference = tensors_first(inside_region), tensors_first(inside_region_reference)
    cases = {
        "batch": Case(images(6, 0, 3)),
        "crowd": Case(images(40, 17, padding=40)),
        "valid": Case(images(6, 2, valid=True)),
    }
    empty = Case(images(padding=3))
    wrong = {
        "points": (lambda: inside_region(BOXES[0], BOXES, ONE), ValueError, r"points of shape \(A, 2\), got \[2, 4\]"),
        "boxes": (lambda: inside_region(POINTS, BOXES[0], ONE), ValueError, r"boxes of shape \(B, G, 4\)"),
        "valid": (
            lambda: inside_region(POINTS, BOXES, ONE, valid=torch.ones(1, 3, dtype=torch.bool)),
            ValueError,
            r"inside_region: expected valid of shape \[1, \d+\], got \[1, 3\]",
        ),
        "dtype": (lambda: inside_region(POINTS.long(), BOXES.long(), ONE), TypeError, "boxes of a floating point"),
    }


def test_a_thousand_random_cases():
    """Half of them on a grid, where points lie on borders."""
    rng = np.random.default_rng(0)
    for case in range(CASES):
        a, g = rng.integers(0, (40, 6))
        boxes, points = numpy_boxes(rng, 1, g, coarse=case % 2), 40 * rng.random((a, 2))
        points = np.round(points / 2) * 2 if case % 2 else points
        count = rng.integers(-1, g + 2)
        want = np.zeros((1, a), bool)
        for x1, y1, x2, y2 in boxes[0, : max(count, 0)]:
            want[0] |= (
                np.minimum.reduce([points[:, 0] - x1, points[:, 1] - y1, x2 - points[:, 0], y2 - points[:, 1]]) > 0
            )
        got = inside_region(torch.tensor(points), torch.tensor(boxes), torch.tensor([count]))
        assert np.array_equal(got.numpy(), want)


@each_device
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_data_is_inside_nothing(device, bad):
    points = torch.tensor([[5.0, 5.0], [5.0, bad], [0.0, 5.0], [10.0, 10.0]], device=device)
    boxes = torch.tensor([[[0.0, 0, 10, 10], [-bad, -1, 20, 20], [20, 20, 0, 0], [5, 5, 5, 5]]], device=device)
    assert inside_region(points, boxes, torch.tensor([4], device=device)).tolist() == [[True, False, False, False]]
    assert not inside_region(points, boxes[:, 1:], torch.tensor([9], device=device)).any()
