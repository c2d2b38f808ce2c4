"""Matching that computes its costs as it searches, against the costs in memory and the assignment on them."""

import random

import pytest
import torch

from pydistill.ops.hungarian_match import hungarian_match
from pydistill.ops.linear_sum_assignment import NONFINITE, linear_sum_assignment
from pydistill.ops.match_cost import match_cost
from tests.conformance import each_device
from tests.ops.cases import CASES

IMAGES = CASES // 4


def problem(rng, queries, targets, classes, spoiled):
    """Coarse numbers, so that there are ties between rows, columns and sums; `spoiled`: NaN, infinity, wrong labels."""
    torch.manual_seed(rng.randrange(2**31))
    fine = rng.choice([2.0, 8.0, 1e6])
    logits = (torch.randn(IMAGES, queries, classes) * 2 * fine).round() / fine
    boxes, target_boxes = ((torch.rand(IMAGES, n, 4) * fine).round() / fine for n in (queries, targets))
    labels = torch.randint(classes, (IMAGES, targets))
    if spoiled:
        bad = torch.tensor([float("nan"), float("inf"), -float("inf"), -1.0])
        for x in (logits, boxes, target_boxes):
            where = torch.rand(x.shape) < 0.2 / max(1, x[0].numel())
            x[where] = bad[torch.randint(4, (int(where.sum()),))]
        labels[torch.rand(labels.shape) < 0.02] = classes
    return [logits, boxes, labels, target_boxes, torch.randint(-1, targets + 2, (IMAGES,))]


def options(rng):
    chosen = rng.choice([dict(class_cost="focal", gamma=2.0), dict(class_cost="focal", gamma=1.5), {},
                         dict(class_cost="softmax"), dict(class_cost="none"), dict(preset="mmdet_dino")])  # fmt: skip
    sizes = torch.randint(1, 9, (IMAGES, 2)).float() if "preset" in chosen or rng.random() < 0.3 else None
    return {
        **chosen,
        "image_sizes": sizes,
        "clamp_targets": rng.random() < 0.3,
        "l1_format": rng.choice(["cxcywh", "xyxy"]),
        "giou_eps": rng.choice([0.0, 1e-6]),  # at 0 there are NaN
    }


def one_after_the_other(xs, groups, nonfinite, **o):
    cost = match_cost(*xs, **o)
    n, q, t = cost.shape
    counts = None if xs[4] is None else xs[4].repeat_interleave(groups)
    found = linear_sum_assignment(cost.reshape(n * groups, q // groups, t), columns=counts, nonfinite=nonfinite)
    first = torch.arange(groups, device=cost.device).view(1, -1, 1) * (q // groups)
    of_target = found.row_of_column.view(n, groups, t)
    return torch.where(of_target < 0, -1, of_target + first), found.column_of_row.view(n, q)


def outcome(f):
    try:
        return tuple(f())
    except ValueError as error:
        return str(error)


def assert_same(xs, groups, nonfinite, **o):
    got = outcome(lambda: hungarian_match(*xs, groups=groups, nonfinite=nonfinite, **o))
    want = outcome(lambda: one_after_the_other(xs, groups, nonfinite, **o))
    if isinstance(want, str) or isinstance(got, str):
        assert got == want
    else:
        assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@each_device
@pytest.mark.parametrize("seed", range(44))
def test_equals_costs_then_assignment(seed, device):
    """11000 images (fewer under sanitizers), all costs and policies, with ties, NaN, infinity, counts and groups."""
    rng = random.Random(seed)
    groups, size = rng.choice([1, 1, 3]), rng.randint(1, 24)
    xs = problem(rng, groups * size, rng.randint(0, size - 1), rng.randint(1, 6), spoiled=seed % 2 == 0)
    o = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options(rng).items()}
    assert_same([x.to(device) for x in xs], groups, NONFINITE[seed // 2 % 4], **o)


@each_device
@pytest.mark.parametrize("nonfinite", ["forbid", "clamp"])
@pytest.mark.parametrize(
    "queries, targets",
    [
        (140, 30),
        (100, 85),
        pytest.param(300, 60, marks=pytest.mark.slow),
        pytest.param(900, 20, marks=pytest.mark.slow),
    ],
)
def test_equals_them_across_tiles(queries, targets, nonfinite, device):
    """Several tiles of match_cost; on a GPU a warp and a block, in their own scratch and in what the caller brings."""
    rng = random.Random(queries)
    for preset in ("detr", "deformable_detr"):
        xs = [x[:6].contiguous().to(device) for x in problem(rng, queries, targets, 11, spoiled=nonfinite == "clamp")]
        assert_same(xs, 1, nonfinite, preset=preset)


def test_a_row_that_is_not_finite_starts_the_search_again():
    """The last of four targets has a box that matches nothing, after the others have been matched."""
    torch.manual_seed(0)
    logits, boxes = torch.randn(1, 9, 3), torch.rand(1, 9, 4) * 0.5 + 0.1
    labels, target_boxes = torch.zeros(1, 4, dtype=torch.int64), boxes[:, :4].clone()
    target_boxes[0, 3, 2] = float("nan")
    found = hungarian_match(logits, boxes, labels, target_boxes, weights={"class": 0})
    assert found.query_of_target.tolist() == [[[0, 1, 2, -1]]]
    clamped = hungarian_match(logits, boxes, labels, target_boxes, weights={"class": 0}, nonfinite="clamp")
    assert (clamped.query_of_target >= 0).all() and clamped.query_of_target[0, 0, :3].tolist() == [0, 1, 2]
