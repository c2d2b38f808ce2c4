import numpy as np
import pytest
import torch

from pydistill.ops import fine_grained_region
from pydistill.ops.fine_grained_region import fine_grained_region_reference
from tests.conformance import Case, Conformance, each_device
from tests.ops.boxes import grid_anchors, numpy_boxes, numpy_iou, random_boxes
from tests.ops.cases import CASES

ANCHORS, _ = grid_anchors(128, 192)
BOXES = torch.rand(1, 2, 4)
ONE = torch.tensor([1])


def tensors_first(fn):
    return lambda anchors, boxes, counts, valid=None, **kwargs: fn(anchors, boxes, counts, valid=valid, **kwargs)


def images(*counts, padding=6, valid=False):
    def make(rng):
        made = [ANCHORS, random_boxes(rng, len(counts), padding, size=60.0), torch.tensor(counts, dtype=torch.int64)]
        return made + [torch.rand(len(counts), len(ANCHORS), generator=rng) < 0.7] * valid

    return make


class TestFineGrainedRegion(Conformance):
    fn, reference = tensors_first(fine_grained_region), tensors_first(fine_grained_region_reference)
    cases = {
        "batch": Case(images(6, 0, 3)),
        "crowd": Case(images(40, 17, padding=40), dict(factor=0.8)),
        "valid": Case(images(6, 2, valid=True)),
        "all-that-overlap": Case(images(1, 2), dict(factor=0.0)),
    }
    empty = Case(images(padding=3))
    wrong = {
        "anchors": (lambda: fine_grained_region(BOXES, BOXES, ONE), ValueError, r"anchors of shape \(A, 4\)"),
        "boxes": (lambda: fine_grained_region(ANCHORS, BOXES[0], ONE), ValueError, r"boxes of shape \(B, G, 4\)"),
        "factor": (
            lambda: fine_grained_region(ANCHORS, BOXES, ONE, factor=2),
            ValueError,
            r"factor in \[0, 1\], got 2",
        ),
        "dtype": (
            lambda: fine_grained_region(ANCHORS.long(), BOXES.long(), ONE),
            TypeError,
            "boxes of a floating point",
        ),
    }


def test_a_thousand_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        a, g = rng.integers(1, (40, 6))
        anchors, boxes, factor = numpy_boxes(rng, a), numpy_boxes(rng, 2, g), rng.random()
        counts, valid = rng.integers(-1, g + 2, 2), rng.random((2, a)) < 0.8
        want = np.zeros((2, a), bool)
        for i in range(2):
            for j in range(max(min(counts[i], g), 0)):
                overlap = numpy_iou(anchors, boxes[i, j : j + 1])[:, 0] * valid[i]
                want[i] |= overlap > factor * overlap.max()
        inputs = [torch.tensor(x) for x in (anchors, boxes, counts)]
        got = fine_grained_region(*inputs, factor=factor, valid=torch.tensor(valid))
        assert np.array_equal(got.numpy(), want)


@each_device
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_data_is_in_no_region(device, bad):
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, bad], [10, 10, 0, 0], [50, 50, 60, 60]], device=device)
    boxes = torch.tensor([[[0.0, 0, 10, 12], [0, 0, bad, 9], [9, 9, 0, 0], [90, 90, 99, 99]]], device=device)
    got = fine_grained_region(anchors, boxes, torch.tensor([9], device=device))
    assert got.tolist() == [[True, False, False, False]]  # the last box overlaps nothing: it adds nothing
    assert not fine_grained_region(anchors, boxes[:, 1:], torch.tensor([3], device=device)).any()
