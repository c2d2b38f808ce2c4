import numpy as np
import pytest
import torch

import pydistill
from pydistill.ops import soft_iou_loss
from pydistill.ops.soft_iou_loss import FORMS, soft_iou_loss_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.golden import golden


def scene(n, k, h, w, *, labels=None, ignore=255):
    """Logits, and labels with some to ignore; image 0 lacks the last class."""

    def make(rng):
        z = torch.randn(n, k, h, w, generator=rng, dtype=torch.float64)
        y = torch.randint(labels or max(k, 2), (n, h, w), generator=rng)
        y[:1][y[:1] == k - 1] = 0
        y[torch.rand(n, h, w, generator=rng) < 0.1] = ignore
        return z, y

    return make


SMALL = scene(2, 5, 6, 7)
CASES = {
    "lanes": Case(SMALL),
    "lanes-one": Case(SMALL, dict(absent="one")),
    "port": Case(SMALL, dict(form="port")),
    "port-skip": Case(SMALL, dict(form="port", absent="skip")),
    "port0": Case(SMALL, dict(form="port0")),
    "paper": Case(SMALL, dict(form="paper_literal")),
    "paper-one": Case(SMALL, dict(form="paper_literal", absent="one")),
    "binary": Case(scene(2, 1, 6, 7), dict(form="binary")),
    "two-classes": Case(scene(3, 2, 5, 3)),
    "bad-labels": Case(scene(2, 4, 6, 7, labels=9)),
    "ignore-a-class": Case(scene(2, 4, 6, 7, ignore=2), dict(ignore_index=2)),
    "many-tiles": Case(scene(3, 5, 40, 70)),
    "many-classes": Case(scene(2, 33, 9, 31)),
}
Z, Y = torch.randn(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)


class TestSoftIouLoss(Conformance):
    fn, reference = soft_iou_loss, soft_iou_loss_reference
    cases, gradients = CASES, (0,)
    empty = Case(scene(0, 5, 4, 5))
    wrong = {
        "rank": (
            lambda: soft_iou_loss(Z[0], Y),
            ValueError,
            r"soft_iou_loss: expected logits of shape \(N, K, H, W\), got \[3, 2, 2\]",
        ),
        "labels": (lambda: soft_iou_loss(Z, Y[:, :1]), ValueError, r"labels of shape \[1, 2, 2\], got \[1, 1, 2\]"),
        "dtype": (lambda: soft_iou_loss(Z.long(), Y), TypeError, "a floating point dtype, got torch.int64"),
        "label-dtype": (lambda: soft_iou_loss(Z, Y.float()), TypeError, "an integer dtype, got torch.float32"),
        "form": (lambda: soft_iou_loss(Z, Y, form="dice"), ValueError, "expected form in .*, got 'dice'"),
        "absent": (lambda: soft_iou_loss(Z, Y, absent="zero"), ValueError, "expected absent in .*, got 'zero'"),
        "binary": (lambda: soft_iou_loss(Z, Y, form="binary"), ValueError, "1 to 1 classes for form 'binary', got 3"),
        "one-class": (lambda: soft_iou_loss(Z[:, :1], Y), ValueError, "2 to 1024 classes for form 'lanes', got 1"),
        "no-class": (lambda: soft_iou_loss(Z[:, :0], Y, form="port"), ValueError, "1 to 1024 classes .*, got 0"),
    }


def value_and_gradient(z, y, **options):
    z = z.clone().requires_grad_()
    loss = soft_iou_loss(z, y, **options)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


@pytest.fixture
def port():
    return {k: torch.from_numpy(np.asarray(v)) for k, v in golden("sad_iou").items()}


@each_device
@pytest.mark.parametrize("precision, tolerance", [("f64", 1e-9), ("f32", 1e-5)])
@pytest.mark.parametrize("form, prefix", [("port", ""), ("port0", "old_")])
def test_golden_port(device, port, form, prefix, precision, tolerance):
    """ENet-SAD_Pytorch, its last and its first ``mIoULoss``."""
    z = port["logits"].to(device, torch.float64 if precision == "f64" else torch.float32)
    got = value_and_gradient(z, port["label"].to(device), form=form)
    assert_close(got, (port[f"{prefix}loss_{precision}"], port[f"{prefix}grad_{precision}"]), tolerance)


@each_device
def test_golden_port_with_one_channel_learns_nothing(device, port):
    """``mIoULoss(n_classes=1)``, as the port trains on BDD100K."""
    z, y = port["logits"][:, :1].double().to(device), (port["label"] > 0).long().to(device)
    loss, grad = value_and_gradient(z, y, form="port")
    assert relative_error(loss, port["bdd_loss_f64"]) < 1e-12
    assert torch.equal(grad.cpu(), port["bdd_grad_f64"])
    assert (value_and_gradient(z, y, form="binary")[1] != 0).all()


@each_device
def test_golden_lanes(device, port):
    z, y, iou = port["logits"].double().to(device), port["label"].to(device), port["derived_softiou_NC"][:, 1:]
    assert relative_error(soft_iou_loss(z, y, absent="one"), port["derived_loss_lanes_mean"]) < 1e-9
    assert relative_error(soft_iou_loss(z, y), 1 - iou[iou > 0].mean()) < 1e-9


