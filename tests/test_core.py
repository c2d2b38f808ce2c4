"""The binding, the launches and the scalar types: what every op stands on."""

import os
import subprocess
import sys
import textwrap
from importlib import import_module

import numpy as np
import pytest
import torch

import pydistill
from pydistill import _C
from pydistill.ops import attention_map, channel_energy, quality_focal_loss, softmax_kl
from pydistill.ops._check import boxes, counts, finite, labels
from pydistill.ops.softmax_kl import softmax_kl_reference
from tests.conformance import NoCopies, relative_error


def energy(features, out=None, resource=1):
    n, _, h, w = features.shape
    out = torch.empty(n, h, w) if out is None else out
    _C.cpu.channel_energy(resource, features, 2.0, out, None)
    return out


def test_takes_what_speaks_dlpack():
    """A tensor, a parameter, a tensor that requires a gradient, a NumPy array."""
    x = torch.randn(1, 2, 3, 4)
    want = x.square().sum(1)
    for same in (x, torch.nn.Parameter(x), x.clone().requires_grad_(), x.numpy()):
        assert relative_error(energy(same), want) < 1e-6


def test_refuses_subclasses_whose_data_may_mean_something_else():
    class Tagged(torch.Tensor):
        pass

    with pytest.raises(TypeError, match=r"expected a plain torch\.Tensor, got .*Tagged"):
        energy(torch.randn(1, 2, 3, 4).as_subclass(Tagged))


@pytest.mark.parametrize("wrong", [torch.empty(1, 3, 4, device="meta"), "text", 3.0])
def test_refuses_what_has_no_data(wrong):
    with pytest.raises((TypeError, ValueError, RuntimeError, BufferError)):
        energy(torch.randn(1, 2, 3, 4), wrong)


def test_refuses_null_data():
    class Null:
        def __dlpack__(self, **_):
            x = torch.empty(1, 3, 4)
            x.untyped_storage().resize_(0)
            return x.__dlpack__()

    with pytest.raises(ValueError, match="expected a tensor with data, got a null pointer"):
        energy(torch.randn(1, 2, 3, 4), Null())


@pytest.mark.parametrize(
    "out,error,message",
    [
        (torch.empty(1, 3, 4, dtype=torch.float16), TypeError, "energy of dtype float32, got float16"),
        (torch.empty(1, 3, 4, dtype=torch.float64), TypeError, "energy of dtype float32, got float64"),
        (torch.empty(1, 3, 5), ValueError, r"energy of shape \[1, 3, 4\], got \[1, 3, 5\]"),
        (torch.empty(1, 4, 3).transpose(1, 2), ValueError, "energy contiguous, got other strides"),
        (None, ValueError, "energy of shape"),
    ],
)
def test_refuses_a_buffer_the_kernel_would_write_past(out, error, message):
    before = None if out is None else out.clone()
    with pytest.raises(error, match=message):
        _C.cpu.channel_energy(1, torch.randn(1, 2, 3, 4), 2.0, out, None)
    assert out is None or torch.equal(out.nan_to_num(), before.nan_to_num())


def test_an_empty_tensor_is_contiguous_whatever_its_strides():
    out = torch.empty(0, 3, 4).as_strided((0, 3, 4), (1, 7, 5))
    assert energy(torch.randn(0, 2, 3, 4), out).shape == (0, 3, 4)


def test_without_the_exchange_table_python_passes_the_current_stream(monkeypatch):
    """torch before 2.10; with the table the kernels ask for the stream themselves."""

    class OnCuda:
        is_cuda, device = True, "cuda:1"

    class Stream:
        cuda_stream = 1234

    kernels = object()
    monkeypatch.setitem(vars(_C), "cuda", kernels)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream if device == "cuda:1" else None)
    for table, resource in ((False, 1234), (True, _C.ASK_TORCH)):
        monkeypatch.setattr(_C, "exchange_table", table)
        assert _C.on(OnCuda()) == (kernels, resource)
    assert _C.on(torch.empty(0)) == (_C.cpu, torch.get_num_threads())


