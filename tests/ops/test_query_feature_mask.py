import numpy as np
import pytest
import torch

from pydistill import checking
from pydistill.ops import masked_feature_loss, query_feature_mask
from pydistill.ops._layout import laid_out
from pydistill.ops.query_feature_mask import query_feature_mask_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.golden import golden
from tests.ops.cases import CASES

Z = {k: torch.tensor(v) for k, v in golden("detr_distill").items() if v.dtype.kind in "if"}


@pytest.mark.parametrize("fn", [query_feature_mask, query_feature_mask_reference])
def test_golden(fn):
    """The released code's masks, from its gathered queries and from all of them with an index."""
    maps = [Z[f"tf_teacher_feat_{n}"] for n in range(3)]
    for queries, index in ((Z["tf_queries"], None), (Z["tf_hs"], Z["tf_query_index"])):
        for n, got in enumerate(fn(queries, Z["tf_scores"], maps, index=index)):
            want = torch.stack([Z[f"tf_mask_{stage}_{n}"] for stage in range(3)])
            assert relative_error(got, want) < 1e-12


def test_golden_loss():
    """Feature distillation of three stages on three levels: a loss of each stage, and of all at once its gradient."""
    maps = [Z[f"tf_teacher_feat_{n}"] for n in range(3)]
    masks = query_feature_mask(Z["tf_queries"], Z["tf_scores"], maps)
    stages, total = torch.zeros(3, dtype=torch.float64), 0
    students = [Z[f"tf_student_feat_{n}"].clone().requires_grad_() for n in range(3)]
    for student, teacher, mask in zip(students, maps, masks, strict=True):
        stages += torch.stack([masked_feature_loss(student, teacher, m, mask_power=2).detach() for m in mask])
        total = total + masked_feature_loss(student, teacher, mask.square().sum(0))
    assert relative_error(stages, Z["tf_feat_loss"]) < 1e-12
    assert relative_error(total, Z["tf_feat_loss"].sum()) < 1e-12
    for n, gradient in enumerate(torch.autograd.grad(total, students)):
        assert relative_error(gradient, Z[f"tf_grad_student_feat_{n}"]) < 1e-10
    masks = query_feature_mask(Z["tf_queries"], torch.zeros_like(Z["tf_scores"]), maps)
    for mask in masks:
        assert (mask == 1).all()
    plain = sum(masked_feature_loss(s, t, m[0]).detach() for s, t, m in zip(students, maps, masks))
    assert relative_error(plain.expand(3), Z["tf_feat_loss_zeroscore"]) < 1e-12


LAST = torch.channels_last


def maps(*stages, b=2, k=6, d=5, sizes=((7, 9),), index=None, layout=torch.contiguous_format):
    """Queries, quality, an index of ``index`` queries where that is given, and maps."""

    def make(rng):
        def normal(*shape):
            return torch.randn(*shape, generator=rng, dtype=torch.float64)

        made = [normal(*stages, b, index or k, d), normal(*stages, b, k).abs()]
        made.append(None if index is None else torch.randint(-1, index + 1, (*stages, b, k), generator=rng))
        return made + [normal(b, d, *size).contiguous(memory_format=layout) for size in sizes]

    return make


def maps_last(fn):
    return lambda queries, quality, index, *features, **kwargs: tuple(
        fn(queries, quality, list(features), index=index, **kwargs)
    )


mask = maps_last(query_feature_mask)
GOOD = [x if x is None else x.float() for x in maps(3)(torch.Generator())]


class TestQueryFeatureMask(Conformance):
    fn, reference = mask, maps_last(query_feature_mask_reference)
    cases = {
        "stages": Case(maps(3, sizes=((7, 9), (20, 23), (1, 1)))),
        "index": Case(maps(2, 2, index=9), dict(floor=0.3)),
        "channels-last": Case(maps(3, d=33, sizes=((9, 15),), layout=LAST), dict(normalize="none", floor=0.0)),
        "one-stage": Case(maps(d=64, k=130, index=50), dict(normalize="none")),
    }
    empty = Case(maps(2, b=0))
    wrong = {
        "queries": (lambda: mask(GOOD[0][0, 0], *GOOD[1:]), ValueError, r"queries of shape \(\.\.\., B, K, D\)"),
        "quality": (lambda: mask(GOOD[0], GOOD[1][..., 1:], *GOOD[2:]), ValueError, r"quality of shape \[3, 2, 'K'\]"),
        "index": (lambda: mask(*GOOD[:2], torch.zeros(3, 2, 5).long(), GOOD[3]), ValueError, "index the same, got"),
        "index-dtype": (lambda: mask(*GOOD[:2], GOOD[1], GOOD[3]), TypeError, "index of dtype int64"),
        "features": (lambda: mask(*GOOD[:3], GOOD[3][:, 1:]), ValueError, r"shape \(2, 5, height, width\), got"),
        "dtype": (lambda: mask(*GOOD[:3], GOOD[3].long()), TypeError, "features of a floating point dtype"),
        "normalize": (lambda: mask(*GOOD, normalize="x"), ValueError, "normalize in .*, got 'x'"),
        "floor": (lambda: mask(*GOOD, floor=0), ValueError, "floor > 0, got 0"),
    }


