import numpy as np
import pytest
import torch

from pydistill.ops import distribution_focal_loss
from pydistill.ops.distribution_focal_loss import distribution_focal_loss_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.golden import golden
from tests.ops.cases import CASES
from tests.ops.focal import assert_case, differentiate, random_reduction


def weighted(fn):
    """``fn`` with the weight as its third tensor, so that the suite casts and moves it."""
    return lambda logits, target, weight=None, **kwargs: fn(logits, target, weight=weight, **kwargs)


def sides(*shape, weight=None):
    """Logits, targets within and beyond the bins, some whole, and a weight that is 0 in part of the rows."""

    def make(rng):
        rows, n = shape[:-1], shape[-1]
        target = (n + 2) * torch.rand(rows, generator=rng, dtype=torch.float64) - 1
        target = torch.where(torch.rand(rows, generator=rng) < 0.2, target.round(), target)
        made = [2 * torch.randn(shape, generator=rng, dtype=torch.float64), target]
        if weight is not None:
            keep = torch.rand(rows, generator=rng) < weight
            made.append(torch.rand(rows, generator=rng, dtype=torch.float64) * keep)
        return made

    return make


class TestDistributionFocalLoss(Conformance):
    fn, reference = weighted(distribution_focal_loss), weighted(distribution_focal_loss_reference)
    cases = {
        "rows": Case(sides(7, 17)),
        "images": Case(sides(2, 70, 4, 17, weight=0.1), dict(reduction="mean", avg_factor=torch.tensor(4.0))),
        "all": Case(sides(300, 17), dict(reduction="sum")),
        "one-bin": Case(sides(9, 1), dict(reduction="mean")),
        "two-bins": Case(sides(9, 2, weight=0.5), dict(reduction="sum")),
        "long": Case(sides(5, 130, weight=0.7), dict(reduction="mean", avg_factor=torch.tensor(0.5))),
    }
    gradients = (0,)
    empty = Case(sides(0, 17), dict(reduction="mean"))
    wrong = {
        "target": (
            lambda: distribution_focal_loss(torch.rand(2, 3), torch.rand(2, 3)),
            ValueError,
            r"distribution_focal_loss: expected target of shape \[2\], got \[2, 3\]",
        ),
        "target-dtype": (
            lambda: distribution_focal_loss(torch.rand(2, 3), torch.ones(2).long()),
            TypeError,
            "distribution_focal_loss: expected target of a floating point dtype, got torch.int64",
        ),
        "bins": (
            lambda: distribution_focal_loss(torch.rand(2, 0), torch.rand(2)),
            ValueError,
            "distribution_focal_loss: expected at least one bin, got 0",
        ),
        "sum-factor": (
            lambda: distribution_focal_loss(torch.rand(2, 3), torch.rand(2), reduction="sum", avg_factor=2.0),
            ValueError,
            "distribution_focal_loss: expected reduction \"mean\" with avg_factor, got 'sum'",
        ),
    }  # fmt: skip


def stated(x, y):
    """The loss of each row and its gradient in float64 NumPy, written from the equation."""
    n = x.shape[-1]
    finite = np.isfinite(y)
    y = np.clip(np.where(finite, y, 0), 0, n - 1)
    k = np.floor(y)[..., None]
    y, bins = y[..., None], np.arange(n)
    share = np.where(bins == k, k + 1 - y, 0) + np.where(bins == k + 1, y - k, 0)
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return -(share * np.log(p)).sum(-1) * finite, (p - share) * finite[..., None]


@each_device
def test_random_cases(device):
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        shape = tuple(rng.integers(1, 7, rng.integers(0, 3)))
        n = int(rng.integers(1, 40))
        x = rng.normal(size=(*shape, n)) * 3
        y = np.asarray(rng.uniform(-2, n + 1, shape))
        y = np.where(rng.uniform(size=shape) < 0.2, np.round(y), y)
        y = np.where(rng.uniform(size=shape) < 0.1, rng.choice([np.nan, np.inf, -np.inf]), y)
        options, weight, factor = random_reduction(rng, shape)
        assert_case(device, distribution_focal_loss, (x, y), options, *stated(x, y), weight, factor)


@each_device
def test_released(device):
    z = golden("ld_dfl")
    logits, target, weight = (torch.tensor(z[k], device=device).double() for k in ("pred", "target", "weight"))
    loss, grad = differentiate(distribution_focal_loss, logits, target)
    assert relative_error(loss, torch.tensor(z["row"])) < 1e-9
    assert relative_error(grad, torch.tensor(z["grad_rowsum"])) < 1e-9
    factor = 4 + torch.finfo(torch.float32).eps  # the reference adds it
    options = dict(weight=weight, reduction="mean", avg_factor=factor)
    loss, grad = differentiate(distribution_focal_loss, logits, target, **options)
    assert relative_error(0.25 * loss, torch.tensor(z["w025_wavg4"])) < 1e-9
    assert relative_error(0.25 * grad, torch.tensor(z["grad_w025_wavg4"])) < 1e-9


@each_device
@pytest.mark.parametrize("shape", [(600, 17), (40, 200)])
@pytest.mark.parametrize("use_weight", [False, True])
def test_what_is_not_read(device, shape, use_weight):
    """Rows of weight 0 and of targets that are not finite; a NaN logit elsewhere stays in its row."""
    logits, target, weight = (x.to(device) for x in sides(*shape, weight=0.3)(torch.Generator().manual_seed(0)))
    weight[11] = 0.5
    target[3::7], target[5::7], target[11] = float("nan"), -float("inf"), 1.5
    skipped = ~target.isfinite()
    options = {}
    if use_weight:
        skipped, options = skipped | (weight == 0), dict(weight=weight)
    want = differentiate(distribution_focal_loss_reference, logits, target, **options)
    logits = logits.masked_fill(skipped.unsqueeze(-1), float("nan"))
    got = differentiate(distribution_focal_loss, logits, target, **options)
    assert_close(got, want, 1e-12)
    assert (got[0][skipped] == 0).all() and (got[1][skipped] == 0).all()
    logits[11, 3] = float("nan")
    loss, grad = differentiate(distribution_focal_loss, logits, target, **options)
    other = torch.arange(shape[0], device=device) != 11
    assert loss[11].isnan() and grad[11].isnan().all()
    assert torch.equal(loss[other], got[0][other]) and torch.equal(grad[other], got[1][other])


@each_device
def test_impossible_bins(device):
    """A bin of logit -inf has no part, unless the target lies beside it."""
    logits = torch.randn(3, 17, dtype=torch.float64, device=device)
    logits[:, 9] = -float("inf")
    loss, grad = differentiate(distribution_focal_loss, logits, torch.tensor([2.5, 9.5, 16.0], device=device))
    assert loss[[0, 2]].isfinite().all() and loss[1] == float("inf")
    assert grad[[0, 2]].isfinite().all() and (grad[[0, 2], 9] == 0).all()


@each_device
@pytest.mark.parametrize("weighted", [False, True])
def test_class_first_maps_are_read_as_they_are(device, weighted):
    maps, target, weight = (x.to(device) for x in sides(2, 6, 10, 17, weight=0.5)(torch.Generator().manual_seed(0)))
    view = maps.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    options = dict(weight=weight) if weighted else {}
    got = differentiate(distribution_focal_loss, view, target, **options)
    assert got[1].stride() == view.stride()
    assert_close(got, differentiate(distribution_focal_loss, maps, target, **options), 1e-12)
