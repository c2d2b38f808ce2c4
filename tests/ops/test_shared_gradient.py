"""Losses that write one gradient together: the same numbers as one gradient each."""

import pytest
import torch

from pydistill.ops import distribution_focal_loss, integral, quality_focal_loss, softmax_kl
from pydistill.ops._shared_gradient import share_gradient
from tests.conformance import each_device


def side_losses(z, seed=0):
    """Three losses of the same rows, two of which leave most rows out."""
    rng = torch.Generator(device=z.device).manual_seed(seed)
    shape = z.shape[:-1]
    few = (torch.rand(shape, generator=rng, device=z.device) < 0.3).to(torch.promote_types(z.dtype, torch.float32))
    teacher = torch.randn(z.shape, generator=rng, device=z.device).to(z.dtype)
    target = 6 * torch.rand(shape, generator=rng, device=z.device)
    return [
        softmax_kl(z, teacher, temperature=2.0, weight=few, reduction="sum"),
        distribution_focal_loss(z, target.to(few.dtype), weight=1 - few, reduction="sum"),
        integral(z, mask=few > 0).square().sum(),
        softmax_kl(z, teacher, reduction="mean"),  # keeps its gradient on a CPU
    ]


def class_losses(z, seed=0):
    rng = torch.Generator(device=z.device).manual_seed(seed)
    labels = torch.randint(0, z.shape[-1] + 1, z.shape[:-1], generator=rng, device=z.device)
    scores = torch.rand(z.shape[:-1], generator=rng, device=z.device).to(torch.promote_types(z.dtype, torch.float32))
    return [
        quality_focal_loss(z, labels, scores, reduction="sum"),
        softmax_kl(z, z.detach().flip(-1), weight=scores.round(), reduction="sum"),
    ]


def rows(device, dtype=torch.float64, strided=False):
    x = torch.randn(2, 8, 5, 6, device=device, generator=torch.Generator(device=device).manual_seed(1)).to(dtype)
    x = x if strided else x.permute(0, 2, 3, 1).contiguous()
    return x.requires_grad_()


def as_rows(x):
    return x.permute(0, 2, 3, 1).flatten(1, 2) if x.shape[1] == 8 else x.flatten(1, 2)


@each_device
@pytest.mark.parametrize("losses", [side_losses, class_losses])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_equals_separate_gradients(device, losses, strided, dtype):
    x = rows(device, dtype, strided)
    (want,) = torch.autograd.grad(sum(losses(as_rows(x))), x)
    for order in (slice(None), slice(None, None, -1)):
        z = share_gradient(as_rows(x))
        (got,) = torch.autograd.grad(sum(losses(z)[order]), x)
        assert got.shape == x.shape and got.dtype == dtype
        assert (got - want).norm() < {torch.float16: 1e-3}.get(dtype, 10 * torch.finfo(dtype).eps) * want.norm()


@each_device
def test_the_losses_write_into_one_tensor(device):
    """Autograd has nothing to add up."""
    x = rows(device)
    z = share_gradient(as_rows(x))
    seen = []
    z.register_hook(seen.append)
    sum(side_losses(z)).backward()
    assert seen in ([], [None])
    (want,) = torch.autograd.grad(sum(side_losses(as_rows(x))), x)
    assert (x.grad - want).norm() < 1e-14 * want.norm()


@each_device
def test_with_other_readers(device):
    """What is computed from the tensor in other ways comes on top, before and after."""
    x = rows(device)
    plain = as_rows(x)
    (want,) = torch.autograd.grad(sum(side_losses(plain)) + plain.pow(3).sum() + plain[:, 1:].sum(), x)
    z = share_gradient(as_rows(x))
    (got,) = torch.autograd.grad(z.pow(3).sum() + sum(side_losses(z)) + z[:, 1:].sum(), x)
    assert (got - want).norm() < 1e-14 * want.norm()


@each_device
def test_each_backward_has_its_own_sum(device):
    x = rows(device)
    separate = [torch.autograd.grad(loss, x)[0] for loss in side_losses(as_rows(x))]
    losses = side_losses(share_gradient(as_rows(x)))
    for loss, want in [*zip(losses, separate), *zip(losses, separate)]:
        (got,) = torch.autograd.grad(loss, x, retain_graph=True)
        assert (got - want).norm() < 1e-14 * want.norm()


@each_device
def test_nothing_is_left_of_a_backward_that_failed(device):
    x = rows(device)

    def stop(grad):
        raise RuntimeError("stop")

    losses = side_losses(share_gradient(as_rows(x)))
    fail = losses[1].clone()
    fail.register_hook(stop)
    with pytest.raises(RuntimeError, match="stop"):  # the others have run by then: backward is in the opposite order
        torch.autograd.grad(fail + sum(losses[2:]), x, retain_graph=True)
    (got,) = torch.autograd.grad(losses[0], x)
    (want,) = torch.autograd.grad(side_losses(as_rows(x))[0], x)
    assert (got - want).norm() < 1e-14 * want.norm()


@each_device
def test_batched_gradients(device):
    x = rows(device)
    factors = torch.tensor([1.0, -2.0], dtype=torch.float64, device=device)
    (want,) = torch.autograd.grad(sum(side_losses(as_rows(x))), x)
    total = sum(side_losses(share_gradient(as_rows(x))))
    (got,) = torch.autograd.grad(total, x, grad_outputs=factors, is_grads_batched=True)
    expected = factors.view(2, 1, 1, 1, 1) * want
    assert (got - expected).norm() < 1e-14 * expected.norm()


@each_device
def test_without_a_gradient_it_is_the_tensor_itself(device):
    x = rows(device).detach()
    assert share_gradient(x) is x
    with torch.no_grad():
        y = x.clone().requires_grad_()
        assert share_gradient(y) is y


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_losses_on_streams_of_their_own():
    """The one that adds second waits for the first, which a long computation holds up."""
    x = rows("cuda", torch.float32)
    (want,) = torch.autograd.grad(sum(side_losses(as_rows(x))), x)
    z, losses = share_gradient(as_rows(x)), []
    for seed in range(4):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10_000_000)
            losses.append(side_losses(z)[seed])
        torch.cuda.current_stream().wait_stream(stream)
    (got,) = torch.autograd.grad(sum(losses), x)
    assert (got - want).norm() < 1e-6 * want.norm()
