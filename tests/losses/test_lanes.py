"""LaneLoss against plain torch in float64 and against what the released codes computed."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

import pydistill
from pydistill.losses import LaneLoss
from pydistill.ops.soft_iou_loss import soft_iou_loss_reference
from tests.conformance import NoCopies, assert_close, each_device, relative_error
from tests.golden import golden

TERMS = ["segmentation", "iou", "existence"]


def scene(device="cpu", channels=5, dtype=torch.float64, images=3):
    """Logits and labels with a lane that is absent and a strip that is ignored."""
    rng = torch.Generator().manual_seed(0)
    segmentation = torch.randn(images, channels, 6, 8, generator=rng, dtype=torch.float64)
    labels = torch.randint(max(channels, 2), (images, 6, 8), generator=rng)
    labels[0][labels[0] == 1] = 0
    labels[:, :2] = 255
    existence = torch.randn(images, 4, generator=rng, dtype=torch.float64)
    exists = torch.randint(2, (images, 4), generator=rng).double()
    learn = [x.to(device, dtype).requires_grad_() for x in (segmentation, existence)]
    return learn[0], learn[1], labels.to(device), exists.to(device, torch.float32)


def arrays(name, device):
    return {key: torch.from_numpy(value).to(device) for key, value in golden(name).items()}


def plain(segmentation, existence, labels, exists, *, background, normalizer, alpha, beta, form, absent=None):
    """The objective, written down a second time: picked by masks, summed in a row."""
    used = labels != 255
    if segmentation.shape[1] == 1:
        z = segmentation[:, 0]
        rows = torch.where(labels == 1, F.softplus(-z), F.softplus(z))[used]
    else:
        picked = labels.masked_fill(~used, 0)[:, None]
        rows = -segmentation.log_softmax(1).gather(1, picked)[:, 0][used]
    weights = torch.where(labels[used] == 0, torch.tensor(background, dtype=torch.float64), 1.0)
    losses = {"segmentation": (weights * rows).sum() / (weights.sum() if normalizer == "weights" else used.sum())}
    if alpha:
        losses["iou"] = alpha * soft_iou_loss_reference(segmentation, labels, form=form, absent=absent)
    if beta:
        p, t = existence.sigmoid(), exists.double()
        losses["existence"] = -beta * (t * p.log() + (1 - t) * (1 - p).log()).mean()
    return losses


PAPER = dict(background=0.4, normalizer="weights", alpha=0.1, beta=0.1, form="lanes")
CASES = {
    "paper": ({}, 5, PAPER),
    "paper-two-classes": ({}, 2, PAPER),
    "paper-single": ({}, 1, PAPER | dict(form="binary")),
    "port": (dict(reference="port"), 5, PAPER | dict(form="port")),
    "port-single": (dict(reference="port"), 1, PAPER | dict(form="port", background=1.0)),
    "tensorflow": (dict(reference="tensorflow"), 5, dict(PAPER, background=1.0, normalizer="pixels", alpha=0, beta=0)),
    "tensorflow-single": (dict(reference="tensorflow"), 1, dict(PAPER, background=1.0, alpha=0, beta=0)),
    "scnn": (dict(segmentation_normalizer="pixels", alpha=0), 5, PAPER | dict(normalizer="pixels", alpha=0)),
    "port0": (dict(reference="port", iou_form="port0"), 5, PAPER | dict(form="port0")),
    "literal": (dict(iou_form="paper_literal", iou_absent="one"), 5, PAPER | dict(form="paper_literal", absent="one")),
    "weights": (
        dict(alpha=0.7, beta=2.0, background_weight=0.25),
        5,
        PAPER | dict(background=0.25, alpha=0.7, beta=2.0),
    ),
}


def differentiate(losses, xs):
    grads = torch.autograd.grad(sum(losses.values()), xs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(xs, grads)]


@each_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("options", "channels", "expected"), CASES.values(), ids=CASES)
def test_is_the_objective_in_plain_torch(device, dtype, options, channels, expected):
    segmentation, existence, labels, exists = scene(device, channels, dtype)
    wide = [x.detach().double().requires_grad_() for x in (segmentation, existence)]
    got, want = LaneLoss(**options)(segmentation, existence, labels, exists), plain(*wide, labels, exists, **expected)
    assert list(got) == list(want)
    assert {loss.dtype for loss in got.values()} == {torch.float64 if dtype == torch.float64 else torch.float32}
    assert_close(list(got.values()), list(want.values()), 1e-12 if dtype == torch.float64 else 1e-5)
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    assert_close(differentiate(got, (segmentation, existence)), differentiate(want, wide), tolerance)


@each_device
def test_golden_erfnet_applies_the_sigmoid_twice(device):
    """The authors' ERFNet hands probabilities to a loss of logits; given as logits here, they give its numbers."""
    g = arrays("sad_erfnet_official_loss", device)
    xs = [g[key].double().requires_grad_() for key in ("logits", "exist_sigmoid_out")]
    losses = LaneLoss(alpha=0)(*xs[:1], xs[1], g["label_ignore255"], g["exist_gt"])
    assert relative_error(losses["segmentation"], g["loss_seg"]) < 1e-9
    assert relative_error(losses["existence"] * 10, g["loss_exist"]) < 1e-9
    assert relative_error(sum(losses.values()), g["loss_total"]) < 1e-9
    assert_close(differentiate(losses, xs), [g["g_logits"], g["g_exist"]], 1e-9)