def test_a_negated_view_is_not_taken_for_the_memory_behind_it():
    z = torch.randn(4, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    view, teacher = z.conj().imag, z.real
    assert view.is_neg()
    for student, other in ((view, teacher), (teacher, view)):
        got = softmax_kl(student, other)
        assert relative_error(got, softmax_kl(student.resolve_neg(), other.resolve_neg())) < 1e-12
        assert relative_error(got, softmax_kl_reference(student, other)) < 1e-12


def test_vmap_says_what_is_missing():
    x = torch.randn(3, 1, 2, 4, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(channel_energy)(x)


def test_a_torch_function_override_is_asked_before_its_data_are_read():
    seen = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    features = torch.randn(1, 2, 4, 4)
    found = attention_map(features.as_subclass(Watched))
    assert any("pydistill.attention_map" in s for s in seen)
    assert torch.equal(found.as_subclass(torch.Tensor), attention_map(features))


def run(code: str, **env: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_forked_child_runs_with_one_thread():
    """A region of two threads in the parent, then the same op in a forked child: it must end, with the same numbers."""
    out = run("""
        import os, torch
        from pydistill.ops import channel_energy
        torch.set_num_threads(2)
        x = torch.randn(8, 64, 40, 50)
        want = channel_energy(x)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(channel_energy(x), want) else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert out == "0"


def loads(level: str) -> bool:
    """Whether this machine runs the module of that level; a refusal says why and is no crash."""
    try:
        import_module(f"pydistill._cpu_{level}")
    except ModuleNotFoundError:
        return False
    except ImportError as error:
        if "this CPU does not run" in str(error):
            return False
        raise
    return True


@pytest.mark.parametrize("level", ["v2", "v3", "v4", "any"])
def test_isa_levels_agree_and_can_be_forced(level):
    """Every level that this build has and this machine runs gives the same map, to rounding."""
    code = """
        import torch
        from pydistill import _C
        from pydistill.ops import attention_map
        x = torch.randn(2, 5, 9, 8, generator=torch.Generator().manual_seed(0))
        print(_C.cpu.__name__, *attention_map(x, (12, 12)).flatten()[:20].tolist())
    """
    if not loads(level):
        pytest.skip(f"{level} is not built or does not run here")
    name, *got = run(code, PYDISTILL_ISA=level).split()
    assert name == f"pydistill._cpu_{level}"
    want = run(code).split()[1:]
    np.testing.assert_allclose(np.array(got, float), np.array(want, float), rtol=1e-5)


def test_an_unknown_isa_level_is_named():
    with pytest.raises(AssertionError, match="no CPU kernels"):
        run("from pydistill import _C", PYDISTILL_ISA="v9")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_convert_exactly(dtype):
    """All 65536 values to float32, and float32 to them as torch rounds: ties, denormals, overflow, NaN, signs."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)
    bits = bits[bits.isfinite() & (bits.float().abs() < 1e18)]
    x = bits.reshape(1, 1, 1, -1)
    assert relative_error(energy(x)[0, 0], bits.double().square()) < 1e-6
    # dfeatures = 2 x dE, rounded once; x = 1/2 makes it dE itself
    seed = torch.cat([bits.float() * s for s in (1.0, 1 + 2**-9, 1 + 2**-11, 1 + 2**-12, 1 - 2**-12, 1 + 3 * 2**-12)])
    seed = torch.cat(
        [seed, torch.tensor([65519.0, 65520.0, 1e30, float("inf"), 2.0**-25, 2.0**-24, 6.1e-5, float("nan")])]
    )
    half = torch.full((1, 1, 1, seed.numel()), 0.5, dtype=dtype)
    got = torch.empty_like(half)
    _C.cpu.channel_energy_backward(1, seed.view(1, 1, -1), half, None, 2.0, got)
    assert torch.equal(got.flatten().nan_to_num(7.0), seed.to(dtype).nan_to_num(7.0))


@pytest.mark.parametrize("op", ["softmax_kl", "quality_focal_loss"])
def test_only_the_last_backward_overwrites_what_forward_kept(op):
    """Twice through one graph, with a batch of upstream gradients, and where two losses share the logits."""
    x = torch.randn(6, 17, generator=torch.Generator().manual_seed(0)).requires_grad_()
    other = torch.linspace(0, 1, 102).view(6, 17)
    labels, scores = torch.arange(6), torch.linspace(0, 1, 6)

    def loss():
        return softmax_kl(x, other) if op == "softmax_kl" else quality_focal_loss(x, labels, scores)

    rows, upstream = loss(), torch.linspace(1, 2, 6)
    first = torch.autograd.grad(rows, x, upstream, retain_graph=True)[0]
    kept = first.clone()
    jacobian = torch.autograd.grad(rows, x, torch.eye(6), is_grads_batched=True, retain_graph=True)[0]
    last = torch.autograd.grad(rows, x, upstream)[0]
    assert torch.equal(first, kept) and torch.equal(last, kept)
    assert relative_error((jacobian * upstream.view(6, 1, 1)).sum(0), kept) < 1e-6
    batched = torch.autograd.grad(loss(), x, torch.eye(6), is_grads_batched=True)[0]
    assert torch.equal(batched, jacobian)
    (loss() @ upstream + 2 * (loss() @ upstream) + x.sum()).backward()
    assert relative_error(x.grad, 3 * kept + 1) < 1e-6


def test_the_copy_refusing_mode_refuses():
    x = torch.randn(4)
    for synchronising in (lambda: x[0].item(), lambda: x.nonzero(), lambda: x[x > 0], lambda: torch.equal(x, x)):
        with NoCopies(), pytest.raises(AssertionError, match="synchronises"):
            synchronising()
    with torch._subclasses.fake_tensor.FakeTensorMode(), NoCopies():
        fake = torch.empty(4, device="cuda")
        with pytest.raises(AssertionError, match="copies between"):
            fake.cpu()


def test_checking_raises_and_says_where():
    bad = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [3.0, 0.0, 1.0, 1.0]]])
    for quiet in (
        lambda: counts("op", torch.tensor([5]), 4),
        lambda: labels("op", torch.tensor([[1, 9]]), 4),
        lambda: boxes("op", bad),
        lambda: finite("op", "logits", torch.tensor([float("nan")])),
    ):
        quiet()
        with pydistill.checking(True), pytest.raises(ValueError, match="op: expected .*, got .* at "):
            quiet()
    with pydistill.checking(True):
        labels("op", torch.tensor([[1, 9]]), 4, counts=torch.tensor([1]))
        boxes("op", bad, counts=torch.tensor([1]))
        with pydistill.checking(False):
            boxes("op", bad)


def test_gradients_of_several_megabytes():
    """They are asked for in huge pages: whole ones, and one that begins and ends within a page."""
    rows = torch.randn(2**16 + 3, 33, generator=torch.Generator().manual_seed(0))
    teacher = rows.roll(1, 1)
    for part in (slice(None), slice(1, -1)):
        x = rows[part].clone().requires_grad_()
        (got,) = torch.autograd.grad(softmax_kl(x, teacher[part], reduction="sum"), x)
        want = rows[part].softmax(1) - teacher[part].softmax(1)
        assert got.nbytes > 2**22 and (got - want).norm() < 1e-6 * want.norm()
