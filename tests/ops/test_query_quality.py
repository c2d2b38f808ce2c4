import numpy as np
import pytest
import torch

from pydistill import checking
from pydistill.ops import query_quality
from pydistill.ops.query_quality import query_quality_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.golden import golden
from tests.ops.cases import CASES

Z = golden("detr_distill")


def centred(corners):
    return torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)


def golden_inputs():
    """Predictions of three stages, the boxes of two images over the picture, and the size of those."""
    sizes, targets = torch.tensor(Z["dd_img_hw"]), torch.zeros(2, 5, 4, dtype=torch.float64)
    for b in range(2):
        corners = torch.tensor(Z[f"dd_gt_boxes_{b}"])
        targets[b, : len(corners)] = centred(corners / sizes[b].flip(0).repeat(2))
    return torch.tensor(Z["tf_cls_logits"]), torch.tensor(Z["tf_boxes"]), targets, torch.tensor([5, 3]), sizes


@pytest.mark.parametrize("fn", [query_quality, query_quality_reference])
def test_golden(fn):
    """The released code's queries, repeats among them, and their scores; then an image without boxes."""
    logits, boxes, targets, counts, sizes = golden_inputs()
    for options in ({}, dict(image_sizes=sizes)):
        got = fn(logits, boxes, targets, counts, form="released", topk=10, **options)
        assert np.array_equal(got.index, Z["tf_query_index"])
        assert relative_error(got.quality, torch.tensor(Z["tf_scores"])) < 1e-12
    got = fn(logits, boxes, targets, torch.tensor([5, 0]), form="released", topk=10)
    assert relative_error(got.quality, torch.tensor(Z["tf_scores_emptygt"])) < 1e-12


def test_released_is_the_square_of_the_paper_at_a_half():
    logits, boxes, targets, counts, _ = golden_inputs()
    logits = logits[..., :1]  # of one class the K best are the same queries
    paper = query_quality(logits, boxes, targets, counts, topk=10)
    released = query_quality(logits, boxes, targets, counts, topk=10, form="released")
    assert torch.equal(paper.index, released.index)
    assert relative_error(paper.quality.square(), released.quality) < 1e-12


def predictions(*stages, b=2, q=17, c=5, t=4, counts=(3, 0), sizes=False):
    """Scores, boxes cx cy w h, the targets of each image and, where they are wanted, the images' sizes."""

    def make(rng):
        def unit(*shape):
            return torch.rand(*shape, generator=rng, dtype=torch.float64)

        made = [3 * torch.randn(*stages, b, q, c, generator=rng, dtype=torch.float64)]
        made += [unit(*stages, b, q, 4), unit(b, t, 4), torch.tensor(counts[:b], dtype=torch.int64)]
        return made + [torch.tensor([[480, 640]] * b)] * sizes

    return make


def sizes_by_position(fn):
    def call(scores, boxes, target_boxes, counts, image_sizes=None, **kwargs):
        return fn(scores, boxes, target_boxes, counts, image_sizes=image_sizes, **kwargs)

    return call


quality = sizes_by_position(query_quality)
GOOD = [x.float() if x.is_floating_point() else x for x in predictions(3)(torch.Generator())]


class TestQueryQuality(Conformance):
    fn, reference = quality, sizes_by_position(query_quality_reference)
    cases = {
        "paper": Case(predictions(3), dict(topk=7)),
        "all": Case(predictions(2, 2), dict(gamma=0.3)),
        "released": Case(predictions(3, sizes=True), dict(form="released", topk=23)),
        "one-stage": Case(predictions(q=70, c=91), dict(form="released", activated=True)),
        "overlap-alone": Case(predictions(1, t=0, c=1), dict(gamma=0.0)),
    }
    empty = Case(predictions(2, b=0), dict(form="released"))
    dtypes = (torch.float64, torch.float32)  # half scores tie: below
    wrong = {
        "boxes": (lambda: quality(*GOOD[:1], GOOD[1][:2], *GOOD[2:]), ValueError, r"boxes \(\.\.\., B, Q, 4\), got"),
        "targets": (lambda: quality(*GOOD[:2], GOOD[2][:1], GOOD[3]), ValueError, r"target_boxes of shape \[2, T, 4\]"),
        "counts": (lambda: quality(*GOOD[:3], GOOD[3][:1]), ValueError, r"counts of shape \[2\], got \[1\]"),
        "counts-dtype": (lambda: quality(*GOOD[:3], GOOD[3].int()), TypeError, "counts of dtype int64"),
        "sizes": (lambda: quality(*GOOD, GOOD[3]), ValueError, r"image_sizes of shape \[2, 2\]"),
        "dtype": (lambda: quality(GOOD[0].long(), *GOOD[1:]), TypeError, "scores of a floating point dtype"),
        "form": (lambda: quality(*GOOD, form="x"), ValueError, "form in .*, got 'x'"),
        "gamma": (lambda: quality(*GOOD, gamma=1.5), ValueError, r"gamma in \[0, 1\], got 1.5"),
        "topk": (lambda: quality(*GOOD, topk=0), ValueError, "topk of at least 1, got 0"),
    }


