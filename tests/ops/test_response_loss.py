import numpy as np
import pytest
import torch

from pydistill import _C, checking
from pydistill.ops import response_loss
from pydistill.ops.response_loss import _forward, _parts, _table, response_loss_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.golden import golden
from tests.ops.bev import GOLDEN, INPUTS, LAST, array
from tests.ops.cases import CASES

Z = golden("unidistill_response")


def heads(b, c, r, h, w, *, used=0.3, layout=torch.contiguous_format, normalizer=None):
    """Heat maps and regressions of student and teacher, a region and, where it is given, what normalises."""

    def make(rng):
        made = [2 * torch.randn(b, n, h, w, generator=rng, dtype=torch.float64) for n in (c, c, r, r)]
        made = [x.contiguous(memory_format=layout) for x in made]
        region = torch.rand(b, h, w, generator=rng, dtype=torch.float64)
        made.append(region.where(region < used, 0))
        return made if normalizer is None else [*made, torch.tensor(normalizer, dtype=torch.float64)]

    return make


def joined(fn):
    """``fn`` with what normalises by position, as the sum of its losses."""

    def call(s, t, rs, rt, region, normalizer=None, **kwargs):
        losses = fn(s, t, rs, rt, region, **{"normalizer": normalizer, **kwargs})
        return losses.classes + losses.numbers

    return call


S, R, G = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5), torch.rand(2, 4, 5)


class TestResponseLoss(Conformance):
    fn, reference = joined(response_loss), joined(response_loss_reference)
    cases = {
        "two-tiles": Case(heads(2, 5, 7, 5, 9)),
        "channels-last": Case(heads(2, 5, 7, 5, 9, layout=LAST)),
        "dense": Case(heads(1, 3, 4, 9, 11, used=2.0)),
        "empty-region": Case(heads(2, 5, 7, 5, 9, used=0.0)),
        "warm": Case(heads(2, 5, 7, 5, 9), dict(teacher_temperature=0.5, student_clamp=0.2, teacher_clamp=0.1)),
        "probabilities": Case(heads(2, 5, 7, 5, 9), dict(student_is_logit=False)),
        "normalised": Case(heads(2, 5, 7, 5, 9, normalizer=3.5), dict(eps=0.5)),
        "one-class": Case(heads(2, 1, 0, 5, 9)),
        "numbers-alone": Case(heads(2, 0, 3, 5, 9), dict(teacher_clamp=1e-2)),
    }
    gradients = (0, 2)
    empty = Case(heads(0, 5, 7, 5, 9))
    wrong = {
        "region": (lambda: response_loss(S, S, R, R, G[0]), ValueError, r"\(B, H, W\), got \[4, 5\]"),
        "region-dtype": (lambda: response_loss(S, S, R, R, G.int()), TypeError, "region of dtype bool or floating"),
        "size": (lambda: response_loss(S, S, R, R, G[:, :3]), ValueError, r"heatmaps of shape \(2, C, 3, 5\), got"),
        "teacher": (
            lambda: response_loss(S, S, R, R[:, :5], G),
            ValueError,
            r"teacher_regressions of shape \[2, 6, 4, 5\], got \[2, 5, 4, 5\]",
        ),
        "lists": (lambda: response_loss([S, S], [S], R, R, G), ValueError, "as many teacher_heatmaps .* 2, got 1"),
        "none": (lambda: response_loss([], [], [], [], G), ValueError, "expected heat maps or regressions, got none"),
        "dtype": (lambda: response_loss(S.int(), S, R, R, G), TypeError, "student_heatmaps of a floating point dtype"),
        "dtypes": (
            lambda: response_loss(S, S, R.half(), R, G),
            TypeError,
            "heads of one dtype, got .*float16.*float32",
        ),
        "temperature": (
            lambda: response_loss(S, S, R, R, G, teacher_temperature=0.0),
            ValueError,
            "teacher_temperature > 0, got 0.0",
        ),
        "clamp": (lambda: response_loss(S, S, R, R, G, student_clamp=0.5), ValueError, r"student_clamp in \[0, 1/2\)"),
        "normalizer": (lambda: response_loss(S, S, R, R, G, normalizer=G), ValueError, "normalizer of one element"),
        "eps": (lambda: response_loss(S, S, R, R, G, eps=-1.0), ValueError, "eps >= 0, got -1.0"),
    }


SIZES = (1, 2, 2, 1, 2, 2)  # classes of nuScenes' tasks, each with eleven numbers


