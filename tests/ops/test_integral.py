import numpy as np
import pytest
import torch

from pydistill.ops import integral
from pydistill.ops.integral import integral_reference
from tests.conformance import Case, Conformance, assert_close, each_device, normal, relative_error
from tests.golden import golden
from tests.ops.cases import CASES


def with_options(fn):
    """``fn`` with bins and mask as its second and third tensor, so that the suite casts and moves them."""
    return lambda logits, bins=None, mask=None: fn(logits, bins, mask=mask)


def sides(*shape, bins=True, mask=None, keep=0.4):
    """Logits, values of the bins and a mask of shape ``mask``."""

    def make(rng):
        values = torch.rand(shape[-1], generator=rng, dtype=torch.float64) * 8 - 2 if bins else None
        kept = None if mask is None else torch.rand(mask, generator=rng) < keep
        return [2 * torch.randn(shape, generator=rng, dtype=torch.float64), values, kept]

    return make


class TestIntegral(Conformance):
    fn, reference = with_options(integral), with_options(integral_reference)
    cases = {
        "one-row": Case(normal((17,))),
        "lanes": Case(normal((2, 40, 4, 17), scale=2.0)),
        "bins": Case(sides(2, 40, 4, 17)),
        "mask": Case(sides(2, 50, 4, 17, bins=False, mask=(2, 50, 1))),
        "mask-per-side": Case(sides(3, 5, 4, 8, mask=(5, 4))),
        "nothing": Case(sides(3, 5, 4, 8, mask=(3, 5, 4), keep=0.0)),
        "long": Case(sides(6, 300, mask=(6,))),
        "one-bin": Case(sides(9, 1)),
    }
    gradients = (0,)
    empty = Case(normal((0, 4, 17)))
    wrong = {
        "dtype": (lambda: integral(torch.ones(2, 3).int()), TypeError, "floating point dtype, got torch.int32"),
        "bins-dtype": (lambda: integral(torch.rand(2, 3), torch.arange(3)), TypeError, "bins of a .* torch.int64"),
        "mask-dtype": (
            lambda: integral(torch.rand(2, 3), mask=torch.ones(2)),
            TypeError,
            "integral: expected mask of dtype bool, got torch.float32",
        ),
        "rank": (lambda: integral(torch.rand(())), ValueError, r"integral: expected logits of shape .*, got \[\]"),
        "no-bins": (lambda: integral(torch.rand(2, 0)), ValueError, "integral: expected at least one bin, got 0"),
        "bins": (lambda: integral(torch.rand(2, 3), torch.rand(4)), ValueError, r"bins of shape \[3\], got \[4\]"),
        "mask": (
            lambda: integral(torch.rand(2, 3), mask=torch.ones(3).bool()),
            ValueError,
            r"integral: expected mask that broadcasts to \[2\], got \[3\]",
        ),
    }  # fmt: skip


