"""mmdetection's loss modules and ours, built from one config: forward and gradient in float64."""

import pytest
import torch

from tests.conformance import relative_error
from tests.hosts.mmdet_here import MODELS

ROWS, BINS = 48, 17


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, scale=3.0, seed=0):
    return scale * torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def kd_inputs():
    return normal(ROWS, BINS, seed=1), normal(ROWS, BINS, seed=2)


def kd_maps():
    return normal(2, BINS, 3, 4, seed=1), normal(2, BINS, 3, 4, seed=2)


LOSSES = {
    "kd": (dict(type="KnowledgeDistillationKLDivLoss", loss_weight=0.25, T=10), kd_inputs),
    "kd-2": (dict(type="KnowledgeDistillationKLDivLoss", loss_weight=10, T=2), kd_inputs),
    "kd-maps": (dict(type="KnowledgeDistillationKLDivLoss"), kd_maps),
}
REDUCTIONS = {
    "mean": {},
    "average": dict(avg_factor=4.0),
    "zero": dict(avg_factor=0.0),
    "tensor": dict(avg_factor=torch.tensor(13.0, dtype=torch.float64)),
    "sum": dict(reduction_override="sum"),
    "none": dict(reduction_override="none", avg_factor=4.0),
}


def value_and_gradient(module, prediction, *target, **options):
    prediction = prediction.clone().requires_grad_()
    loss = module(prediction, *target, **options)
    (loss * torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).view_as(loss)).sum().backward()
    return loss.detach(), prediction.grad


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_mmdets(name, reduction, weighted):
    config, inputs = LOSSES[name]
    prediction, *target = inputs()
    theirs = MODELS.build(config)
    options = dict(REDUCTIONS[reduction])
    if weighted:
        rows = theirs(prediction, *target, reduction_override="none").shape
        weight = torch.rand(rows, generator=rng(9), dtype=torch.float64)
        options["weight"] = weight.masked_fill(weight < 0.3, 0)
    ours = MODELS.build({**config, "type": f"pydistill.{config['type']}"})
    assert type(ours).__module__ == "pydistill.hosts.mmdet.losses"
    want, want_gradient = value_and_gradient(theirs, prediction, *target, **options)
    got, gradient = value_and_gradient(ours, prediction, *target, **options)
    assert relative_error(got, want) < 1e-9
    assert relative_error(gradient, want_gradient) < 1e-9


@pytest.mark.parametrize("name", LOSSES)
def test_a_sum_is_not_averaged(name):
    config, inputs = LOSSES[name]
    for kind in (config["type"], f"pydistill.{config['type']}"):
        with pytest.raises(ValueError, match="avg_factor"):
            MODELS.build({**config, "type": kind, "reduction": "sum"})(*inputs(), avg_factor=4.0)


def test_wrong_options():
    with pytest.raises(ValueError, match="expected T >= 1, got 0"):
        MODELS.build(dict(type="pydistill.KnowledgeDistillationKLDivLoss", T=0))
    with pytest.raises(ValueError, match='expected reduction "none", "mean" or "sum", got'):
        MODELS.build(dict(type="pydistill.KnowledgeDistillationKLDivLoss", reduction="avg"))