@pytest.mark.parametrize("fn", [response_loss, response_loss_reference])
@pytest.mark.parametrize("lists", [False, True], ids=["joined", "lists"])
@pytest.mark.parametrize("case", [*GOLDEN, "n5_5_clamp1e-3"])
def test_golden(case, lists, fn):
    data = case.split("_clamp")[0]
    s, t, rs, rt = (array(INPUTS[name], torch.float64) for name in ("hm_logit_s", "hm_logit_t", "reg_s", "reg_t"))
    s.requires_grad_(), rs.requires_grad_()
    region = torch.tensor(Z[f"{data}_mask"]).double()
    args = s, t, rs, rt
    if lists:
        parts = [11] * 6
        args = [x.split(sizes, 1) for x, sizes in zip(args, (SIZES, SIZES, parts, parts))]
    clamp = 1e-3 if data != case else 1e-4
    losses = fn(*args, region, teacher_clamp=clamp)
    for got, name in zip(losses, ("cls", "reg")):
        want = Z[f"{case}_loss_{name}"] if data != case else Z[f"{case}_loss_{name}_f64"]
        assert abs(got.item() - want) <= 2e-6 * abs(want)
    if f"{case}_grad_reg_s" in Z:
        for grad, name in zip(torch.autograd.grad(losses.classes + losses.numbers, (s, rs)), ("hm_logit_s", "reg_s")):
            assert relative_error(grad, torch.tensor(Z[f"{case}_grad_{name}"])) < 1e-5


def statement(s, t, rs, rt, g, temperature, low, teacher_low, by):
    """Both losses and the gradient of their sum, a cell at a time, in float64 NumPy."""
    total, ds, dr = np.zeros(2), np.zeros_like(s), np.zeros_like(rs)
    for b, y, x in np.argwhere(g):
        best = np.argmax(s[b, :, y, x])
        p, q = 1 / (1 + np.exp(-s[b, best, y, x])), 1 / (1 + np.exp(-t[b, :, y, x].max() / temperature))
        d = np.clip(p, low, 1 - low) - np.clip(q, teacher_low, 1 - teacher_low)
        total[0] += g[b, y, x] * abs(d)
        ds[b, best, y, x] = g[b, y, x] * np.sign(d) * p * (1 - p) * (low <= p <= 1 - low)
        if rs.shape[1]:
            r = rs[b, :, y, x] - rt[b, :, y, x]
            total[1] += g[b, y, x] * np.abs(r).mean()
            dr[b, :, y, x] = g[b, y, x] * np.sign(r) / len(r)
    factor = 1 / ((g.sum() if by is None else by) + 1e-4)
    return total * factor, ds * factor, dr * factor


def test_a_thousand_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        b, h, w, tasks = rng.integers(1, (3, 9, 12, 5))
        c, r = rng.integers(1, 4, tasks), rng.integers(0, 4, tasks)
        s, t, rs, rt = (3 * rng.standard_normal((b, n, h, w)) for n in (c.sum(), c.sum(), r.sum(), r.sum()))
        g = np.where(rng.random((b, h, w)) < rng.random(), rng.random((b, h, w)), 0.0)
        temperature, low, teacher_low = rng.uniform(0.5, 3), rng.uniform(0, 0.3), rng.uniform(0, 0.3)
        by = None if rng.integers(2) else float(rng.uniform(1, 9))
        ours = [torch.tensor(x).requires_grad_() for x in (s, rs)]
        given = [
            [part.contiguous(memory_format=LAST) if rng.integers(2) else part for part in x.split(list(n), 1)]
            for x, n in ((ours[0], c), (torch.tensor(t), c), (ours[1], r), (torch.tensor(rt), r))
        ]
        got = response_loss(
            *given, torch.tensor(g), teacher_temperature=temperature, student_clamp=low, teacher_clamp=teacher_low,
            normalizer=by,
        )  # fmt: skip
        want, *gradients = statement(s, t, rs, rt, g, temperature, low, teacher_low, by)
        for one, other in zip(got, want):
            assert abs(one.item() - other) <= 1e-11 * max(other, 1e-3)
        for one, other in zip(torch.autograd.grad(sum(got), ours), gradients):
            assert one.numel() == 0 or (one - torch.tensor(other)).abs().max() <= 1e-11


def test_two_losses_have_two_gradients():
    s, t, rs, rt, region = Case(heads(2, 5, 7, 5, 9)).inputs("cpu", torch.float64, grad=(0, 2))
    losses = response_loss(s, t, rs, rt, region)
    ds, dr = torch.autograd.grad(losses.classes, (s, rs), retain_graph=True)
    assert (ds != 0).any() and (dr == 0).all()
    es, er = torch.autograd.grad(3 * losses.numbers, (s, rs), retain_graph=True)
    assert (es == 0).all() and (er != 0).any()
    both = torch.autograd.grad(losses.classes + 3 * losses.numbers, (s, rs))
    assert torch.equal(both[0], ds) and torch.equal(both[1], er)


