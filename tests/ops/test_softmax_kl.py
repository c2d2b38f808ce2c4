import pytest
import torch

from pydistill.ops import softmax_kl
from pydistill.ops._register import accumulator
from pydistill.ops.softmax_kl import softmax_kl_reference
from tests.conformance import Case, Conformance, NoCopies, assert_close, each_device, normal, relative_error
from tests.golden import golden


def weighted(fn):
    """``fn`` with the weight as its third tensor, so that the suite casts and moves it."""
    return lambda student, teacher, weight=None, **kwargs: fn(student, teacher, weight=weight, **kwargs)


def rows(*shape, dim=-1, keep=0.5):
    """Student, teacher and a weight that is 0 in most rows."""

    def make(rng):
        student, teacher = normal(shape, shape)(rng)
        of_row = student.select(dim, 0).shape
        weight = torch.rand(of_row, generator=rng, dtype=torch.float64)
        return [student, 2 * teacher, weight * (torch.rand(of_row, generator=rng) < keep)]

    return make


CASES = {
    "rows": Case(normal((6, 17), (6, 17))),
    "one-row": Case(normal((17,), (17,)), dict(temperature=2.0)),
    "two-bins": Case(normal((9, 2), (9, 2)), dict(temperature=2.0)),
    "lanes": Case(normal((300, 17), (300, 17), scale=2.0), dict(temperature=2.0, bins="mean")),
    "long": Case(normal((5, 130), (5, 130), scale=2.0), dict(reduction="sum")),
    "sides": Case(rows(2, 4, 17, 3, 5, dim=2), dict(dim=2, temperature=2.0, reduction="sum")),
    "map": Case(rows(2, 80, 3, 5, dim=1), dict(dim=1, temperature=2.0)),
    "first": Case(rows(20, 6, dim=0), dict(dim=0, temperature=2.0, reduction="mean")),
    "unweighted-factor": Case(
        normal((40, 17), (40, 17)), dict(temperature=2.0, bins="mean", reduction="mean", avg_factor=4)
    ),
    "factor": Case(rows(40, 17), dict(reduction="mean", avg_factor=4)),
    "factor-tensor": Case(rows(40, 17, keep=0.1), dict(reduction="mean", avg_factor=torch.tensor(4.0))),
    "no-factor": Case(rows(40, 17, keep=0.0), dict(reduction="mean", avg_factor=torch.tensor(0.0))),
}


class TestSoftmaxKl(Conformance):
    fn, reference = weighted(softmax_kl), weighted(softmax_kl_reference)
    cases, gradients = CASES, (0,)
    empty = Case(normal((0, 17), (0, 17)))
    wrong = {
        "shape": (
            lambda: softmax_kl(torch.rand(3, 4), torch.rand(3, 5)),
            ValueError,
            r"softmax_kl: expected teacher of the student's shape and device, got \[3, 5\]",
        ),
        "dtype": (
            lambda: softmax_kl(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)),
            TypeError,
            "softmax_kl: expected a floating point dtype, got int64",
        ),
        "dim": (
            lambda: softmax_kl(torch.rand(2, 3), torch.rand(2, 3), dim=2),
            ValueError,
            r"softmax_kl: expected dim within the dimensions of \[2, 3\], got 2",
        ),
        "bins": (lambda: softmax_kl(torch.rand(2, 0), torch.rand(2, 0)), ValueError, "at least one bin, got 0"),
        "temperature": (
            lambda: softmax_kl(torch.rand(2, 3), torch.rand(2, 3), temperature=0.0),
            ValueError,
            "softmax_kl: expected temperature > 0, got 0",
        ),
        "weight": (
            lambda: softmax_kl(torch.rand(2, 3), torch.rand(2, 3), weight=torch.rand(3)),
            ValueError,
            r"softmax_kl: expected weight that broadcasts to \[2\], got \[3\]",
        ),
        "reduction": (
            lambda: softmax_kl(torch.rand(2, 3), torch.rand(2, 3), reduction="batchmean"),
            ValueError,
            "softmax_kl: expected reduction \"none\", \"mean\" or \"sum\", got 'batchmean'",
        ),
        "bins-option": (
            lambda: softmax_kl(torch.rand(2, 3), torch.rand(2, 3), bins="max"),
            ValueError,
            "softmax_kl: expected bins \"sum\" or \"mean\", got 'max'",
        ),
        "sum-factor": (
            lambda: softmax_kl(torch.rand(2, 3), torch.rand(2, 3), reduction="sum", avg_factor=2.0),
            ValueError,
            "softmax_kl: expected reduction \"mean\" with avg_factor, got 'sum'",
        ),
    }  # fmt: skip