def test_a_thousand_cases():
    """Against the equation and its derivative in NumPy: float64 exactly, float32 row by row."""
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        shape = tuple(rng.integers(1, 6, rng.integers(0, 4)))
        n = int(rng.integers(1, 25)) if rng.random() < 0.9 else int(rng.integers(60, 90))
        z = rng.normal(size=(*shape, n)) * 10 ** rng.uniform(-2, 2)
        y = rng.normal(size=n) if rng.random() < 0.5 else None
        mask = rng.random(shape) < rng.random() if rng.random() < 0.5 else None
        grad = rng.normal(size=shape)
        values = np.arange(n) if y is None else y
        p = np.exp(z - z.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        keep = np.ones(shape, bool) if mask is None else mask
        d = np.where(keep, (p * values).sum(-1), 0)
        dz = (grad * keep)[..., None] * p * (values - d[..., None])
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
            logits = torch.tensor(z, dtype=dtype, requires_grad=True)
            bins = None if y is None else torch.tensor(y, dtype=dtype)
            out = integral(logits, bins, mask=None if mask is None else torch.from_numpy(np.asarray(mask)))
            (got,) = torch.autograd.grad(out, logits, torch.tensor(grad, dtype=dtype))
            size = np.abs(values).max() + 1e-300
            assert np.abs(out.detach().double().numpy() - d).max() <= tolerance * size
            assert np.abs(got.double().numpy() - dz).max() <= tolerance * size * np.abs(grad).max()


@each_device
@pytest.mark.parametrize("reg_max", [16, 7])
def test_released_values_and_gradients(device, reg_max):
    """Of mmdetection's Integral; uniform and one-hot rows are among them."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("ld_integral").items()}
    logits = z[f"logits_rm{reg_max}"].double().requires_grad_()
    out = integral(logits.view(24, 4, reg_max + 1))
    assert relative_error(out.detach(), z[f"out_rm{reg_max}"]) < 1e-9
    (grad,) = torch.autograd.grad(out, logits, z[f"cot_rm{reg_max}"])
    assert relative_error(grad, z[f"grad_rm{reg_max}"]) < 1e-9


@each_device
@pytest.mark.parametrize("n", [17, 130])
def test_masked_rows_are_not_read(device, n):
    rng = torch.Generator().manual_seed(0)
    logits, mask = torch.randn(2, 60, 4, n, generator=rng), torch.rand(2, 60, 1, generator=rng) < 0.3
    logits, mask = logits.to(device), mask.to(device)
    clean = logits.clone().requires_grad_()
    want = integral(clean, mask=mask)
    poisoned = logits.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    got = integral(poisoned, mask=mask)
    assert torch.equal(got, want) and (got[~mask.expand(got.shape)] == 0).all()
    grads = [torch.autograd.grad(out.square().sum(), x)[0] for out, x in ((got, poisoned), (want, clean))]
    assert torch.equal(*grads) and (grads[0][~mask.expand(got.shape)] == 0).all()


@each_device
@pytest.mark.parametrize("n", [17, 130])
def test_nan_stays_in_its_row_and_inf_rules_a_bin_out(device, n):
    logits = torch.randn(40, n, device=device)
    want = integral(logits)
    logits[3, 1], logits[5, 2] = torch.nan, torch.inf
    logits[7, 1:], logits[8] = -torch.inf, -torch.inf
    logits.requires_grad_()
    got = integral(logits)
    (grad,) = torch.autograd.grad(got.sum(), logits)
    bad = torch.tensor([3, 5, 8], device=device)
    assert got[bad].isnan().all() and grad[bad].isnan().all() and got[7] == 0 and (grad[7] == 0).all()
    others = [i for i in range(40) if i not in (3, 5, 7, 8)]
    assert torch.equal(got[others], want[others]) and grad[others].isfinite().all()


@each_device
def test_a_map_is_read_as_it_is(device):
    """(N, 4 n, h, w), as a head leaves it; the gradient has its layout."""
    maps = torch.randn(2, 4 * 17, 5, 7, device=device, dtype=torch.float64, requires_grad=True)
    logits = maps.unflatten(1, (4, 17)).permute(0, 3, 4, 1, 2)
    out = integral(logits)
    (grad,) = torch.autograd.grad(out.square().sum(), maps)
    assert grad.stride() == maps.stride()
    want = integral_reference(logits)
    assert_close((out, grad), (want, torch.autograd.grad(want.square().sum(), maps)[0]), 1e-12)


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_float32(device, dtype):
    """Rounded once, after the upstream scale; logits up to 60000."""
    logits = (torch.randn(300, 17, device=device) * 4).to(dtype)
    logits[0, :2] = 60000
    logits.requires_grad_()
    out = integral(logits)
    (grad,) = torch.autograd.grad(65536 * out.sum() / 300, logits)
    wide = logits.detach().double().requires_grad_()
    want = integral_reference(wide)
    (exact,) = torch.autograd.grad(65536 * want.sum() / 300, wide)
    assert out.dtype == torch.float32 and relative_error(out.detach(), want.detach()) < 1e-6
    assert grad.dtype == dtype and relative_error(grad, exact) < (1e-3 if dtype == torch.float16 else 8e-3)