def statement(x, boxes, targets, count, gamma, topk, released):
    """One image: a stable sort of the scores, and every pair of boxes."""
    rank = x.reshape(-1) if released else x.max(1)
    best = np.argsort(-rank, kind="stable")[:topk]
    index = best // x.shape[1] if released else best
    a, b = (
        np.concatenate([z[:, :2] - z[:, 2:] / 2, z[:, :2] + z[:, 2:] / 2], 1) for z in (boxes[index], targets[:count])
    )
    both = np.clip(np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2]), 0, None).prod(-1)
    either = boxes[index, None, 2:].prod(-1) + targets[:count, 2:].prod(-1) - both
    u = (both / either).max(1) if count else np.ones(len(index))
    c = 1 / (1 + np.exp(-rank[best]))
    return c * u if released else c**gamma * u ** (1 - gamma), index


def test_a_thousand_random_cases():
    """Every second with scores on a grid, where many tie."""
    rng = np.random.default_rng(0)
    for case in range(CASES):
        b, q, c, t = rng.integers(1, 3), rng.integers(1, 30), rng.integers(1, 8), rng.integers(1, 5)
        x = 2 * rng.standard_normal((b, q, c))
        x = np.round(x) if case % 2 else x
        boxes, targets, counts = rng.random((b, q, 4)), 0.05 + rng.random((b, t, 4)), rng.integers(0, t + 1, b)
        gamma, topk, released = rng.random(), int(rng.integers(1, 40)), bool(rng.random() < 0.5)
        options = dict(gamma=gamma, topk=topk, form="released" if released else "paper")
        got = query_quality(*map(torch.tensor, (x, boxes, targets, counts)), **options)
        for i in range(b):
            want, index = statement(x[i], boxes[i], targets[i], counts[i], gamma, topk, released)
            assert np.array_equal(got.index[i], index)
            assert relative_error(got.quality[i], torch.tensor(want)) < 1e-12


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", ["paper", "released"])
def test_half_scores_are_ranked_in_float32(device, dtype, form):
    x, *others = (z.to(device) for z in GOOD)
    got, want = (quality(z, *others, form=form, topk=30) for z in (x.to(dtype), x.to(dtype).float()))
    assert torch.equal(got.index, want.index) and torch.equal(got.quality, want.quality)
    assert got.quality.dtype == torch.float32


@each_device
def test_bad_data_have_one_result(device):
    x, boxes, targets, counts = (z.to(device) for z in GOOD)
    want = quality(x, boxes, targets, counts)
    nan = x.clone()
    nan[0, 0, 3], nan[1, 0, 3, 1:] = torch.nan, torch.nan  # no class is left, and the first
    got = quality(nan, boxes, targets, counts)
    assert got.index[0, 0, -1] == 3 and got.quality[0, 0, -1] == 0
    assert got.quality.isfinite().all() and torch.equal(got.quality[2], want.quality[2])
    nan[1, 0, 3, 1:] = -torch.inf
    assert torch.equal(got.quality[1], quality(nan, boxes, targets, counts).quality[1])
    released = quality(nan, boxes, targets, counts, form="released", topk=1000)
    assert (released.quality[0, 0, -5:] == 0).all() and (released.index[0, 0, -5:] == 3).all()
    # A query's box that is none overlaps nothing; a target that is none is as if not there, like one beyond the count.
    bad = boxes.clone()
    bad[:, :, 5, 2], bad[:, :, 6, 0] = -1, torch.inf
    got = quality(x, bad, targets, counts)
    none = (got.index == 5) | (got.index == 6)
    assert (got.quality[none] == 0).all() and torch.equal(got.quality[~none], want.quality[~none])
    other = torch.cat([targets[:, :1], targets], 1)
    other[0, 0], other[1] = torch.nan, -1
    assert relative_error(quality(x, boxes, other, counts + 1).quality, want.quality) < 1e-6
    assert torch.equal(quality(x, boxes, targets, torch.tensor([3, -7], device=device)).quality, want.quality)
    # Without area there is no overlap, and nothing is 0 / 0.
    assert (quality(x, 0 * boxes, 0 * targets, counts).quality[:, 0] == 0).all()
    assert (quality(x, boxes / 1e6, targets / 1e6, counts, counts.new_full((2, 2), 9)).quality[:, 0] < 1e-2).all()


def test_checking_says_where():
    x, boxes, targets, counts = (z.clone() for z in GOOD)
    x[1, 0, 3, 2], targets[0, 1, 2] = torch.nan, -1
    with checking(True):
        with pytest.raises(ValueError, match=r"finite scores, got nan at \[1, 0, 3, 2\]"):
            quality(x, boxes, targets, counts)
        with pytest.raises(ValueError, match=r"finite target_boxes, not inverted, got .* at \[0, 1\]"):
            quality(GOOD[0], boxes, targets, counts)
        with pytest.raises(ValueError, match=r"counts in \[0, 4\], got 5 at \[1\]"):
            quality(*GOOD[:3], torch.tensor([3, 5]))
        quality(*GOOD)