class TestSoftmaxKlOfBoth(Conformance):
    """The teacher's gradient too."""

    @staticmethod
    def fn(student, teacher, weight=None, **kwargs):
        return softmax_kl(student, teacher, weight=weight, detach_target=False, **kwargs)

    @staticmethod
    def reference(student, teacher, weight=None, **kwargs):
        return softmax_kl_reference(student, teacher, weight=weight, detach_target=False, **kwargs)

    cases = {k: CASES[k] for k in ("rows", "lanes", "long", "sides", "map", "factor-tensor")}
    gradients = (0, 1)
    empty = Case(normal((2, 0, 17), (2, 0, 17)))
    wrong = {
        "temperature": (
            lambda: softmax_kl(torch.rand(2, 3), torch.rand(2, 3), temperature=-1.5, detach_target=False),
            ValueError,
            "softmax_kl: expected temperature > 0, got -1.5",
        )
    }


def differentiate(fn, student, teacher, **kwargs):
    """Loss, d loss / d student and, where the teacher wants one, d loss / d teacher, of the sum over the rows."""
    inputs = [x for x in (student, teacher) if x.requires_grad]
    out = fn(student, teacher, **kwargs)
    return (out.detach(), *torch.autograd.grad(out.sum(), inputs))


def wide(*tensors):
    return [t.detach().cpu().double().requires_grad_(t.requires_grad) for t in tensors]


@each_device
@pytest.mark.parametrize("file", ["ld_kl", "ld_kd"])
@pytest.mark.parametrize("temperature", [1, 2, 10])
def test_released_rows(device, file, temperature):
    z = golden(file)
    student = torch.tensor(z["pred"], dtype=torch.float64, device=device, requires_grad=True)
    teacher = torch.tensor(z["soft"], dtype=torch.float64, device=device)
    loss, grad = differentiate(softmax_kl, student, teacher, temperature=float(temperature), bins="mean")
    assert relative_error(loss, torch.tensor(z[f"row_T{temperature}"])) < 1e-9
    want = torch.tensor(z[f"grad_rowsum_T{temperature}"])
    assert relative_error(grad, want) < (1e-9 if want.dtype == torch.float64 else 1e-5)


@each_device
@pytest.mark.parametrize("temperature", [1, 2, 10])
def test_released_reductions(device, temperature):
    z = golden("ld_kl")
    student, teacher, weight = (torch.tensor(z[k], device=device).double() for k in ("pred", "soft", "weight"))
    student.requires_grad_()
    options = dict(temperature=float(temperature), bins="mean", reduction="mean")
    assert relative_error(softmax_kl(student, teacher, **options), torch.tensor(z[f"mean_T{temperature}"])) < 1e-9
    factor = 4 + torch.finfo(torch.float32).eps  # the reference adds it
    loss, grad = differentiate(softmax_kl, student, teacher, weight=weight, avg_factor=factor, **options)
    assert relative_error(loss, torch.tensor(z[f"wavg4_T{temperature}"])) < 1e-9
    assert relative_error(grad, torch.tensor(z[f"grad_wavg4_T{temperature}"])) < 1e-9
    if temperature == 10:
        assert relative_error(0.25 * loss, torch.tensor(z["module_w025_T10_wavg4"])) < 1e-9
    single = softmax_kl(student.float(), teacher.float(), temperature=float(temperature), bins="mean")
    assert relative_error(single, torch.tensor(z[f"row_f32_T{temperature}"])) < 1e-5


@each_device
def test_released_head(device):
    z = golden("ld_kd")
    student, teacher, weight = (torch.tensor(z[k], device=device).double() for k in ("pred", "soft", "weight"))
    student.requires_grad_()
    options = dict(temperature=2.0, bins="mean", reduction="mean", avg_factor=24 + torch.finfo(torch.float32).eps)
    loss, grad = differentiate(softmax_kl, student, teacher, weight=weight, **options)
    assert relative_error(10 * loss, torch.tensor(z["head_w10_T2_avg24"])) < 1e-9
    assert relative_error(10 * grad, torch.tensor(z["grad_head_w10_T2_avg24"])) < 1e-9


