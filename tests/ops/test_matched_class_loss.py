import numpy as np
import pytest
import torch

from pydistill.ops import matched_class_loss, matched_labels
from pydistill.ops.matched_class_loss import matched_class_loss_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.ops.cases import CASES
from tests.ops.matched import numpy_match, numpy_paired, random_match


def weighted(fn):
    """``fn`` with the weight as its fourth tensor, so that the suite casts and moves it."""
    return lambda logits, targets, match, weight=None, **kwargs: fn(logits, targets, match, weight=weight, **kwargs)


def queries(*batch, queries, targets, classes, soft=True, staged=False, weight=False):
    def make(rng):
        logits = 2 * torch.randn(*batch, queries, classes, generator=rng, dtype=torch.float64)
        lead = batch if staged else batch[-1:]
        if soft:
            of = 3 * torch.randn(*lead, targets, classes, generator=rng, dtype=torch.float64)
        else:
            of = torch.randint(classes, (*lead, targets), generator=rng)
        rows = torch.rand(*batch, queries, generator=rng, dtype=torch.float64)
        rows = rows * (torch.rand(rows.shape, generator=rng) < 0.7)
        return [logits, of, random_match(rng, batch, queries, targets), rows if weight else None]

    return make


SOFT = dict(form="soft_bce")
LOGITS, TARGETS, LABELS, MATCH = torch.rand(2, 3, 5), torch.rand(2, 4, 5), torch.ones(2, 4).long(), torch.ones(2, 3)
MATCH = MATCH.long()


class TestMatchedClassLoss(Conformance):
    fn, reference = weighted(matched_class_loss), weighted(matched_class_loss_reference)
    cases = {
        "soft": Case(queries(3, 2, queries=24, targets=24, classes=8, staged=True), SOFT),
        "soft-weighted": Case(queries(2, 2, queries=9, targets=5, classes=91, weight=True), SOFT),
        "soft-rows": Case(queries(2, queries=20, targets=30, classes=1), {**SOFT, "reduction": "none"}),
        "soft-many": Case(queries(1, 2, queries=3, targets=2, classes=1100), SOFT),
        "focal": Case(queries(3, 2, queries=24, targets=5, classes=8, soft=False)),
        "focal-rows": Case(
            queries(2, 2, queries=9, targets=5, classes=91, soft=False, staged=True, weight=True),
            dict(reduction="none", gamma=1.0, alpha=0.4),
        ),
        "no-targets": Case(queries(2, queries=3, targets=0, classes=4), SOFT),
        "no-labels": Case(queries(2, queries=3, targets=0, classes=4, soft=False)),
    }
    gradients = (0,)
    empty = Case(queries(2, 0, queries=3, targets=2, classes=4), SOFT)
    wrong = {
        "rank": (
            lambda: matched_class_loss(LOGITS[0], LABELS, MATCH[0]),
            ValueError,
            r"matched_class_loss: expected logits of shape \(..., B, Q, C\), got \[3, 5\]",
        ),
        "labels": (
            lambda: matched_class_loss(LOGITS, LABELS[:1], MATCH),
            ValueError,
            r"expected targets of shape \[2, T\] or \[2, T\], got \[1, 4\]",
        ),
        "labels-dtype": (
            lambda: matched_class_loss(LOGITS, LABELS.int(), MATCH),
            TypeError,
            "targets of dtype torch.int64 with form focal, got torch.int32",
        ),
        "classes": (
            lambda: matched_class_loss(LOGITS, TARGETS[..., 1:], MATCH, **SOFT),
            ValueError,
            r"targets of shape \[2, T, 5\] or \[2, T, 5\], got \[2, 4, 4\]",
        ),
        "teacher-dtype": (
            lambda: matched_class_loss(LOGITS, TARGETS.long(), MATCH, **SOFT),
            TypeError,
            "targets of a floating point dtype with soft_bce, got torch.int64",
        ),
        "match": (
            lambda: matched_class_loss(LOGITS, TARGETS, MATCH[0], **SOFT),
            ValueError,
            r"target_of_query of shape \[2, 3\], got \[3\]",
        ),
        "weight": (
            lambda: matched_class_loss(LOGITS, TARGETS, MATCH, weight=torch.ones(2), **SOFT),
            ValueError,
            r"weight that broadcasts to \[2, 3\], got \[2\]",
        ),
        "form": (lambda: matched_class_loss(LOGITS, TARGETS, MATCH, form="x"), ValueError, r"form in .*got 'x'"),
        "reduction": (lambda: matched_class_loss(LOGITS, LABELS, MATCH, reduction="sum"), ValueError, "got 'sum'"),
    }