@each_device
@pytest.mark.parametrize(
    ("options", "loss", "grad"),
    [
        (dict(reference="port"), "loss_f64", "grad_f64"),
        (dict(reference="port", iou_form="port0"), "old_loss_f64", "old_grad_f64"),
        (dict(iou_absent="one"), "derived_loss_lanes_mean", None),
    ],
)
def test_golden_iou_of_the_port(device, options, loss, grad):
    g = arrays("sad_iou", device)
    logits = g["logits"].double().requires_grad_()
    got = LaneLoss(alpha=1.0, beta=0, **options)(logits, None, g["label"], None)["iou"]
    assert relative_error(got, g[loss]) < 1e-9
    if grad is not None:
        assert relative_error(torch.autograd.grad(got, logits)[0], g[grad]) < 1e-9


@each_device
def test_golden_single_channel_of_the_port_learns_nothing_from_the_iou(device):
    g = arrays("sad_iou", device)
    logits = g["logits"][:, :1].double().requires_grad_()
    losses = LaneLoss(reference="port", alpha=1.0, beta=0)(logits, None, (g["label"] > 0).long(), None)
    assert relative_error(losses["iou"], g["bdd_loss_f64"]) < 1e-9
    assert (torch.autograd.grad(losses["iou"], logits)[0] == 0).all()


@each_device
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("normalizer", ["weights", "pixels"])
@pytest.mark.parametrize("images", [0, 2])
def test_without_a_pixel_the_loss_and_its_gradient_are_zero(device, channels, normalizer, images):
    segmentation, existence, labels, exists = scene(device, channels, images=max(images, 1))
    segmentation, existence = (x[:images].detach().requires_grad_() for x in (segmentation, existence))
    ignored = torch.full_like(labels, 255)[:images]
    loss = LaneLoss(segmentation_normalizer=normalizer)
    losses = loss(segmentation, existence, ignored, exists[:images])
    assert losses["segmentation"] == 0 and losses["iou"] == 0 and losses["existence"].isfinite()
    assert (differentiate(losses, (segmentation, existence))[0] == 0).all()


@each_device
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, dict(reference="port"), dict(segmentation_normalizer="pixels")], ids=str)
@pytest.mark.parametrize("ignore_index", [255, 0, -100])
def test_a_label_outside_the_classes_is_background(device, channels, options, ignore_index):
    """Also where the background's own label is the one that is ignored."""
    segmentation, existence, labels, exists = scene(device, channels)
    learn = segmentation, existence
    odd = torch.randint(2, labels.shape, generator=torch.Generator().manual_seed(1)).to(device) * 10 - 3  # -3 and 7
    bad = labels.masked_fill(labels == 255, ignore_index).where(labels != 0, odd)
    want, got = (
        LaneLoss(**options)(*learn, labels, exists),
        LaneLoss(**options, ignore_index=ignore_index)(*learn, bad, exists),
    )
    assert_close(list(got.values()), list(want.values()), 1e-12)
    assert_close(differentiate(got, learn), differentiate(want, learn), 1e-12)


def test_other_ignore_index_and_narrow_labels():
    segmentation, existence, labels, exists = scene()
    want = LaneLoss()(segmentation, existence, labels, exists)
    other = LaneLoss(ignore_index=-1)(segmentation, existence, labels.masked_fill(labels == 255, -1), exists)
    narrow = LaneLoss()(segmentation, existence, labels.to(torch.uint8), exists)
    assert list(other.values()) == list(want.values()) == list(narrow.values())


@each_device
def test_in_compiled_code(device):
    torch._dynamo.reset()
    loss, inputs = LaneLoss(), scene(device, dtype=torch.float32)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, want = compiled(*inputs), loss(*inputs)
    assert list(got) == TERMS
    assert_close(list(got.values()), list(want.values()), 1e-6)
    assert_close(differentiate(got, inputs[:2]), differentiate(want, inputs[:2]), 1e-6)


def test_on_a_fake_gpu_without_a_copy():
    made = scene(dtype=torch.float16)
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        fake = [torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in made]
        assert [(x.device.type, x.dtype) for x in LaneLoss()(*fake).values()] == [("cuda", torch.float32)] * 3


@each_device
def test_repeats_bit_for_bit(device):
    inputs = scene(device, dtype=torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [[*(losses := LaneLoss()(*inputs)).values(), *differentiate(losses, inputs[:2])] for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(reference="lua"), "expected reference in .*, got 'lua'"),
        (dict(alpha=-1.0), "expected a finite alpha >= 0, got -1.0"),
        (dict(beta=float("inf")), "expected a finite beta >= 0, got inf"),
        (dict(background_weight=-0.1), "expected a finite background_weight >= 0, got -0.1"),
        (dict(segmentation_normalizer="mean"), "expected segmentation_normalizer in .*, got 'mean'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=f"LaneLoss: {message}"):
        LaneLoss(**options)


def test_wrong_inputs():
    segmentation, existence, labels, exists = scene()
    loss = LaneLoss()
    with pytest.raises(ValueError, match=r"LaneLoss: expected segmentation of shape \(N, K, H, W\), got \[5, 6, 8\]"):
        loss(segmentation[0], existence, labels, exists)
    with pytest.raises(ValueError, match=r"LaneLoss: expected labels of shape \[3, 6, 8\], got \[2, 6, 8\]"):
        loss(segmentation, existence, labels[:2], exists)
    with pytest.raises(ValueError, match="LaneLoss: expected existence and its labels, got None; beta=0"):
        loss(segmentation, None, labels, None)
    with pytest.raises(ValueError, match=r"existence and its labels of shape \(N, K'\), got \[3, 4\] and \[3, 3\]"):
        loss(segmentation, existence, labels, exists[:, :3])
    with pydistill.checking(True), pytest.raises(ValueError, match=r"LaneLoss: expected labels in \[0, 5\), got 7"):
        loss(segmentation, existence, labels.masked_fill(labels == 3, 7), exists)