@each_device
@pytest.mark.parametrize("temperature", [1, 2, 10])
def test_released_teacher_gradient(device, temperature):
    """Equal where the released code has one; it has NaN where the teacher's softmax underflows, we p (...) -> 0."""
    z = golden("ld_kl")
    student, teacher = (torch.tensor(z[k], device=device).double().requires_grad_() for k in ("pred", "soft"))
    options = dict(temperature=float(temperature), bins="mean", detach_target=False)
    grad = differentiate(softmax_kl, student, teacher, **options)[2].cpu()
    want = torch.tensor(z[f"gradteacher_nodetach_T{temperature}"])
    undefined = want.isnan()
    assert undefined.any(1).nonzero().flatten().tolist() == ([5] if temperature == 1 else [])
    assert grad.isfinite().all()
    assert relative_error(grad[~undefined], want[~undefined]) < 1e-9
    right = differentiate(softmax_kl_reference, *wide(student, teacher), **options)[2]
    assert relative_error(grad, right) < 1e-12


class Copies(NoCopies):
    """Also counts: the numbers of elements of what was copied on one device."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__.split(".")[0] in ("clone", "copy_", "contiguous", "_to_copy"):
            self.sizes.append(args[0].numel())
        return super().__torch_dispatch__(func, types, args, kwargs)


LAYOUTS = {
    "first": ((17, 40), 0, lambda x: x),
    "transposed": ((40, 17), 1, lambda x: x.t().contiguous().t()),
    "every-second": ((40, 17), 1, lambda x: torch.stack([x, x], 1).flatten(0, 1)[::2]),
    "map": ((2, 17, 6, 10), 1, lambda x: x),
    "channels-last": ((2, 17, 6, 10), 1, lambda x: x.to(memory_format=torch.channels_last)),
    "sides": ((2, 4, 17, 6, 10), 2, lambda x: x),
    "sides-last": (
        (2, 4, 17, 6, 10), 2, lambda x: x.flatten(1, 2).to(memory_format=torch.channels_last).unflatten(1, (4, 17))
    ),
    "cropped": ((2, 70, 6, 10), 1, lambda x: torch.nn.functional.pad(x, (1, 2, 1, 1))[:, :, 1:-1, 1:-2]),
}  # fmt: skip


@each_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_are_read_as_they_are(device, layout, dtype):
    """No copy of an input, the same numbers, and a gradient in the student's own layout."""
    shape, dim, arrange = LAYOUTS[layout]
    rng = torch.Generator().manual_seed(0)
    plain = [torch.randn(shape, generator=rng, dtype=torch.float64).to(device, dtype) for _ in range(2)]
    weight = torch.rand(plain[0].select(dim, 0).shape, generator=rng).to(device, accumulator(dtype))
    weight *= weight > 0.5
    student, teacher = arrange(plain[0]).requires_grad_(), arrange(plain[1])
    options = dict(temperature=2.0, dim=dim, weight=weight)
    with Copies() as copies:
        loss, grad = differentiate(softmax_kl, student, teacher, **options)
    assert copies.sizes == []
    assert grad.stride() == torch.empty_like(student).stride()
    want = differentiate(softmax_kl_reference, *wide(student, teacher), **{**options, "weight": weight.cpu()})
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype]
    assert relative_error(loss, want[0]) < min(tolerance, 1e-6) and relative_error(grad, want[1]) < tolerance


@each_device
def test_irregular_rows_are_copied(device):
    student = torch.randn(3, 5, 17, 4, 6, 2, device=device, dtype=torch.float64)[::2, ::2, :, ::3, ::2].requires_grad_()
    teacher = torch.randn(17, device=device, dtype=torch.float64).view(17, 1, 1, 1).expand(student.shape)
    loss, grad = differentiate(softmax_kl, student, teacher, dim=2)
    want = differentiate(softmax_kl_reference, *wide(student, teacher), dim=2)
    assert relative_error(loss, want[0]) < 1e-12 and relative_error(grad, want[1]) < 1e-12


SHAPES = {
    "lanes": ((600, 17), -1),
    "long": ((40, 200), -1),
    "map": ((3, 20, 13, 11), 1),
    "long-map": ((2, 100, 5, 9), 1),
}


@each_device
@pytest.mark.parametrize("keep", [0.02, 0.6])
@pytest.mark.parametrize("shape, dim", SHAPES.values(), ids=SHAPES)
def test_rows_of_weight_0_are_not_read(device, shape, dim, keep):
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    weight = torch.rand(student.select(dim, 0).shape, generator=rng, dtype=torch.float64) - 0.5
    weight *= torch.rand(weight.shape, generator=rng) < keep
    skipped = (weight == 0).unsqueeze(dim).expand(shape)
    options = dict(temperature=2.0, dim=dim, detach_target=False)
    want = differentiate(
        softmax_kl_reference, student.requires_grad_(), teacher.requires_grad_(), weight=weight, **options
    )
    poisoned = [x.detach().masked_fill(skipped, v) for x, v in ((student, float("nan")), (teacher, float("inf")))]
    student, teacher = (x.to(device).requires_grad_() for x in poisoned)
    got = differentiate(softmax_kl, student, teacher, weight=weight.to(device), **options)
    assert_close(got, want, 1e-12)
    assert all((g.cpu()[skipped] == 0).all() for g in got[1:]) and (got[0].cpu()[weight == 0] == 0).all()


