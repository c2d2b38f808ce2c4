import numpy as np
import torch
import torch.nn.functional as F

from pydistill.ops import info_nce_loss
from pydistill.ops.info_nce_loss import info_nce_loss_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.golden import golden
from tests.ops.cases import CASES


def masked(fn):
    """``fn`` with the mask by position, so that the suite moves it."""
    return lambda student, teacher, valid=None, **kwargs: fn(student, teacher, valid=valid, **kwargs)


def vectors(n, d, *, valid=None):
    def make(rng):
        made = [torch.randn(n, d, generator=rng, dtype=torch.float64) for _ in range(2)]
        return made if valid is None else [*made, torch.rand(n, generator=rng) < valid]

    return make


class TestInfoNceLoss(Conformance):
    fn, reference = masked(info_nce_loss), masked(info_nce_loss_reference)
    cases = {
        "all": Case(vectors(20, 8)),
        "some": Case(vectors(33, 5, valid=0.6), dict(temperature=0.2)),
        "none": Case(vectors(4, 5, valid=0.0)),
        "one": Case(vectors(1, 3)),
        "cold": Case(vectors(9, 6), dict(temperature=0.005)),
        "both-learn": Case(vectors(12, 6, valid=0.8), dict(detach_target=False, temperature=0.5)),
    }
    gradients = (0,)
    repeats = 1e-6  # torch's matrix products, whose last bits are those of their threads
    gradient_tolerance = {**Conformance.gradient_tolerance, torch.float16: 1e-2, torch.bfloat16: 5e-2}
    empty = Case(vectors(0, 4))
    wrong = {
        "rank": (
            lambda: info_nce_loss(torch.rand(2, 3, 4), torch.rand(2, 3, 4)),
            ValueError,
            r"info_nce_loss: expected student of shape \(N, D\), got \[2, 3, 4\]",
        ),
        "teacher": (lambda: info_nce_loss(torch.rand(2, 3), torch.rand(3, 3)), ValueError, r"\[2, 3\], got \[3, 3\]"),
        "dtype": (lambda: info_nce_loss(torch.ones(2, 3).int(), torch.rand(2, 3)), TypeError, "student of a floating"),
        "temperature": (
            lambda: info_nce_loss(torch.rand(2, 3), torch.rand(2, 3), temperature=0.0),
            ValueError,
            "temperature > 0, got 0.0",
        ),
        "valid": (
            lambda: info_nce_loss(torch.rand(2, 3), torch.rand(2, 3), valid=torch.ones(3).bool()),
            ValueError,
            r"valid of shape \[2\], got \[3\]",
        ),
        "valid-dtype": (
            lambda: info_nce_loss(torch.rand(2, 3), torch.rand(2, 3), valid=torch.ones(2)),
            TypeError,
            "valid of dtype torch.bool, got torch.float32",
        ),
    }


def stated(s, t, temperature):
    """The loss and its gradients with respect to both, in float64 NumPy, written from the equation."""
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t)]
    u, v = s / lengths[0], t / lengths[1]
    logits = v @ u.T / temperature
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slopes = (p - np.eye(len(s))) / len(s) / temperature
    du, dv = slopes.T @ v, slopes @ u
    along = [d - x * (d * x).sum(1, keepdims=True) for d, x in ((du, u), (dv, v))]
    return -np.log(np.diagonal(p)).mean(), along[0] / lengths[0], along[1] / lengths[1]


def test_a_thousand_cases():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        n, d = rng.integers(1, 20), rng.integers(2, 10)
        s, t = rng.normal(size=(2, n, d)) * 2
        valid = rng.random(n) < (0.7 if rng.random() < 0.5 else 1)
        valid[0] = True
        temperature = float(rng.uniform(0.1, 2))
        x, y = (torch.tensor(z, requires_grad=True) for z in (s, t))
        mask = torch.tensor(valid) if rng.random() < 0.8 or not valid.all() else None
        got = info_nce_loss(x, y, temperature=temperature, detach_target=False, valid=mask)
        grads = torch.autograd.grad(got, (x, y))
        loss, *slopes = stated(s[valid], t[valid], temperature)
        assert abs(got.item() - loss) <= 1e-12 * max(loss, 1)
        for grad, slope in zip(grads, slopes, strict=True):
            assert np.abs(grad.numpy()[valid] - slope).max() <= 1e-12 * max(np.abs(slope).max(), 1)
            assert (grad.numpy()[~valid] == 0).all()


@each_device
def test_released_head(device):
    """MoCoCLHead: a projection of either side, then 0.2 of this loss."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("detr_distill").items() if k.startswith("cl_")}

    def projected(x, first, head):
        layer = lambda name, y: F.linear(y, z[f"cl_w_{name}__weight"], z[f"cl_w_{name}__bias"])  # noqa: E731
        y = layer(f"{head}__0", layer(f"{first}__0__0", x))
        norm = [z[f"cl_w_{head}__1__{name}"] for name in ("weight", "bias")]
        return layer(f"{head}__3", F.batch_norm(y, None, None, *norm, training=True).relu())

    student = z["cl_student_query"].requires_grad_()
    s, t = projected(student, "img_projs", "encoder_img"), projected(z["cl_teacher_query"], "pts_projs", "encoder_pts")
    loss = 0.2 * info_nce_loss(s, t)
    assert relative_error(loss.detach(), z["cl_loss"]) < 1e-12
    assert relative_error(torch.autograd.grad(loss, student)[0], z["cl_grad_student_query"]) < 1e-12


@each_device
def test_what_is_not_valid_is_not_read(device):
    s, t, valid = Case(vectors(12, 4, valid=0.5)).inputs(device, torch.float64)
    clean = info_nce_loss(s, t, valid=valid)
    s, t = (x.masked_fill(~valid[:, None], torch.nan).requires_grad_() for x in (s, t))
    loss = info_nce_loss(s, t, valid=valid, detach_target=False)
    grads = torch.autograd.grad(loss, (s, t))
    assert torch.equal(loss, clean) and all((g[~valid] == 0).all() and g.isfinite().all() for g in grads)
    assert valid.any() and not valid.all()
