import numpy as np
import pytest
import torch

from pydistill.ops import sigmoid_focal_loss
from pydistill.ops.sigmoid_focal_loss import sigmoid_focal_loss_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.ops.cases import CASES
from tests.ops.focal import assert_case, differentiate, random_reduction


def weighted(fn):
    """``fn`` with the weight as its third tensor, so that the suite casts and moves it."""
    return lambda logits, targets, weight=None, **kwargs: fn(logits, targets, weight=weight, **kwargs)


def locations(*shape, dense=False, weight=None):
    """Logits, labels (C and -1 are background) or targets of 0 and 1, and a weight that is 0 in part of the rows."""

    def make(rng):
        rows, classes = shape[:-1], shape[-1]
        targets = torch.randint(-1, classes + 1, rows, generator=rng)
        if dense:
            targets = (torch.rand(shape, generator=rng) < 0.3).double()
        made = [2 * torch.randn(shape, generator=rng, dtype=torch.float64), targets]
        if weight is not None:
            keep = torch.rand(rows, generator=rng) < weight
            made.append(torch.rand(rows, generator=rng, dtype=torch.float64) * keep)
        return made

    return make


class TestSigmoidFocalLoss(Conformance):
    fn, reference = weighted(sigmoid_focal_loss), weighted(sigmoid_focal_loss_reference)
    cases = {
        "rows": Case(locations(7, 20)),
        "images": Case(locations(2, 70, 80, weight=0.8), dict(reduction="mean", avg_factor=torch.tensor(13.0))),
        "dense": Case(locations(30, 12, dense=True), dict(alpha=0.6, gamma=1.0, reduction="sum")),
        "power": Case(locations(30, 1, weight=0.5), dict(gamma=1.5, alpha=-1.0)),
        "cross-entropy": Case(locations(3, 1100, dense=True), dict(gamma=0.0, reduction="mean")),
    }
    gradients = (0,)
    empty = Case(locations(0, 20), dict(reduction="mean"))
    wrong = {
        "labels": (
            lambda: sigmoid_focal_loss(torch.rand(2, 3), torch.ones(3, dtype=torch.int64)),
            ValueError,
            r"sigmoid_focal_loss: expected labels of shape \[2\], got \[3\]",
        ),
        "targets": (
            lambda: sigmoid_focal_loss(torch.rand(2, 3), torch.rand(2, 4)),
            ValueError,
            r"sigmoid_focal_loss: expected targets of shape \[2, 3\], got \[2, 4\]",
        ),
        "complex": (
            lambda: sigmoid_focal_loss(torch.rand(2, 3), torch.ones(2, 3, dtype=torch.complex64)),
            TypeError,
            "sigmoid_focal_loss: expected targets that are real, got torch.complex64",
        ),
        "label-dtype": (
            lambda: sigmoid_focal_loss(torch.rand(2, 3), torch.rand(2)),
            TypeError,
            "sigmoid_focal_loss: expected labels of an integer dtype, got torch.float32",
        ),
        "gamma": (
            lambda: sigmoid_focal_loss(torch.rand(2, 3), torch.ones(2).long(), gamma=-1.0),
            ValueError,
            "sigmoid_focal_loss: expected gamma >= 0, got -1.0",
        ),
        "alpha": (
            lambda: sigmoid_focal_loss(torch.rand(2, 3), torch.ones(2).long(), alpha=1.5),
            ValueError,
            "sigmoid_focal_loss: expected alpha <= 1, got 1.5",
        ),
    }  # fmt: skip


def stated(x, t, alpha, gamma):
    """The loss of each row and its gradient in float64 NumPy, written from the equation."""
    p = 1 / (1 + np.exp(-x))
    right = np.where(t == 1, p, 1 - p)  # the probability of what is so
    balance = np.where(t == 1, alpha, 1 - alpha) if alpha >= 0 else 1.0
    u = 1 - right
    d_right = -balance * (u**gamma / right - (gamma * u ** (gamma - 1) if gamma else 0) * np.log(right))
    return (-balance * u**gamma * np.log(right)).sum(-1), d_right * np.where(t == 1, 1, -1) * p * (1 - p)


