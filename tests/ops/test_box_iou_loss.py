from functools import partial

import numpy as np
import pytest
import torch

from pydistill.ops import ciou_loss, diou_loss, giou_loss
from pydistill.ops.box_iou_loss import box_iou_loss_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.golden import golden
from tests.ops.boxes import random_boxes
from tests.ops.cases import CASES

LOSSES = {
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
    "ciou_released": partial(ciou_loss, alpha="released"),
    "ciou_mmdet": partial(ciou_loss, alpha="mmdet"),
}


def loss(prediction, target, weight=None, *, form, **kwargs):
    return LOSSES[form](prediction, target, weight=weight, **kwargs)


def reference(prediction, target, weight=None, **kwargs):
    return box_iou_loss_reference(prediction, target, weight=weight, **kwargs)


def pairs(*shape, keep=None):
    def make(rng):
        n = int(np.prod(shape))
        a, b = (random_boxes(rng, n, size=9.0).view(*shape, 4) for _ in range(2))
        b = torch.where(torch.rand(shape, generator=rng)[..., None] < 0.5, b, a + 0.3)
        weight = torch.rand(shape, generator=rng, dtype=torch.float64)
        return [a, b] if keep is None else [a, b, weight * (torch.rand(shape, generator=rng) < keep)]

    return make


class TestBoxIouLoss(Conformance):
    fn, reference = staticmethod(loss), staticmethod(reference)
    cases = {form: Case(pairs(2, 21, keep=0.5), dict(form=form, reduction="sum")) for form in LOSSES}
    cases |= {
        "rows": Case(pairs(37), dict(form="giou", eps=1e-6)),
        "factor": Case(pairs(3, 500, keep=0.1), dict(form="giou", reduction="mean", avg_factor=torch.tensor(4.0))),
        "many": Case(pairs(5000), dict(form="ciou", reduction="mean")),
    }
    gradients = (0,)
    empty = Case(pairs(0), dict(form="giou"))
    wrong = {
        "shape": (lambda: giou_loss(torch.rand(2, 5), torch.rand(2, 5)), ValueError, r"giou_loss: .*got \[2, 5\]"),
        "target": (lambda: diou_loss(torch.rand(2, 4), torch.rand(4)), ValueError, r"target .* \[2, 4\], got \[4\]"),
        "alpha": (lambda: ciou_loss(torch.rand(2, 4), torch.rand(2, 4), alpha="no"), ValueError, "alpha in .*got 'no'"),
        "eps": (lambda: giou_loss(torch.rand(2, 4), torch.rand(2, 4), eps=-1.0), ValueError, "eps >= 0, got -1"),
        "dtype": (lambda: giou_loss(torch.ones(1, 4).int(), torch.ones(1, 4).int()), TypeError, "got torch.int32"),
    }  # fmt: skip