def statement(h, q, f, floor, normalize):
    """One image of one stage: the cosine of each query with each pixel."""
    cosine = (h / np.linalg.norm(h, axis=1, keepdims=True)) @ (f / np.linalg.norm(f, axis=0)).reshape(len(f), -1)
    m = np.maximum((q[:, None] * cosine).sum(0), floor).reshape(f.shape[1:])
    return m / m.max() if normalize == "max" else m


def test_a_thousand_random_cases():
    rng = np.random.default_rng(0)
    for case in range(CASES):
        stages, b, k, d, height, width = rng.integers(1, (4, 3, 9, 12, 14, 14))
        h, f = rng.standard_normal((stages, b, 11, d)), rng.standard_normal((b, d, height, width))
        q, index = rng.random((stages, b, k)) * (rng.random((stages, b, k)) < 0.8), rng.integers(0, 11, (stages, b, k))
        options = dict(floor=10 ** rng.uniform(-3, 0), normalize=["max", "none"][case % 2])
        there = torch.tensor(f).contiguous(memory_format=LAST if rng.random() < 0.5 else torch.contiguous_format)
        got = query_feature_mask(torch.tensor(h), torch.tensor(q), [there], index=torch.tensor(index), **options)[0]
        for s, i in np.ndindex(stages, b):
            want = statement(h[s, i, index[s, i]], q[s, i], f[i], **options)
            assert relative_error(got[s, i], torch.tensor(want)) < 1e-12


@each_device
def test_what_has_no_quality_is_not_used(device):
    h, q, _, f = (x if x is None else x.to(device) for x in GOOD)
    want = query_feature_mask(h[..., :4, :], q[..., :4], [f])[0]
    q, h = q.clone(), h.clone()
    q[..., 4:], h[..., 4:, :] = 0, torch.nan
    assert torch.equal(query_feature_mask(h, q, [f])[0], want)
    outside = torch.tensor([0, 1, 2, 3, -1, 6], device=device).expand(3, 2, 6)
    assert torch.equal(query_feature_mask(h, torch.ones_like(q).where(q == 0, q), [f], index=outside)[0], want)
    for normalize, constant in (("max", 1.0), ("none", 0.25)):
        assert (query_feature_mask(h, 0 * q, [f], floor=0.25, normalize=normalize)[0] == constant).all()


@each_device
def test_a_nan_stays_in_its_image(device):
    h, q, _, f = (x if x is None else x.to(device) for x in GOOD)
    f = f.clone()
    f[1, 2, 3, 4] = torch.nan
    for layout in (torch.contiguous_format, LAST):
        bad = query_feature_mask(h, q, [f.contiguous(memory_format=layout)])[0].isnan()
        assert bad[:, 1].all() and not bad[:, 0].any()
        bad = query_feature_mask(h, q, [f.contiguous(memory_format=layout)], normalize="none")[0].isnan()
        assert bad.sum() == 3 and bad[:, 1, 3, 4].all()
    h = h.clone()
    h[0, 0, 0, 0] = torch.nan
    bad = query_feature_mask(h, q, [f.nan_to_num()])[0].isnan()
    assert bad[0, 0].all() and not bad[0, 1].any() and not bad[1:].any()
    zero = query_feature_mask(0 * h.nan_to_num(), q, [0 * f.nan_to_num()])[0]
    assert (zero == 1).all()


def test_neither_layout_is_copied():
    h, q, _, f = GOOD
    for layout in (torch.contiguous_format, LAST):
        x = torch.randn(2, 15, 6, 7).contiguous(memory_format=layout)[:, 5:10]
        assert laid_out(x)[0] is x and laid_out(x)[1] == (layout == LAST)
        assert relative_error(query_feature_mask(h, q, [x])[0], query_feature_mask(h, q, [x.contiguous()])[0]) < 1e-5


@pytest.mark.parametrize(
    ("queries", "features"),
    [(torch.float32, torch.float64), (torch.float64, torch.float32), (torch.bfloat16, torch.float16)],
    ids=str,
)
def test_mixed_dtypes(queries, features):
    h, q, _, f = (x if x is None else x.double() for x in GOOD)
    want = query_feature_mask(h, q, [f])[0]
    low, wide = query_feature_mask(h.to(queries), q.float(), [f.to(features), f])
    assert low.dtype == (torch.float64 if features == torch.float64 else torch.float32) and wide.dtype == torch.float64
    assert max(relative_error(low, want), relative_error(wide, want)) < 2e-2


def test_checking_says_where():
    h, q, _, f = GOOD
    bad, worse = f.clone(), h.clone()
    bad[1, 2, 3, 4], worse[0, 1, 2, 0] = torch.nan, torch.inf
    with checking(True):
        with pytest.raises(ValueError, match=r"finite features, got nan at \[1, 2, 3, 4\]"):
            query_feature_mask(h, q, [f, bad])
        with pytest.raises(ValueError, match=r"finite queries, got inf at \[0, 1, 2, 0\]"):
            query_feature_mask(worse, q, [f])
