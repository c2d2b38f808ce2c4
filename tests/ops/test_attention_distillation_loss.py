import numpy as np
import pytest
import torch

from pydistill.losses import SADLoss
from pydistill.ops import attention_distillation_loss, energy_distillation_loss
from pydistill.ops.attention_distillation_loss import attention_distillation_loss_reference
from tests.conformance import Case, Conformance, each_device, normal, relative_error
from tests.golden import golden

SAME = normal((2, 3, 6, 7), (2, 5, 6, 7), scale=0.6)
UPSAMPLED = normal((2, 3, 8, 10), (2, 5, 4, 5), scale=0.6)
CASES = {
    "same": Case(SAME, dict(detach_target=False)),
    "upsampled": Case(UPSAMPLED, dict(detach_target=False)),
    "both-resampled": Case(UPSAMPLED, dict(detach_target=False, size=(5, 9), align_corners=True, reduction="sum")),
    "maximum": Case(SAME, dict(detach_target=False, mapping="max_power", power=3.0, reduction="mean")),
    "standardize": Case(UPSAMPLED, dict(detach_target=False, normalize="standardize")),
    "mean": Case(UPSAMPLED, dict(detach_target=False, normalize="mean", temperature=0.5)),
    "many-bands": Case(normal((1, 2, 40, 60), (1, 3, 20, 30), scale=0.6), dict(detach_target=False)),
}


class TestAttentionDistillationLoss(Conformance):
    fn, reference = attention_distillation_loss, attention_distillation_loss_reference
    cases, gradients = CASES, (0, 1)
    empty = Case(normal((0, 3, 4, 5), (0, 2, 4, 5)), dict(detach_target=False))
    wrong = {
        "batch": (
            lambda: attention_distillation_loss(torch.rand(2, 3, 4, 5), torch.rand(1, 3, 4, 5)),
            ValueError,
            r"expected deep of shape \(2, C, h, w\) or \(2, H, W\), got \[1, 3, 4, 5\]",
        ),
        "reduction": (
            lambda: attention_distillation_loss(torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5), reduction="none"),
            ValueError,
            "reduction in .*, got 'none'",
        ),
    }


def ready_map(rng):
    return [*normal((2, 3, 6, 7), scale=0.6)(rng), torch.rand(2, 6, 7, generator=rng, dtype=torch.float64) / 20]


class TestReadyMap(Conformance):
    """The teacher's map may come from elsewhere."""

    fn, reference = attention_distillation_loss, attention_distillation_loss_reference
    cases = {"map": Case(ready_map, dict(detach_target=False))}
    gradients = (0, 1)
    empty = Case(normal((0, 3, 4, 5), (0, 4, 5)), dict(detach_target=False))
    wrong = {
        "size": (
            lambda: attention_distillation_loss(torch.rand(2, 3, 4, 5), torch.rand(2, 4, 4)),
            ValueError,
            r"expected a deep map of \[4, 5\], got \[4, 4\]",
        ),
        "dtype": (
            lambda: attention_distillation_loss(torch.rand(2, 3, 4, 5), torch.ones(2, 4, 5, dtype=torch.int32)),
            TypeError,
            "deep of a floating point dtype, got torch.int32",
        ),
    }


def energies(*shapes):
    return lambda rng: [e.square() for e in normal(*shapes)(rng)]


class TestEnergies(Conformance):
    """The loss of energies that are at hand."""

    fn = energy_distillation_loss

    @staticmethod
    def reference(shallow, deep, **kwargs):
        features = [e.clamp_min(0).sqrt()[:, None] for e in (shallow, deep)]
        return attention_distillation_loss_reference(*features, **kwargs)

    cases = {
        "upsampled": Case(energies((2, 8, 10), (2, 4, 5)), dict(detach_target=False)),
        "mean": Case(energies((2, 6, 6), (2, 6, 6)), dict(detach_target=False, normalize="mean")),
    }
    gradients = (0, 1)
    empty = Case(normal((0, 4, 5), (0, 4, 5)), dict(detach_target=False))
    wrong = {
        "rank": (
            lambda: energy_distillation_loss(torch.rand(2, 4), torch.rand(2, 4, 5)),
            ValueError,
            r"expected shallow energy of shape \(N, h, w\), got \[2, 4\]",
        ),
        "batch": (
            lambda: energy_distillation_loss(torch.rand(2, 4, 5), torch.rand(1, 4, 5)),
            ValueError,
            "got 2 and 1",
        ),
    }


