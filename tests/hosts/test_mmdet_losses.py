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


def classes():
    labels = torch.randint(-1, 7, (ROWS,), generator=rng(3))  # -1 and 6: background
    return normal(ROWS, 6, seed=1), (labels, torch.rand(ROWS, generator=rng(4), dtype=torch.float64))


def probabilities():
    logits, target = classes()
    return logits.sigmoid(), target


def sides():
    target = torch.rand(ROWS, generator=rng(3), dtype=torch.float64) * (BINS - 1.1)
    return normal(ROWS, BINS, seed=1), target.masked_scatter(target < 2, torch.arange(9.0).double().repeat(9))


def boxes():
    """Pairs that overlap much, little and not at all."""
    corner, size = torch.rand(2, ROWS, 2, generator=rng(3), dtype=torch.float64) * 20 + 5
    target = torch.cat([corner, corner + size], 1)
    return target + torch.linspace(0.1, 12, ROWS, dtype=torch.float64)[:, None] * normal(ROWS, 4, scale=0.4), target


LOSSES = {
    "kd": (dict(type="KnowledgeDistillationKLDivLoss", loss_weight=0.25, T=10), kd_inputs),
    "kd-2": (dict(type="KnowledgeDistillationKLDivLoss", loss_weight=10, T=2), kd_inputs),
    "kd-maps": (dict(type="KnowledgeDistillationKLDivLoss"), kd_maps),
    "qfl": (dict(type="QualityFocalLoss"), classes),
    "qfl-beta": (dict(type="QualityFocalLoss", beta=1.5, loss_weight=3.0), classes),
    "qfl-probabilities": (dict(type="QualityFocalLoss", activated=True), probabilities),
    "dfl": (dict(type="DistributionFocalLoss", loss_weight=0.25), sides),
    "giou": (dict(type="GIoULoss", loss_weight=2.0), boxes),
    "diou": (dict(type="DIoULoss", eps=1e-7), boxes),
    "ciou": (dict(type="CIoULoss"), boxes),
}
REDUCTIONS = {
    "mean": {},
    "average": dict(avg_factor=4.0),
    "zero": dict(avg_factor=0.0),
    "tensor": dict(avg_factor=torch.tensor(13.0, dtype=torch.float64)),
    "sum": dict(reduction_override="sum"),
    "none": dict(reduction_override="none", avg_factor=4.0),
}


def tolerance(config):
    """CIoU has eps, 1e-6, in its alpha where mmdetection can divide by 0."""
    return 1e-7 if config["type"] == "CIoULoss" else 1e-9


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
    assert relative_error(got, want) < tolerance(config)
    assert relative_error(gradient, want_gradient) < tolerance(config)


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
    with pytest.raises(ValueError, match="expected use_sigmoid=True, got False"):
        MODELS.build(dict(type="pydistill.QualityFocalLoss", use_sigmoid=False))
    with pytest.raises(TypeError, match="expected a pair of labels and scores, got a tensor"):
        MODELS.build(dict(type="pydistill.QualityFocalLoss"))(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", ["GIoULoss", "DIoULoss", "CIoULoss"])
def test_box_weights(kind):
    """Weights of each coordinate are averaged; weights that are all 0 give 0."""
    theirs, ours = MODELS.build(dict(type=kind)), MODELS.build(dict(type=f"pydistill.{kind}"))
    prediction, target = boxes()
    weight = torch.rand(ROWS, 4, generator=rng(5), dtype=torch.float64)
    for w in (weight, weight * 0, weight[:, 0] * 0):
        want = value_and_gradient(theirs, prediction, target, weight=w, avg_factor=3.0)
        got = value_and_gradient(ours, prediction, target, weight=w, avg_factor=3.0)
        limit = tolerance(dict(type=kind))
        assert relative_error(got[0], want[0]) < limit and relative_error(got[1], want[1]) < limit