@each_device
def test_what_the_region_excludes_is_not_used(device):
    made = Case(heads(2, 3, 4, 8, 24)).inputs(device, torch.float32)
    region = made[4]
    region[0, :4] = 0  # whole tiles, too
    bad = [x.masked_fill((region == 0)[:, None], torch.nan).requires_grad_() for x in made[:4]]
    losses, want = response_loss(*bad, region), response_loss(*made)
    assert torch.equal(losses.classes, want.classes) and torch.equal(losses.numbers, want.numbers)
    for grad in torch.autograd.grad(losses.classes + losses.numbers, (bad[0], bad[2])):
        assert grad.isfinite().all() and (grad.movedim(1, -1)[region == 0] == 0).all() and (grad != 0).any()


@each_device
def test_a_nan_stays_in_its_loss(device):
    s, t, rs, rt, region = Case(heads(1, 3, 4, 5, 5, used=2.0)).inputs(device, torch.float32)
    rs[0, 2, 3, 4] = torch.nan
    losses = response_loss(s, t, rs, rt, region)
    assert losses.numbers.isnan() and losses.classes.isfinite()
    t[0, 1, 2, 3] = torch.nan
    assert response_loss(s, t, rs, rt, region).classes.isnan()


@each_device
def test_a_half_student_and_a_float_teacher(device):
    s, t, rs, rt, region = Case(heads(2, 3, 4, 5, 5)).inputs(device, torch.float32)
    s, rs = s.half().requires_grad_(), rs.half().requires_grad_()
    losses = response_loss(s, t, rs, rt.half(), region)
    wide = [x.detach().double().requires_grad_() for x in (s, rs)]
    want = response_loss_reference(wide[0], t, wide[1], rt.half(), region)
    assert losses.classes.dtype == torch.float32
    assert max(relative_error(a, b) for a, b in zip(losses, want)) < 1e-5
    scaled = torch.autograd.grad(2.0**12 * sum(losses), (s, rs))
    for got, grad in zip(scaled, torch.autograd.grad(2.0**12 * sum(want), wide)):
        assert relative_error(got.double(), grad) < 1e-2


def test_more_heads_than_one_table_takes():
    made = Case(heads(2, 40, 39, 3, 5)).inputs("cpu", torch.float64, grad=(0, 2))
    lists = [x.split(1, 1) for x in made[:4]]
    got, want = response_loss(*lists, made[4]), response_loss(*made)
    assert torch.equal(got.classes, want.classes) and torch.equal(got.numbers, want.numbers)
    grads = [torch.autograd.grad(sum(x), (made[0], made[2]), retain_graph=True) for x in (got, want)]
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_gradients_in_one_memory_or_apart():
    """A GPU fills the gradients of all heads in one go; the kernels of a CPU take both."""
    s, t, rs, rt, region = Case(heads(2, 3, 4, 5, 6)).inputs("cpu", torch.float32, grad=(0, 2))
    student, teacher, options = [s.detach(), rs.detach()], [t, rt], (True, 1e-4, 0.5, 1e-4)
    want = torch.autograd.grad(sum(response_loss(s, t, rs, rt, region)), (s, rs))
    assert len({x.untyped_storage().data_ptr() for x in want}) == 2
    _, factor = _forward(student, region, teacher, None, 1, *options, 1e-4)
    memory, parts = _parts(student, True)
    args = 1, torch.ones(2), student, teacher, 1, region, factor, *options, _table(student)
    _C.cpu.response_loss_backward(*args, memory.fill_(torch.nan), parts)
    assert all(torch.equal(a, b) for a, b in zip(parts, want))
    with pytest.raises(ValueError, match="gradients inside their memory"):
        _C.cpu.response_loss_backward(*args, memory[1:], parts)


def test_bool_regions_and_layouts():
    s, t, rs, rt, region = Case(heads(2, 3, 4, 5, 6)).inputs("cpu", torch.float32, grad=(0, 2))
    got, want = response_loss(s, t, rs, rt, region > 0), response_loss(s, t, rs, rt, (region > 0).float())
    assert torch.equal(got.classes, want.classes)
    last = s.detach().contiguous(memory_format=LAST).requires_grad_()
    (grad,) = torch.autograd.grad(response_loss(last, t, rs, rt, region).classes, last)
    assert grad.stride() == last.stride()
    crop = torch.nn.functional.pad(s.detach(), (1, 1))[..., 1:-1].requires_grad_()
    assert torch.equal(response_loss(crop, t, rs, rt, region).classes, response_loss(s, t, rs, rt, region).classes)


def test_checking_says_where():
    s, t, rs, rt, region = Case(heads(1, 3, 4, 5, 5, used=2.0)).inputs("cpu", torch.float32)
    rs[0, 2, 3, 4] = torch.nan
    with checking(True):
        with pytest.raises(ValueError, match=r"finite heads, got nan at \[0, 2, 3, 4\]"):
            response_loss(s, t, rs, rt, region)
        region[0, 3, 4] = 0
        response_loss(s, t, rs, rt, region)
