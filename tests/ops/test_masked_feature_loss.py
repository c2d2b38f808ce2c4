import numpy as np
import pytest
import torch

from pydistill.ops import masked_feature_loss
from pydistill.ops.masked_feature_loss import masked_feature_loss_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.ops.cases import CASES


def maps(n, c, h, w, *, mask="bool", layout=torch.contiguous_format, used=0.5, normalizer=None):
    """Student, teacher, mask and, where it is given, a tensor to divide by."""

    def make(rng):
        s, t = (torch.randn(n, c, h, w, generator=rng, dtype=torch.float64) for _ in range(2))
        m = torch.rand(n, h, w, generator=rng, dtype=torch.float64) - (1 - used)
        made = [s.contiguous(memory_format=layout), t.contiguous(memory_format=layout)]
        made.append(m > 0 if mask == "bool" else m.clamp(min=0) if mask == "float" else m)
        return made if normalizer is None else [*made, torch.tensor([normalizer], dtype=torch.float64)]

    return make


def by(fn):
    """``fn`` with a tensor that normalises by position."""

    def call(student, teacher, mask, normalizer="elements", **kwargs):
        return fn(student, teacher, mask, **{"normalizer": normalizer, **kwargs})

    return call


LAST = torch.channels_last
REAL = torch.randn(2, 3, 4, 5)
MASK = torch.ones(2, 4, 5)


class TestMaskedFeatureLoss(Conformance):
    fn, reference = by(masked_feature_loss), by(masked_feature_loss_reference)
    cases = {
        "bool": Case(maps(2, 5, 7, 9)),
        "two-tiles": Case(maps(2, 3, 20, 23, mask="float"), dict(normalizer="mask")),
        "absolute": Case(maps(2, 5, 7, 9, mask="signed"), dict(norm=1, channels="sum")),
        "squared-mask": Case(maps(1, 4, 17, 17, mask="float"), dict(mask_power=2, normalizer=3.5)),
        "channels-last": Case(maps(2, 33, 7, 9, mask="float", layout=LAST), dict(normalizer="mask")),
        "channels-last-absolute": Case(maps(2, 3, 20, 23, layout=LAST), dict(norm=1, mask_power=2, channels="sum")),
        "tensor": Case(maps(2, 5, 7, 9, normalizer=7.0), dict(channels="sum")),
        "empty-mask": Case(maps(2, 5, 7, 9, used=0.0), dict(normalizer="mask")),
        "one-pixel": Case(maps(3, 6, 1, 1, used=1.0)),
    }
    gradients = (0,)
    empty = Case(maps(0, 3, 4, 5), dict(normalizer="mask"))
    wrong = {
        "rank": (lambda: masked_feature_loss(REAL[0], REAL[0], MASK), ValueError, r"\(N, C, H, W\), got \[3, 4, 5\]"),
        "teacher": (lambda: masked_feature_loss(REAL, REAL[:1], MASK), ValueError, r"teacher of shape \[2, 3, 4, 5\]"),
        "mask": (lambda: masked_feature_loss(REAL, REAL, MASK[:1]), ValueError, r"mask of shape \[2, 4, 5\]"),
        "mask-dtype": (lambda: masked_feature_loss(REAL, REAL, MASK.long()), TypeError, "mask of dtype bool or float"),
        "dtype": (lambda: masked_feature_loss(REAL.int(), REAL, MASK), TypeError, "student of a floating point dtype"),
        "norm": (lambda: masked_feature_loss(REAL, REAL, MASK, norm=3), ValueError, "norm 1 or 2, got 3"),
        "power": (lambda: masked_feature_loss(REAL, REAL, MASK, mask_power=0), ValueError, "mask_power 1 or 2, got 0"),
        "channels": (lambda: masked_feature_loss(REAL, REAL, MASK, channels="x"), ValueError, "channels in .*'x'"),
        "normalizer": (
            lambda: masked_feature_loss(REAL, REAL, MASK, normalizer="x"),
            ValueError,
            "normalizer in .*'x'",
        ),
        "two": (lambda: masked_feature_loss(REAL, REAL, MASK, normalizer=MASK), ValueError, "one element, got"),
    }


def statement(s, t, m, norm, power, channels, by):
    """The loss and its gradient, pixel by pixel of those that the mask has, in float64 NumPy."""
    n, y, x = np.nonzero(m)
    d, w = s[n, :, y, x] - t[n, :, y, x], m[n, y, x][:, None] ** power
    factor = 1 / ((s.shape[1] if channels == "mean" else 1) * by) if by else 0.0
    gradient = np.zeros_like(s)
    gradient[n, :, y, x] = factor * w * (2 * d if norm == 2 else np.sign(d))
    return factor * (w * np.abs(d) ** norm).sum(), gradient


