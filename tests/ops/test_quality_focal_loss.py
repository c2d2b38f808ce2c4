import numpy as np
import pytest
import torch

from pydistill.ops import quality_focal_loss
from pydistill.ops.quality_focal_loss import quality_focal_loss_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.golden import golden
from tests.ops.cases import CASES
from tests.ops.focal import assert_case, differentiate, random_reduction


def weighted(fn):
    """``fn`` with the weight as its fourth tensor, so that the suite casts and moves it."""
    return lambda logits, labels, scores, weight=None, **kwargs: fn(logits, labels, scores, weight=weight, **kwargs)


def locations(*shape, activated=False, weight=None):
    """Logits, labels of which most are background, scores, and a weight that is 0 in part of the rows."""

    def make(rng):
        rows, classes = shape[:-1], shape[-1]
        logits = 2 * torch.randn(shape, generator=rng, dtype=torch.float64)
        labels = torch.randint(-classes, 2 * classes, rows, generator=rng).clamp(-1)
        made = [logits.sigmoid() if activated else logits, labels, torch.rand(rows, generator=rng, dtype=torch.float64)]
        if weight is not None:
            keep = torch.rand(rows, generator=rng) < weight
            made.append(torch.rand(rows, generator=rng, dtype=torch.float64) * keep)
        return made

    return make


class TestQualityFocalLoss(Conformance):
    fn, reference = weighted(quality_focal_loss), weighted(quality_focal_loss_reference)
    cases = {
        "rows": Case(locations(7, 20)),
        "images": Case(locations(2, 70, 80, weight=0.8), dict(reduction="mean", avg_factor=torch.tensor(13.0))),
        "one-class": Case(locations(30, 1), dict(beta=1.0, reduction="sum")),
        "power": Case(locations(30, 10, weight=0.5), dict(beta=1.5)),
        "cross-entropy": Case(locations(12, 3), dict(beta=0.0, reduction="mean")),
        "activated": Case(locations(20, 20, activated=True), dict(activated=True, reduction="sum")),
        "many-classes": Case(locations(3, 1100, activated=True), dict(activated=True, beta=0.7)),
    }
    gradients = (0,)
    empty = Case(locations(0, 20), dict(reduction="mean"))
    wrong = {
        "labels": (
            lambda: quality_focal_loss(torch.rand(2, 3), torch.ones(3, dtype=torch.int64), torch.rand(2)),
            ValueError,
            r"quality_focal_loss: expected labels of shape \[2\], got \[3\]",
        ),
        "scores": (
            lambda: quality_focal_loss(torch.rand(2, 3), torch.ones(2, dtype=torch.int64), torch.rand(2, 3)),
            ValueError,
            r"quality_focal_loss: expected scores of shape \[2\], got \[2, 3\]",
        ),
        "label-dtype": (
            lambda: quality_focal_loss(torch.rand(2, 3), torch.rand(2), torch.rand(2)),
            TypeError,
            "quality_focal_loss: expected labels of an integer dtype, got torch.float32",
        ),
        "score-dtype": (
            lambda: quality_focal_loss(torch.rand(2, 3), torch.ones(2).long(), torch.ones(2).long()),
            TypeError,
            "quality_focal_loss: expected scores of a floating point dtype, got torch.int64",
        ),
        "dtype": (
            lambda: quality_focal_loss(torch.ones(2, 3).long(), torch.ones(2).long(), torch.rand(2)),
            TypeError,
            "quality_focal_loss: expected logits of a floating point dtype, got torch.int64",
        ),
        "rank": (
            lambda: quality_focal_loss(torch.tensor(1.0), torch.tensor(1), torch.tensor(1.0)),
            ValueError,
            r"quality_focal_loss: expected logits of shape \(..., C\), got \[\]",
        ),
        "beta": (
            lambda: quality_focal_loss(torch.rand(2, 3), torch.ones(2).long(), torch.rand(2), beta=-1.0),
            ValueError,
            "quality_focal_loss: expected beta >= 0, got -1.0",
        ),
        "weight": (
            lambda: quality_focal_loss(torch.rand(2, 3), torch.ones(2).long(), torch.rand(2), weight=torch.rand(3)),
            ValueError,
            r"quality_focal_loss: expected weight that broadcasts to \[2\], got \[3\]",
        ),
        "reduction": (
            lambda: quality_focal_loss(torch.rand(2, 3), torch.ones(2).long(), torch.rand(2), reduction="max"),
            ValueError,
            "quality_focal_loss: expected reduction \"none\", \"mean\" or \"sum\", got 'max'",
        ),
    }  # fmt: skip


