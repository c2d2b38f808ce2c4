import numpy as np
import pytest
import torch

from pydistill.ops import assign_points
from pydistill.ops.assign_points import assign_points_reference
from tests.conformance import Case, Conformance, each_device
from tests.ops.boxes import grid_anchors, numpy_boxes, random_boxes
from tests.ops.cases import CASES

STRIDES, RANGES = (8, 16, 32), ((-1, 24), (24, 48), (48, torch.inf))
ANCHORS, LEVELS = grid_anchors(128, 192)
POINTS = ANCHORS.view(-1, 2, 2).mean(1) + 4
BOXES = torch.rand(1, 2, 4)
ONE = torch.tensor([1])


def tensors_first(fn):
    def call(points, boxes, counts, valid=None, **kwargs):
        return fn(points, STRIDES, LEVELS, boxes, counts, **{"regress_ranges": RANGES, "valid": valid, **kwargs})

    return call


assign = tensors_first(assign_points)


def images(*counts, padding=6, valid=False):
    def make(rng):
        made = [POINTS, random_boxes(rng, len(counts), padding, size=60.0), torch.tensor(counts, dtype=torch.int64)]
        return made + [torch.rand(len(counts), len(POINTS), generator=rng) < 0.7] * valid

    return make


class TestAssignPoints(Conformance):
    fn, reference = assign, tensors_first(assign_points_reference)
    cases = {
        "batch": Case(images(6, 0, 3)),
        "crowd": Case(images(40, 17, padding=40)),
        "anywhere-inside": Case(images(6, 2), dict(center_sampling=None)),
        "valid": Case(images(6, 2, valid=True), dict(center_sampling=2.5)),
    }
    empty = Case(images(padding=3))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
    wrong = {
        "points": (lambda: assign(ANCHORS, BOXES, ONE), ValueError, r"points of shape \(A, 2\)"),
        "boxes": (lambda: assign(POINTS, BOXES[0], ONE), ValueError, r"boxes of shape \(B, G, 4\)"),
        "strides": (
            lambda: assign_points(POINTS, [8, 16], LEVELS, BOXES, ONE),
            ValueError,
            "assign_points: expected strides of 3 levels, got 2",
        ),
        "ranges": (
            lambda: assign_points(POINTS, STRIDES, LEVELS, BOXES, ONE),
            ValueError,
            "regress_ranges of 3 levels, got 5",
        ),
        "levels": (
            lambda: assign_points(POINTS[:7], STRIDES, LEVELS, BOXES, ONE, regress_ranges=RANGES),
            ValueError,
            "level_sizes that add up",
        ),
        "dtype": (lambda: assign(POINTS.long(), BOXES.long(), ONE), TypeError, "boxes of a floating point"),
    }


def statement(point, stride, low, high, boxes, radius):
    """The box of one point, and its centerness."""
    best, least, centerness = -1, np.inf, 0.0
    for j, (x1, y1, x2, y2) in enumerate(boxes):
        left, top, right, bottom = point[0] - x1, point[1] - y1, x2 - point[0], y2 - point[1]
        away = max(abs(point[0] - (x1 + x2) / 2), abs(point[1] - (y1 + y2) / 2))
        inside = min(left, top, right, bottom) > 0 and (radius is None or away < radius * stride)
        if inside and low <= max(left, top, right, bottom) <= high and (x2 - x1) * (y2 - y1) < least:
            ratios = min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
            best, least, centerness = j, (x2 - x1) * (y2 - y1), np.sqrt(ratios)
    return best, centerness


def test_a_thousand_random_cases():
    """Half of them on a grid, where distances are at the ends of their ranges and areas are equal."""
    rng = np.random.default_rng(0)
    for case in range(CASES):
        sizes, g = rng.integers(0, 12, 3), rng.integers(0, 6)
        a, radius = sizes.sum(), [1.5, None, 0.5][case % 3]
        boxes, points = numpy_boxes(rng, 1, g, coarse=case % 2), 40 * rng.random((a, 2))
        points = np.round(points) if case % 2 else points
        count = rng.integers(0, g + 1)
        strides, ranges = (2, 4, 8), ((-1, 8), (8, 12), (12, np.inf))
        level = np.repeat(np.arange(3), sizes)
        want = [statement(p, strides[k], *ranges[k], boxes[0, :count], radius) for p, k in zip(points, level)]
        inputs = torch.tensor(points), strides, sizes.tolist(), torch.tensor(boxes), torch.tensor([count])
        got = assign_points(*inputs, regress_ranges=ranges, center_sampling=radius)
        assert got.gt_index[0].tolist() == [w[0] for w in want]
        assert np.allclose(got.centerness[0].numpy(), [w[1] for w in want], rtol=1e-12, atol=0)


@each_device
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_data_has_its_stated_result(device, bad):
    points = torch.tensor([[5.0, 5.0], [5.0, bad], [0.0, 5.0], [6.0, 6.0]], device=device)
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, bad, 9], [10, 10, 0, 0], [5, 5, 5, 5]]], device=device)
    valid = torch.tensor([[True, True, True, False]], device=device)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        counts = torch.tensor([4], device=device)
        got = assign_points(points, [8], [4], boxes[:, order], counts, regress_ranges=[(-1, 64)], valid=valid)
        assert got.gt_index.tolist() == [[order.index(0), -2, -1, -2]]
        assert got.centerness.tolist() == [[1.0, 0.0, 0.0, 0.0]]