@each_device
def test_random_cases(device):
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        shape = tuple(rng.integers(1, 7, rng.integers(0, 3)))
        classes = int(rng.integers(1, 40))
        x = rng.normal(size=(*shape, classes)) * 3
        alpha, gamma = float(rng.choice([0.25, -1, rng.uniform()])), float(rng.choice([2, 1, 0, rng.uniform(0, 4)]))
        labels = np.asarray(rng.integers(-2, classes + 3, shape))
        t = (labels[..., None] == np.arange(classes)).astype(float)
        if dense := rng.uniform() < 0.5:
            t = (rng.uniform(size=x.shape) < 0.3).astype(float)
        options, weight, factor = random_reduction(rng, shape)
        arrays = x, t if dense else labels
        options |= dict(alpha=alpha, gamma=gamma)
        assert_case(device, sigmoid_focal_loss, arrays, options, *stated(x, t, alpha, gamma), weight, factor)


@each_device
def test_targets_between_0_and_1(device):
    logits, targets = (x.to(device) for x in locations(50, 20, dense=True)(torch.Generator().manual_seed(0)))
    targets = 0.9 * targets + 0.05
    want = differentiate(sigmoid_focal_loss_reference, logits, targets, alpha=0.3, gamma=1.7)
    assert_close(differentiate(sigmoid_focal_loss, logits, targets, alpha=0.3, gamma=1.7), want, 1e-12)


@each_device
def test_labels_and_their_one_hot_targets_agree(device):
    logits, labels = (x.to(device) for x in locations(50, 9)(torch.Generator().manual_seed(0)))
    want = differentiate(sigmoid_focal_loss, logits, labels)
    for targets in (labels.unsqueeze(-1) == torch.arange(9, device=device), labels.int()):
        assert_close(differentiate(sigmoid_focal_loss, logits, targets), want, 1e-15)


@each_device
@pytest.mark.parametrize("dense", [False, True])
def test_bad_rows_stay_alone_and_unread_rows_count_nothing(device, dense):
    make = locations(40, 20, dense=dense, weight=0.5)
    logits, targets, weight = (x.to(device) for x in make(torch.Generator().manual_seed(0)))
    weight[5] = 1
    skipped = weight == 0
    clean = differentiate(sigmoid_focal_loss, logits, targets, weight=weight)
    logits = logits.masked_fill(skipped.unsqueeze(-1), float("nan"))
    assert_close(differentiate(sigmoid_focal_loss, logits, targets, weight=weight), clean, 0.0)
    assert skipped.any() and (clean[0][skipped] == 0).all() and (clean[1][skipped] == 0).all()
    logits[5, 2] = float("nan")
    loss, grad = differentiate(sigmoid_focal_loss, logits, targets, weight=weight)
    other = torch.arange(40, device=device) != 5
    rest = torch.arange(20, device=device) != 2
    assert torch.equal(loss[other], clean[0][other]) and torch.equal(grad[other], clean[1][other])
    assert loss[5].isnan() and grad[5, 2].isnan() and torch.equal(grad[5, rest], clean[1][5, rest])


@each_device
def test_strided_rows(device):
    """Class maps (N, C, H, W) seen as rows: the same numbers, a gradient in their layout."""
    maps, labels = (x.to(device) for x in locations(2, 5, 6, 10)(torch.Generator().manual_seed(0)))
    view = maps.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    dense = (labels.unsqueeze(-1) == torch.arange(10, device=device)).double()
    want = differentiate(sigmoid_focal_loss, maps, labels)
    for targets in (labels, dense, dense.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)):
        got = differentiate(sigmoid_focal_loss, view, targets)
        assert got[1].stride() == view.stride()
        assert relative_error(got[0], want[0]) < 1e-12 and relative_error(got[1], want[1]) < 1e-12