def stated(x, labels, scores, beta, activated):
    """The loss of each row and its gradient in float64 NumPy, written from the equation."""
    y = np.where(labels[..., None] == np.arange(x.shape[-1]), scores[..., None], 0.0)
    p = x if activated else 1 / (1 + np.exp(-x))
    entropy = -y * np.log(p) - (1 - y) * np.log(1 - p)
    distance = np.abs(p - y)
    d_entropy = (p - y) / (p * (1 - p))
    d_distance = np.sign(p - y) * (beta * distance ** (beta - 1) if beta else 0)
    slopes = distance**beta * d_entropy + entropy * d_distance
    return (distance**beta * entropy).sum(-1), slopes * (1 if activated else p * (1 - p))


@each_device
def test_random_cases(device):
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        shape = tuple(rng.integers(1, 7, rng.integers(0, 3)))
        classes = int(rng.integers(1, 40))
        x = rng.normal(size=(*shape, classes)) * 3
        beta, activated = float(rng.choice([2, 1, 0, rng.uniform(0, 4)])), bool(rng.uniform() < 0.3)
        x = 1 / (1 + np.exp(-x)) if activated else x
        labels, scores = rng.integers(-2, classes + 3, shape), rng.uniform(size=shape)
        options, weight, factor = random_reduction(rng, shape)
        rows = stated(x, np.asarray(labels), np.asarray(scores), beta, activated)
        options |= dict(beta=beta, activated=activated)
        assert_case(device, quality_focal_loss, (x, labels, scores), options, *rows, weight, factor)


@each_device
@pytest.mark.parametrize("name, kwargs", [("beta2", {}), ("beta1", dict(beta=1.0)), ("prob", dict(activated=True))])
def test_released_rows(device, name, kwargs):
    z = golden("ld_qfl")
    logits, labels, scores = (
        torch.tensor(z[k], device=device) for k in ("prob" if name == "prob" else "logit", "label", "score")
    )
    loss, grad = differentiate(quality_focal_loss, logits.double(), labels, scores.double(), **kwargs)
    assert relative_error(loss, torch.tensor(z[f"row_{name}"])) < 1e-9
    assert relative_error(grad, torch.tensor(z[f"grad_{name}"])) < 1e-9


@each_device
def test_released_reduction(device):
    z = golden("ld_qfl")
    logits, labels, scores, weight = (torch.tensor(z[k], device=device) for k in ("logit", "label", "score", "weight"))
    factor = 13 + torch.finfo(torch.float32).eps  # the reference adds it
    options = dict(weight=weight, reduction="mean", avg_factor=factor)
    loss, grad = differentiate(quality_focal_loss, logits.double(), labels, scores.double(), **options)
    assert relative_error(loss, torch.tensor(z["wavg13"])) < 1e-9
    assert relative_error(grad, torch.tensor(z["grad_wavg13"])) < 1e-9
    assert relative_error(quality_focal_loss(logits, labels, scores, **options), torch.tensor(z["wavg13"])) < 1e-5


@each_device
@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_stays_in_its_row(device, activated, bad):
    logits, labels, scores = (x.to(device) for x in locations(40, 20)(torch.Generator().manual_seed(0)))
    logits = logits.sigmoid() if activated else logits
    labels[5], labels[6], labels[7] = 3, 20, 3
    clean, clean_grad = differentiate(quality_focal_loss, logits, labels, scores, activated=activated)
    logits[5, 2], scores[6], scores[7] = bad, bad, float("nan")
    loss, grad = differentiate(quality_focal_loss, logits, labels, scores, activated=activated)
    same = torch.arange(40, device=device) % 40 != 5
    same[7] = False  # 6 is background: its score is not read
    assert torch.equal(loss[same], clean[same]) and torch.equal(grad[same], clean_grad[same])
    if bad == float("inf") and not activated:  # as the largest number
        assert loss[5] > 1e308 and abs(grad[5, 2] - 1) < 1e-12
    else:
        assert loss[5].isnan() and grad[5, 2].isnan()
    assert loss[7].isnan() and grad[7, 3].isnan()
    for row, c in ((5, 2), (7, 3)):
        rest = torch.arange(20, device=device) != c
        assert torch.equal(grad[row, rest], clean_grad[row, rest])