@each_device
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("shape, dim", SHAPES.values(), ids=SHAPES)
def test_nan_stays_in_its_row(device, shape, dim, bad):
    student, teacher = (torch.randn(shape, device=device) for _ in range(2))
    clean = differentiate(softmax_kl, student.clone().requires_grad_(), teacher, dim=dim)
    at = [5 % n for n in shape]
    student[tuple(at)] = bad
    loss, grad = differentiate(softmax_kl, student.requires_grad_(), teacher, dim=dim)
    at.pop(dim)
    hit = torch.zeros_like(loss, dtype=torch.bool)
    hit[tuple(at)] = True
    assert loss[hit].isnan().all() and torch.equal(loss[~hit], clean[0][~hit])
    hit = hit.unsqueeze(dim).expand(shape)
    assert grad[hit].isnan().all() and torch.equal(grad[~hit], clean[1][~hit])


@each_device
@pytest.mark.parametrize("shape", [(16, 17), (3, 200)])
def test_impossible_bins(device, shape):
    """A bin of logit -inf in both has no part; in the student alone it makes the loss infinite."""
    student, teacher = (torch.randn(shape, dtype=torch.float64, device=device) for _ in range(2))
    student[:, 3], teacher[:, 3] = -float("inf"), -float("inf")
    loss, *grads = differentiate(softmax_kl, student.requires_grad_(), teacher.requires_grad_(), detach_target=False)
    kept = [i for i in range(shape[1]) if i != 3]
    rest = [x.detach()[:, kept].requires_grad_() for x in (student, teacher)]
    want, *wants = differentiate(softmax_kl_reference, *rest, detach_target=False)
    assert relative_error(loss, want) < 1e-12
    assert all(relative_error(g[:, kept], w) < 1e-12 and (g[:, 3] == 0).all() for g, w in zip(grads, wants))
    teacher = teacher.detach()
    teacher[:, 3] = 0
    assert (softmax_kl(student, teacher) == float("inf")).all()


@each_device
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_large_float16_logits(device, temperature):
    student, teacher = (torch.randn(64, 17, device=device, dtype=torch.float64) for _ in range(2))
    student[:32] = student[:32] * 30 + 59900
    teacher[16:48] = teacher[16:48] * 30 - 59900
    student[0, 0], teacher[1, 1] = -60000, 60000
    student, teacher = (x.clamp(-60000, 60000).half() for x in (student, teacher))
    student.requires_grad_()
    loss, grad = differentiate(softmax_kl, student, teacher, temperature=temperature)
    want = differentiate(softmax_kl_reference, *wide(student, teacher), temperature=temperature)
    assert student.abs().max() == 60000 and loss.dtype == torch.float32 and grad.dtype == torch.float16
    assert relative_error(loss, want[0]) < 1e-6 and relative_error(grad, want[1]) < 1e-3