@each_device
@pytest.mark.parametrize("size", [(0, 0), (0, 7), (7, 0)])
def test_maps_without_cells_are_no_loss(device, size):
    shallow, deep = (torch.rand(2, 3, h, 5, device=device, requires_grad=True) for h in (4, 6))
    attention_distillation_loss(shallow, deep, size=size, normalize="mean", detach_target=False).backward()
    assert (shallow.grad == 0).all() and (deep.grad == 0).all()
    energy = torch.rand(2, 4, 5, device=device, requires_grad=True)
    loss = energy_distillation_loss(energy, torch.rand(2, 3, 3, device=device), size=size)
    loss.backward()
    assert loss == 0 and (energy.grad == 0).all()


def test_wrong_energies():
    energy = torch.rand(2, 4, 5)
    with pytest.raises(
        ValueError, match=r"energy_distillation_loss: expected a size that \[4, 5\] can give, got \[-1, 3\]"
    ):
        energy_distillation_loss(energy, energy, size=(-1, 3))
    with pytest.raises(TypeError, match="expected deep energy of a floating point dtype, got torch.complex64"):
        energy_distillation_loss(energy, energy.to(torch.complex64))
    with pytest.raises(ValueError, match=r"expected shallow energy of shape \(N, h, w\), got \[4, 5\]"):
        energy_distillation_loss(energy[0], energy)


@each_device
def test_detached_target_gets_no_gradient(device):
    x, y = (torch.randn(2, 3, 4, 5, device=device, requires_grad=True) for _ in range(2))
    loss = attention_distillation_loss(x, y)
    assert torch.autograd.grad(loss, (x, y), allow_unused=True)[1] is None


@each_device
def test_golden_port(device):
    """InhwanBae/ENet-SAD_Pytorch at_gen: mean over N H W, both stages learn; and the other reductions of that pair."""
    g = {k: torch.from_numpy(np.asarray(v)).to(device) for k, v in golden("sad_atgen_diffsize").items()}
    x1, x2 = g["x1"].double().requires_grad_(), g["x2"].double().requires_grad_()
    loss = attention_distillation_loss(x1, x2, reduction="mean", detach_target=False)
    assert relative_error(loss, g["loss_f64"]) < 1e-9
    for got, want in zip(torch.autograd.grad(loss, (x1, x2)), (g["gx1_f64"], g["gx2_f64"])):
        assert relative_error(got, want) < 1e-9
    deep = g["x2"].clone().requires_grad_()
    single = attention_distillation_loss(g["x1"], deep, reduction="mean", detach_target=False)
    assert relative_error(single, g["loss_f32"]) < 1e-5
    assert relative_error(torch.autograd.grad(single, deep)[0], g["gx2_f32"]) < 1e-5
    port = SADLoss(reference="port")([x1, x2])
    assert list(port) == ["sad_0_1"] and relative_error(port["sad_0_1"], g["loss_f64"]) < 1e-9
    derived = golden("sad_derived")
    for reduction, name in (("mean", "red_mean"), ("batchmean", "red_sumHW_meanN"), ("sum", "red_sum")):
        want = torch.from_numpy(np.asarray(derived[name])).to(device)
        assert relative_error(attention_distillation_loss(x1, x2, reduction=reduction), want) < 1e-9


@each_device
def test_half_precision_gradient_survives_small_losses(device):
    """Near-uniform maps give gradients of 1e-15: below float16, so the loss scale must be applied before rounding."""
    x = (0.02 * torch.randn(2, 8, 12, 20, device=device)).half()
    y = (0.02 * torch.randn(2, 8, 12, 20, device=device)).half()
    scale = 2.0**24
    a = x.clone().requires_grad_()
    got = torch.autograd.grad(attention_distillation_loss(a, y) * scale, a)[0]
    b = x.double().requires_grad_()
    want = torch.autograd.grad(attention_distillation_loss_reference(b, y.double()) * scale, b)[0]
    assert got.dtype == torch.float16 and relative_error(got, want) < 5e-3