def numpy_overlap(form, a, b, eps):
    """The measures, written again; any array of boxes."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    hull = (np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])).clip(0)
    shared = (high - low).clip(0).prod(-1)
    (w, h), (v, u) = (np.moveaxis(x[..., 2:] - x[..., :2], -1, 0) for x in (a, b))
    union = w * h + v * u - shared
    if form == "giou":
        union, around = np.maximum(union, eps), np.maximum(hull.prod(-1), eps)
        return shared / union - (around - union) / around
    iou = shared / (union + eps)
    rho = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    diou = iou - rho / ((hull**2).sum(-1) + eps)
    aspect = 4 / np.pi**2 * (np.arctan(v / (u + eps)) - np.arctan(w / (h + eps))) ** 2
    alpha = aspect / (1 - iou + aspect + eps)
    if form == "ciou_mmdet":
        return (diou - alpha * (iou > 0.5) * aspect).clip(-1, 1)
    return diou if form == "diou" else diou - alpha * aspect


@pytest.mark.parametrize("form", LOSSES)
def test_a_thousand_cases(form):
    """Values against NumPy; where alpha has its gradient or there is none, gradients against finite differences."""
    rng = np.random.default_rng(0)
    for _ in range(CASES // len(LOSSES)):
        n = int(rng.integers(1, 8))
        a, b = rng.normal(size=(2, n, 4)) * 2
        a[:, 2:], b[:, 2:] = a[:, :2] + rng.uniform(0.5, 4, (n, 2)), b[:, :2] + rng.uniform(0.5, 4, (n, 2))
        w = rng.random(n) * (rng.random(n) < 0.7)
        eps = 10 ** rng.uniform(-8, -1)
        x = torch.tensor(a, requires_grad=True)
        out = LOSSES[form](x, torch.tensor(b), weight=torch.tensor(w), reduction="sum", eps=eps)
        want = (w * (1 - numpy_overlap(form, a, b, eps))).sum()
        assert abs(out.item() - want) <= 1e-12 * (abs(want) + 1e-300)
        if form in ("ciou", "ciou_mmdet"):
            continue
        (grad,) = torch.autograd.grad(out, x)
        step = 1e-6 * np.eye(4)
        ahead, behind = (numpy_overlap(form, a[:, None] + s * step, b[:, None], eps) for s in (1, -1))
        slope = w[:, None] * (behind - ahead) / 2e-6
        assert np.abs(grad.numpy() - slope).max() <= 1e-6 * max(np.abs(slope).max(), 1e-2)


@each_device
@pytest.mark.parametrize("form", ["giou", "diou"])
@pytest.mark.parametrize("eps, suffix", [(1e-6, "eps1e6"), (1e-7, "eps1e7")])
def test_released_losses_and_gradients(device, form, eps, suffix):
    """mmdetection's, degenerate and inverted boxes included; the largest must not hide the others."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("ld_iou_loss").items()}
    prediction = z["pred"].double().requires_grad_()
    rows = LOSSES[form](prediction, z["target"].double(), eps=eps)
    assert relative_error(rows.detach(), z[f"{form}_{suffix}"]) < 1e-9
    (grad,) = torch.autograd.grad(rows.sum(), prediction)
    want = z[f"grad_{form}_{suffix}"]
    usual = want.abs().amax(1) < 1e3
    assert relative_error(grad[usual], want[usual]) < 1e-9 and relative_error(grad, want) < 1e-9


@each_device
def test_released_module(device):
    """GIoULoss(loss_weight=2) with weights and avg_factor 1, to which it adds float32's eps."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("ld_iou_loss").items()}
    prediction = z["pred"].double().requires_grad_()
    factor = 1 + torch.finfo(torch.float32).eps
    options = dict(weight=z["weight"], reduction="mean", avg_factor=factor, eps=1e-6)
    out = 2 * giou_loss(prediction, z["target"].double(), **options)
    assert relative_error(out.detach(), z["giou_module_w2_wavg1"]) < 1e-9
    assert relative_error(torch.autograd.grad(out, prediction)[0], z["grad_giou_module_w2_wavg1"]) < 1e-9


@each_device
@pytest.mark.parametrize("form", LOSSES)
def test_bad_rows_stay_alone_and_weight_0_is_not_read(device, form):
    a, b, weight = Case(pairs(2, 30, keep=0.5)).inputs(device, torch.float64)
    skipped = weight == 0
    a[0, 0], weight[0, 0] = torch.nan, 1.0
    poisoned = a.masked_fill(skipped[..., None], torch.nan).requires_grad_()
    rows = LOSSES[form](poisoned, b.masked_fill(skipped[..., None], torch.inf), weight=weight)
    (grad,) = torch.autograd.grad(rows.sum(), poisoned)
    clean = a.clone().requires_grad_()
    want = LOSSES[form](clean, b, weight=weight)
    assert_close((rows.detach(), grad), (want.detach(), torch.autograd.grad(want.sum(), clean)[0]), 0.0)
    assert rows[0, 0].isnan() and rows.isnan().sum() == 1 and (rows[skipped] == 0).all()
    assert (grad[skipped] == 0).all()


@each_device
@pytest.mark.parametrize("form", LOSSES)
def test_equal_boxes_lose_nothing(device, form):
    """In float32 too, where IoU rounds to 1."""
    boxes = (torch.rand(50, 4, device=device) * 100).cumsum(1)[:, [0, 1, 2, 3]].requires_grad_()
    rows = LOSSES[form](boxes, boxes.detach())
    assert (rows.abs() < 1e-6).all() and torch.autograd.grad(rows.sum(), boxes)[0].isfinite().all()


def test_nothing_over_nothing_is_nothing():
    a = torch.rand(3, 4, requires_grad=True)
    out = giou_loss(a, torch.rand(3, 4), weight=torch.zeros(3), reduction="mean", avg_factor=torch.tensor(0.0))
    assert out == 0 and (torch.autograd.grad(out, a)[0] == 0).all()