@each_device
@pytest.mark.parametrize("student", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("teacher", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_teacher_of_another_dtype(device, student, teacher):
    rng = torch.Generator().manual_seed(0)
    s = torch.randn(40, 17, generator=rng).to(device, student).requires_grad_()
    t = torch.randn(40, 17, generator=rng).to(device, teacher).requires_grad_()
    got = differentiate(softmax_kl, s, t, detach_target=False)
    want = differentiate(softmax_kl_reference, *wide(s, t), detach_target=False)
    assert [g.dtype for g in got] == [accumulator(student), student, teacher]
    assert relative_error(got[0], want[0]) < (1e-12 if torch.float64 == student == teacher else 1e-6)
    for g, w in zip(got[1:], want[1:]):
        assert relative_error(g, w) < {torch.float64: 1e-6, torch.float32: 2e-6}.get(g.dtype, 8e-3)


@each_device
def test_a_float32_teacher_is_not_rounded_to_half(device):
    teacher = torch.linspace(-1.1, 1.2, 17, device=device).repeat(8, 1)
    student = teacher.half()
    want = softmax_kl_reference(student.double(), teacher.double())
    assert relative_error(softmax_kl(student, teacher), want) < 1e-2 and (want > 0).all()
    assert (softmax_kl(student, teacher.half()) == 0).all()


@each_device
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_small_divergences_keep_their_digits(device, temperature):
    """In float32, where the textbook sum of p (log p - log s) loses them all."""
    teacher = torch.randn(100, 17, device=device)
    student = teacher + 1e-3 * torch.randn_like(teacher)
    got = softmax_kl(student, teacher, temperature=temperature)
    assert relative_error(got, softmax_kl_reference(student.double(), teacher.double(), temperature=temperature)) < 1e-3
    assert (got > 0).all() and (softmax_kl(teacher, teacher) == 0).all()


@each_device
@pytest.mark.parametrize("n", [2, 3, 7, 16, 17, 63, 64, 65, 255, 1024, 4096])
@pytest.mark.parametrize("dim", [0, 1])
def test_every_number_of_bins(device, n, dim):
    rng = torch.Generator().manual_seed(n)
    student, teacher = (torch.randn(21, n, generator=rng, dtype=torch.float64).to(device) for _ in range(2))
    student, teacher = (x.movedim(1, dim).contiguous() for x in (student, teacher))
    student.requires_grad_()
    got = differentiate(softmax_kl, student, teacher, dim=dim, temperature=2.0)
    assert_close(got, differentiate(softmax_kl_reference, *wide(student, teacher), dim=dim, temperature=2.0), 1e-12)
    single = differentiate(
        softmax_kl, student.detach().float().requires_grad_(), teacher.float(), dim=dim, temperature=2.0
    )
    assert_close(single, got, 5e-6)


@each_device
@pytest.mark.parametrize("factor", [0.0, torch.tensor(0.0)], ids=["number", "tensor"])
def test_nothing_over_nothing_is_nothing(device, factor):
    factor = factor.to(device) if isinstance(factor, torch.Tensor) else factor
    student, teacher = (torch.randn(40, 17, device=device) for _ in range(2))
    student.requires_grad_()
    options = dict(reduction="mean", avg_factor=factor)
    loss, grad = differentiate(softmax_kl, student, teacher, weight=torch.zeros(40, device=device), **options)
    assert loss == 0 and (grad == 0).all()
    loss, grad = differentiate(softmax_kl, student, teacher, **options)
    assert loss == float("inf") and (grad == 0).all()


@each_device
def test_half_gradients_are_rounded_once_after_the_upstream_scale(device):
    """Stored before a loss scale of 2^16 arrives, half of these gradients would be 0."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(9000, 17, generator=rng).to(device).half() for _ in range(2))
    student.requires_grad_()
    options = dict(temperature=2.0, reduction="mean")
    (grad,) = torch.autograd.grad(65536 * softmax_kl(student, teacher, **options), student)
    exact = wide(student, teacher)
    (want,) = torch.autograd.grad(65536 * softmax_kl_reference(*exact, **options), exact[:1])
    assert relative_error(grad, want) < 1e-3


@each_device
def test_backward_twice(device):
    student, teacher = (torch.randn(40, 17, device=device) for _ in range(2))
    loss = softmax_kl(student.requires_grad_(), teacher, reduction="sum")
    (once,) = torch.autograd.grad(loss, student, retain_graph=True)
    (twice,) = torch.autograd.grad(loss, student, torch.tensor(2.0, device=device))
    assert torch.equal(2 * once, twice)


@each_device
@pytest.mark.parametrize("count", [4096, 4097, 70000])
def test_sums_of_many_rows(device, count):
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(count, 3, generator=rng).to(device) for _ in range(2))
    got = softmax_kl(student, teacher, reduction="sum")
    assert relative_error(got, softmax_kl_reference(student.double(), teacher.double(), reduction="sum")) < 1e-6


@each_device
@pytest.mark.parametrize("shape", [(700, 4), (700, 3), (2, 300, 4), (3, 50, 5, 4)])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_weight_may_be_broadcast(shape, share, device):
    """Over the last of the rows' dimensions, the first, or both: bit for bit what the same numbers written out give."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(*shape, 17, generator=rng).to(device) for _ in range(2))
    drawn = torch.rand(shape, generator=rng)
    drawn = torch.where(drawn < share, drawn, 0).to(device)
    drawn.view(-1)[0] = 1
    for weight in (drawn[..., :1], drawn[:1], drawn[:1, ..., :1]):
        both = [weight.expand(shape), weight.expand(shape).contiguous()]
        student.requires_grad_()
        rows = [softmax_kl(student, teacher, weight=w) for w in both]
        assert torch.equal(*rows)
        assert (rows[0] != 0).sum() == (both[1] != 0).sum() > 0
        assert torch.equal(*(torch.autograd.grad(r.square().sum(), student)[0] for r in rows))