@each_device
@pytest.mark.parametrize("activated", [False, True])
def test_rows_of_weight_0_are_not_read(device, activated):
    logits, labels, scores, weight = (
        x.to(device) for x in locations(60, 9, activated=activated, weight=0.4)(torch.Generator().manual_seed(0))
    )
    want = differentiate(quality_focal_loss, logits, labels, scores, weight=weight, activated=activated)
    skipped = weight == 0
    poisoned = logits.masked_fill(skipped.unsqueeze(-1), float("nan")), scores.masked_fill(skipped, float("nan"))
    got = differentiate(quality_focal_loss, poisoned[0], labels, poisoned[1], weight=weight, activated=activated)
    assert_close(got, want, 0.0)
    assert skipped.any() and (got[0][skipped] == 0).all() and (got[1][skipped] == 0).all()


@each_device
def test_logits_that_rule_a_class_out(device):
    logits = torch.tensor([[-float("inf"), 0.5, -float("inf")]], device=device)
    labels, scores = torch.tensor([1], device=device), torch.tensor([0.7], device=device)
    loss, grad = differentiate(quality_focal_loss, logits, labels, scores)
    want, want_grad = differentiate(quality_focal_loss, logits[:, 1:2], labels - 1, scores)
    assert torch.equal(loss, want) and grad.tolist() == [[0, want_grad.item(), 0]]


@each_device
@pytest.mark.parametrize("beta", [2.0, 1.0, 1.5])
def test_confident_logits_keep_their_digits(device, beta):
    """In float32 1 - p loses them where p is near 1, and log(1 + e) where e is small."""
    x = torch.linspace(-30, 30, 601, dtype=torch.float64, device=device).unsqueeze(-1)
    for score in (0.0, 1.0, 0.3):
        labels, scores = torch.zeros(601, dtype=torch.int64, device=device), torch.full((601,), score, device=device)
        want, want_grad = differentiate(quality_focal_loss, x, labels, scores, beta=beta)
        got, grad = differentiate(quality_focal_loss, x.float(), labels, scores, beta=beta)
        sure = (x.sigmoid().squeeze(-1) - score).abs() > 1e-2 if score == 0.3 else want > 1e-30
        exact = x.float().double() - x  # float32 moves the logit itself
        slack = 2e-6 + exact.abs().squeeze(-1) * 4
        assert ((got - want).abs()[sure] <= slack[sure] * want[sure]).all()
        assert ((grad - want_grad).abs().squeeze(-1)[sure] <= 4 * slack[sure] * want_grad.abs().squeeze(-1)[sure]).all()


@each_device
@pytest.mark.parametrize("factor", [0.0, torch.tensor(0.0)], ids=["number", "tensor"])
def test_nothing_over_nothing_is_nothing(device, factor):
    factor = factor.to(device) if isinstance(factor, torch.Tensor) else factor
    logits, labels, scores = (x.to(device) for x in locations(40, 9)(torch.Generator().manual_seed(0)))
    options = dict(reduction="mean", avg_factor=factor)
    weight = torch.zeros(40, device=device)
    loss, grad = differentiate(quality_focal_loss, logits, labels, scores, weight=weight, **options)
    assert loss == 0 and (grad == 0).all()
    loss, grad = differentiate(quality_focal_loss, logits, labels, scores, **options)
    assert loss == float("inf") and (grad == 0).all()


@each_device
def test_half_gradients_are_rounded_once_after_the_upstream_scale(device):
    logits, labels, scores = (x.to(device) for x in locations(9000, 20)(torch.Generator().manual_seed(0)))
    logits = (logits - 5).half().requires_grad_()
    (grad,) = torch.autograd.grad(65536 * quality_focal_loss(logits, labels, scores, reduction="mean"), logits)
    _, want = differentiate(quality_focal_loss_reference, logits.detach().double(), labels, scores, reduction="mean")
    assert grad.dtype == torch.float16 and relative_error(grad, 65536 * want) < 1e-3


@each_device
def test_other_layouts_are_read_as_they_are(device):
    """Class maps (N, C, H, W) seen as rows: no copy, the same numbers, a gradient in their layout."""
    maps, labels, scores = (x.to(device) for x in locations(2, 5, 6, 10)(torch.Generator().manual_seed(0)))
    view = maps.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    got = differentiate(quality_focal_loss, view, labels, scores)
    assert got[1].stride() == view.stride()
    assert_close(got, differentiate(quality_focal_loss, maps, labels, scores), 1e-12)