def stated(x, y, soft, alpha, gamma):
    """The loss of each class and its gradient in float64 NumPy: cross entropy with y, or its focal form."""
    p = 1 / (1 + np.exp(-x))
    if soft:
        return -y * np.log(p) - (1 - y) * np.log(1 - p), p - y
    right, balance = np.where(y == 1, p, 1 - p), np.where(y == 1, alpha, 1 - alpha)
    u = 1 - right
    slope = -balance * (u**gamma / right - gamma * u ** (gamma - 1) * np.log(right))
    return -balance * u**gamma * np.log(right), slope * np.where(y == 1, 1, -1) * p * (1 - p)


def test_a_thousand_cases():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        batch = tuple(rng.integers(1, 4, rng.integers(1, 4)))
        queries, targets, classes = rng.integers(1, 8), rng.integers(0, 6), rng.integers(1, 20)
        soft, alpha, gamma = rng.random() < 0.7, float(rng.uniform()), float(rng.choice([1, 2, rng.uniform(0.5, 3)]))
        x = 2 * rng.normal(size=(*batch, queries, classes))
        lead = batch if rng.random() < 0.5 else batch[-1:]
        t = 3 * rng.normal(size=(*lead, targets, classes)) if soft else rng.integers(classes, size=(*lead, targets))
        match = numpy_match(rng, batch, queries, targets)
        w = rng.uniform(0.5, 2, match.shape) * (rng.random(match.shape) < 0.8)
        paired, used = numpy_paired(t if soft else t[..., None], match)
        if soft:
            y, used = 1 / (1 + np.exp(-paired)), used
        else:
            y, used = (paired == np.arange(classes)) & used[..., None], np.ones_like(used)
        values, slopes = (v * (w * used)[..., None] for v in stated(x, y, soft, alpha, gamma))
        options = dict(form="soft_bce") if soft else dict(alpha=alpha, gamma=gamma)
        logits, weight = torch.tensor(x, requires_grad=True), torch.tensor(w)
        got = matched_class_loss(logits, torch.tensor(t), torch.tensor(match), weight=weight, **options)
        assert relative_error(got.detach(), torch.tensor(values.sum((-3, -2, -1)))) < 1e-12
        assert relative_error(torch.autograd.grad(got.sum(), logits)[0], torch.tensor(slopes)) < 1e-11


@each_device
@pytest.mark.parametrize("soft", [True, False])
def test_bad_rows_stay_alone_and_unread_rows_count_nothing(device, soft):
    make = queries(2, 2, queries=20, targets=8, classes=11, soft=soft, weight=True)
    logits, targets, match, weight = Case(make).inputs(device, torch.float64)
    weight[0, 0, 3], match[0, 0, 3] = 1.0, 2
    used = weight != 0
    options = dict(weight=weight, reduction="none", form="soft_bce" if soft else "focal")
    if soft:
        used &= (match >= 0) & (match < 8)
        targets[1, 5] = torch.nan  # nobody's
        match = torch.where((match == 5) & (torch.arange(2, device=device)[:, None] == 1), -1, match)
        used &= match >= 0
    clean = logits.clone().requires_grad_()
    want = matched_class_loss(clean, targets, match, **options)
    wanted = torch.autograd.grad(want.sum(), clean)[0]
    poisoned = logits.masked_fill(~used[..., None], torch.nan)
    poisoned[0, 0, 3, 4] = torch.nan
    poisoned.requires_grad_()
    got = matched_class_loss(poisoned, targets, match, **options)
    (grad,) = torch.autograd.grad(got.sum(), poisoned)
    rest = torch.ones_like(poisoned, dtype=torch.bool)
    rest[0, 0, 3, 4] = False
    assert torch.equal(grad[rest], wanted[rest]) and grad[0, 0, 3, 4].isnan() and got[0, 0, 3].isnan()
    assert_close(got.detach()[rest[..., 4]], want.detach()[rest[..., 4]], 0.0)
    assert (grad[~used] == 0).all() and (got[~used] == 0).all() and used.sum() > 5


@each_device
def test_saturated_logits_have_finite_losses(device):
    """Teacher and student beyond where exp overflows, in float16 too."""
    x = torch.tensor([[[-1e4, 1e4, -1e4, 1e4, 0.0]]], dtype=torch.float16, device=device).requires_grad_()
    t = torch.tensor([[[-6e4, 6e4, 6e4, -6e4, 0.0]]], dtype=torch.float32, device=device)
    loss = matched_class_loss(x, t, torch.zeros(1, 1, dtype=torch.int64, device=device), **SOFT)
    assert abs(loss.item() / (2e4 + np.log(2)) - 1) < 1e-4
    assert torch.autograd.grad(loss, x)[0].flatten().tolist() == [0, 0, -1, 1, 0]


@each_device
def test_labels_of_queries(device):
    labels = torch.tensor([[4, 5], [6, 7]], device=device)
    match = torch.tensor([[[0, 1, -1], [1, 2, 0]]], device=device)
    assert matched_labels(labels, match, 9).tolist() == [[[4, 5, 9], [7, 9, 6]]]
    assert matched_labels(labels[None], match, 9).tolist() == [[[4, 5, 9], [7, 9, 6]]]
