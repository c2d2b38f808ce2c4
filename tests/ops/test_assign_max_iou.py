import numpy as np
import pytest
import torch

from pydistill.ops import assign_max_iou
from pydistill.ops.assign_max_iou import assign_max_iou_reference
from tests.conformance import Case, Conformance, each_device
from tests.ops.boxes import numpy_boxes, numpy_iou
from tests.ops.cases import CASES
from tests.ops.test_assign_atss import ANCHORS, images

BOXES = torch.rand(1, 2, 4)
ONE = torch.tensor([1])


def tensors_first(fn):
    def call(anchors, boxes, counts, valid=None, ignore_boxes=None, ignore_counts=None, **kwargs):
        given = dict(valid=valid, ignore_boxes=ignore_boxes, ignore_counts=ignore_counts)
        return fn(anchors, boxes, counts, **given, **kwargs)

    return call


class TestAssignMaxIou(Conformance):
    fn, reference = tensors_first(assign_max_iou), tensors_first(assign_max_iou_reference)
    cases = {
        "batch": Case(images(6, 0, 3)),
        "crowd": Case(images(40, 23, padding=40, size=90.0)),
        "no-low-quality": Case(images(6, 2), dict(match_low_quality=False)),
        "proposals": Case(images(6, 2), dict(positive=0.7, negative=0.3, min_positive=0.3)),
        "valid-and-ignored": Case(images(6, 0, 3, valid=True, ignore=True), dict(ignore_threshold=0.3)),
    }
    empty = Case(images(padding=3))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
    wrong = {
        "anchors": (lambda: assign_max_iou(BOXES, BOXES, ONE), ValueError, r"anchors of shape \(A, 4\)"),
        "boxes": (lambda: assign_max_iou(ANCHORS, BOXES[0], ONE), ValueError, r"boxes of shape \(B, G, 4\)"),
        "positive": (lambda: assign_max_iou(ANCHORS, BOXES, ONE, positive=0), ValueError, r"positive in \(0, 1\]"),
        "negative": (lambda: assign_max_iou(ANCHORS, BOXES, ONE, negative=0.6), ValueError, r"negative in \[0, posit"),
        "ignore": (
            lambda: assign_max_iou(ANCHORS, BOXES, ONE, ignore_counts=ONE),
            ValueError,
            "assign_max_iou: expected ignore_boxes and ignore_counts or neither, got only ignore_counts",
        ),
        "dtype": (lambda: assign_max_iou(ANCHORS.long(), BOXES.long(), ONE), TypeError, "boxes of a floating point"),
    }


def statement(anchors, boxes, valid, regions, positive, negative, least, low_quality):
    """One image, box by box as mmdetection's assigner goes: index, IoU and threshold."""
    area = np.maximum((anchors[:, 2:] - anchors[:, :2]).prod(1), 1e-6)
    index, own = np.full(len(anchors), -1), np.zeros(len(anchors))
    for x in regions:
        low, high = np.maximum(anchors[:, :2], x[:2]), np.minimum(anchors[:, 2:], x[2:])
        valid = valid & (np.clip(high - low, 0, None).prod(1) / area <= 0.5)
    if len(boxes):
        iou = numpy_iou(anchors, boxes) * valid[:, None]
        own, index = iou.max(1), np.where(iou.max(1) >= negative, -2, -1)
        index = np.where(iou.max(1) >= positive, iou.argmax(1), index)
        for j in range(len(boxes) if low_quality else 0):
            if iou[:, j].max() > 0 and iou[:, j].max() >= least:
                index[iou[:, j] > iou[:, j].max() - 1e-12] = j
        own = np.where(index >= 0, np.take_along_axis(iou, np.maximum(index, 0)[:, None], 1)[:, 0], 0)
    return np.where(valid, index, -2), np.where(valid, own, 0)


def test_a_thousand_random_cases():
    """Half of them on a grid, where anchors and boxes tie; two ignored regions in a third."""
    rng = np.random.default_rng(0)
    for case in range(CASES):
        a, g, m = rng.integers(1, 50), rng.integers(0, 7), 2 * (case % 3 == 0)
        anchors, boxes = (numpy_boxes(rng, *shape, coarse=case % 2) for shape in ((a,), (1, g)))
        regions, valid = numpy_boxes(rng, 1, m), rng.random((1, a)) < 0.8
        count, low = rng.integers(0, g + 1), bool(rng.integers(2))
        positive = 0.3 + 0.4 * rng.random()
        options = dict(positive=positive, negative=positive * rng.random(), min_positive=0.3 * rng.integers(2))
        index, own = statement(anchors, boxes[0, :count], valid[0], regions[0], *options.values(), low)
        inputs = [torch.tensor(x) for x in (anchors, boxes, [count])]
        flags = dict(match_low_quality=low, valid=torch.tensor(valid))
        ignore = dict(ignore_boxes=torch.tensor(regions), ignore_counts=torch.tensor([m]), ignore_threshold=0.5)
        got = assign_max_iou(*inputs, **options, **flags, **ignore)
        near = np.abs(own - got.max_iou[0].numpy()) < 1e-12
        assert near.all() and np.array_equal(got.gt_index[0].numpy(), index)
        assert (got.threshold[0, count:] == torch.inf).all()
        limits = got.threshold[0, :count].numpy()
        reached = (numpy_iou(anchors, boxes[0, :count]) * (index[:, None] > -2) >= limits - 1e-12).any(1)
        assert np.array_equal(reached & (index > -2), index >= 0)


@each_device
def test_a_box_that_nothing_overlaps_has_no_anchor(device):
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]], device=device)
    boxes = torch.tensor([[[50.0, 50, 60, 60], [5, 5, 5, 5]]], device=device)
    got = assign_max_iou(anchors, boxes, torch.tensor([2], device=device))
    assert got.gt_index.tolist() == [[-1, -1]] and got.threshold.tolist() == [[0.5, 0.5]]


@each_device
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_data_has_its_stated_result(device, bad):
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, bad], [10, 10, 0, 0], [50, 50, 60, 60]], device=device)
    boxes = torch.tensor([[[0.0, 0, bad, 9], [0, 0, 10, 12], [9, 9, 0, 0]]], device=device)
    got = assign_max_iou(anchors, boxes, torch.tensor([7], device=device))
    assert got.gt_index.tolist() == [[1, -2, -2, -1]]
    assert got.threshold.tolist() == [[torch.inf, 0.5, torch.inf]]
    none = assign_max_iou(anchors, boxes, torch.tensor([-7], device=device))
    assert none.gt_index.tolist() == [[-1, -2, -2, -1]] and (none.max_iou == 0).all()