def test_a_thousand_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        shape = rng.integers(1, (4, 9, 24, 24))
        s, t = rng.standard_normal((2, *shape))
        m = np.where(rng.random(shape[[0, 2, 3]]) < rng.random(), rng.standard_normal(shape[[0, 2, 3]]), 0.0)
        norm, power, channels = rng.integers(1, 3), rng.integers(1, 3), rng.choice(["mean", "sum"])
        by, value = [("elements", m.size), ("mask", m.sum()), (torch.tensor(2.5), 2.5)][rng.integers(3)]
        student, teacher = (torch.tensor(x).requires_grad_() for x in (s, t))
        if rng.random() < 0.5:
            student = student.contiguous(memory_format=LAST)
        if rng.random() < 0.3:
            m, value = np.abs(m), np.abs(m).sum() if by == "mask" else value
        options = dict(norm=int(norm), mask_power=int(power), channels=str(channels), normalizer=by)
        got = masked_feature_loss(student, teacher, torch.tensor(m), **options)
        want, gradient = statement(s, t, m, norm, power, channels, value)
        assert abs(got.item() - want) <= 1e-11 * max(abs(want), 1e-3)
        assert relative_error(torch.autograd.grad(got, student)[0], torch.tensor(gradient)) < 1e-10


@each_device
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST], ids=["nchw", "last"])
@pytest.mark.parametrize("options", [{}, dict(norm=1, mask_power=2), dict(normalizer="mask")])
def test_what_the_mask_excludes_is_not_used(device, layout, options):
    s, t, m = Case(maps(2, 5, 30, 21, mask="float"), {}).inputs(device, torch.float32)
    m[0, :15] = 0  # whole tiles, too
    bad_s, bad_t = (x.masked_fill((m == 0).unsqueeze(1), torch.nan).contiguous(memory_format=layout) for x in (s, t))
    bad_s.requires_grad_()
    loss = masked_feature_loss(bad_s, bad_t, m, **options)
    assert torch.equal(loss, masked_feature_loss(s.contiguous(memory_format=layout), t, m, **options))
    (grad,) = torch.autograd.grad(loss, bad_s)
    assert grad.isfinite().all() and (grad.movedim(1, -1)[m == 0] == 0).all() and (grad != 0).any()


@each_device
def test_a_nan_stays_in_its_element(device):
    s, t, m = Case(maps(2, 3, 4, 5, used=1.0)).inputs(device, torch.float32, grad=(0,))
    t[1, 2, 3, 4] = torch.nan
    loss = masked_feature_loss(s, t, m)
    assert loss.isnan()
    bad = torch.autograd.grad(loss, s)[0].isnan()
    assert bad.sum() == 1 and bad[1, 2, 3, 4]


@each_device
def test_nothing_over_nothing_is_nothing(device):
    s, t, m = Case(maps(2, 3, 4, 5, used=0.0)).inputs(device, torch.float32, grad=(0,))
    for normalizer in ("mask", 0, torch.tensor(0.0, device=device)):
        loss = masked_feature_loss(s, t, m, normalizer=normalizer)
        assert loss == 0 and (torch.autograd.grad(loss, s)[0] == 0).all()
    full = masked_feature_loss(s, t, ~m, normalizer=0)
    assert full == torch.inf and (torch.autograd.grad(full, s)[0] == 0).all()


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_student_and_a_float_teacher(device, dtype):
    s, t, m = Case(maps(2, 8, 6, 7)).inputs(device, torch.float32)
    s = s.to(dtype).requires_grad_()
    loss = masked_feature_loss(s, t, m)
    assert loss.dtype == torch.float32
    wide = s.detach().double().requires_grad_()
    want = masked_feature_loss_reference(wide, t, m)
    assert relative_error(loss, want) < 1e-6
    scaled = torch.autograd.grad(2.0**20 * loss, s)[0].double()
    assert relative_error(scaled, 2.0**20 * torch.autograd.grad(want, wide)[0]) < 1e-2


def test_layouts_are_kept_and_a_slice_is_not_copied():
    s, t, m = Case(maps(2, 6, 5, 7)).inputs("cpu", torch.float32)
    for student in (s, s.contiguous(memory_format=LAST)):
        student.requires_grad_()
        (grad,) = torch.autograd.grad(masked_feature_loss(student, t, m), student)
        assert grad.stride() == student.stride()
    part, other = s.detach()[:, 1:4], t[:, 2:5]
    assert torch.equal(masked_feature_loss(part, other, m), masked_feature_loss(part.contiguous(), other.clone(), m))