@each_device
@pytest.mark.parametrize("label", range(5))
@pytest.mark.parametrize("image", range(2))
def test_golden_iou(device, port, image, label):
    """The IoU of each image and class, made class 1 by turning the classes round; 0 where the image lacks it."""
    z = port["logits"][image : image + 1].double().roll(1 - label, 1).to(device)
    y = (port["label"][image : image + 1] + 1 - label).remainder(5).to(device)
    want = port["derived_softiou_NC"][image, label]
    assert abs(1 - soft_iou_loss(z, y, form="port").item() - want.item()) < 1e-9


@each_device
def test_the_paper_as_quoted_rewards_lanes_anywhere(device):
    """By hand: one pixel of two is class 1. Wherever the mass is, more of it is a smaller loss."""
    y = torch.tensor([[[1, 0]]], device=device)
    for p in ([0.9, 0.2], [0.2, 0.9]):
        z = torch.tensor(p, dtype=torch.float64, device=device).logit()
        z = torch.stack([torch.zeros_like(z), z])[None, :, None]
        want = 1 - torch.tensor(sum(p) / (sum(p) + 1 - p[0]), dtype=torch.float64)
        loss, grad = value_and_gradient(z, y, form="paper_literal")
        assert relative_error(loss, want) < 1e-12 and (grad[0, 1, 0, 0] < 0)
        assert grad[0, 1, 0, 1] < 0 < value_and_gradient(z, y)[1][0, 1, 0, 1]


@each_device
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("absent, loss", [("skip", 0.0), ("one", 1.0)])
def test_no_lane_at_all(device, form, absent, loss):
    z = torch.randn(2, 1 if form == "binary" else 4, 3, 5, device=device)
    got, grad = value_and_gradient(z, torch.zeros(2, 3, 5, dtype=torch.long, device=device), form=form, absent=absent)
    assert got == loss and (grad == 0).all()


@each_device
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32], ids=str)
def test_integer_labels_of_other_sizes(device, dtype):
    z, y = CASES["lanes"].inputs(device, torch.float32)
    assert torch.equal(soft_iou_loss(z, y.to(dtype)), soft_iou_loss(z, y))


@each_device
@pytest.mark.parametrize("form, known", [("lanes", 5), ("binary", 2)])
def test_a_label_that_is_no_class_is_background(device, form, known):
    z, y = CASES[form].inputs(device, torch.float32)
    y[0, :3] = 0
    want = value_and_gradient(z, y, form=form)
    y[0, 0], y[0, 1], y[0, 2] = -1, 2**40, -(2**63)
    assert all(map(torch.equal, value_and_gradient(z, y, form=form), want))
    message = rf"expected labels in \[0, {known}\), got -1 at \[0, 0, 0\]"
    with pydistill.checking(), pytest.raises(ValueError, match=message):
        soft_iou_loss(z, y, form=form)


@each_device
def test_ignored_pixels_are_not_used(device):
    z, y = CASES["lanes"].inputs(device, torch.float32)
    want, want_grad = value_and_gradient(z, y)
    ignored = (y == 255).unsqueeze(1).expand_as(z)
    z[ignored] = float("nan")
    with pydistill.checking():
        loss, grad = value_and_gradient(z, y)
    assert torch.equal(loss, want) and torch.equal(grad, want_grad) and (grad[ignored] == 0).all()


@each_device
def test_nan_reaches_the_gradient_of_its_image_only(device):
    z, y = CASES["lanes"].inputs(device, torch.float32)
    y[0, 3, 3] = 1
    want = value_and_gradient(z, y)[1]
    z[0, 2, 3, 3] = float("nan")
    loss, grad = value_and_gradient(z, y)
    assert loss.isnan() and grad[0].isnan().any() and torch.equal(grad[1], want[1])
    with pydistill.checking(), pytest.raises(ValueError, match=r"finite logits, got nan at \[0, 2, 3, 3\]"):
        soft_iou_loss(z, y)


@each_device
def test_large_logits_do_not_overflow(device):
    y = torch.tensor([[[1, 0, 1]]], device=device)
    z = torch.tensor([[[[0.0, 0, 0]], [[6e4, -6e4, 6e4]]]], device=device).half()
    for form in ("lanes", "port", "paper_literal"):
        assert soft_iou_loss(z, y, form=form) == 0
    assert soft_iou_loss(z[:, 1:], y, form="binary") == 0
    assert soft_iou_loss(-z[:, 1:], y, form="binary") == 1
    loss, grad = value_and_gradient(torch.full_like(z[:, 1:], -torch.inf), y, form="binary")
    assert loss == 1 and (grad == 0).all()


@each_device
def test_channel_and_image_slices_are_read_in_place(device, monkeypatch):
    z, y = scene(4, 7, 6, 7)(torch.Generator().manual_seed(0))
    z, y = z.to(device), y.to(device)
    want = soft_iou_loss(z[::2, 1:6].clone(), y[::2])
    copies = []
    contiguous = torch.Tensor.contiguous
    monkeypatch.setattr(
        torch.Tensor, "contiguous", lambda t: contiguous(t) if t.dtype == torch.int64 else copies.append(t)
    )
    assert torch.equal(soft_iou_loss(z[::2, 1:6], y[::2]), want) and not copies
