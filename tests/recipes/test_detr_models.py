"""Detectors by queries: what they say, what learns, and what they do with a teacher's queries."""

import pytest
import torch

from pydistill.losses.detr.prediction import SetPrediction
from pydistill.recipes.detr.lending import Queries
from pydistill.recipes.detr.models import MODELS, build

pytest.importorskip("transformers", reason="needs pip install 'pydistill[train]'")
HOSTED = tuple(name for name in MODELS if name != "adamixer")

SMALL = dict(width=0.125, channels=32, queries=5, layers=2)
PICTURES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))

_OF_ZEROS = {  # the first stage's states are zeros in the published detectors, and these matrices see nothing else
    "detr": ("v",),
    "conditional_detr": ("q_content", "k_content", "v"),
}


def detector(name, seed=0, **options):
    torch.manual_seed(seed)
    return build(name, 3, **SMALL | options).eval()


def stirred(name, seed=0, **options):
    """As after some training: no head says 0, so that every stage has its own boxes."""
    model = detector(name, seed, **options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.05)
    return model


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def assert_same(a: SetPrediction, b: SetPrediction):
    assert all(relative(getattr(a, part), getattr(b, part)) < 1e-6 for part in ("logits", "boxes", "queries"))


@pytest.mark.parametrize("name", MODELS)
def test_shapes(name):
    model = detector(name)
    with torch.no_grad():
        prediction, queries, group, auxiliary = model(PICTURES)
    assert prediction.logits.shape == (2, 2, 5, 3 + (name == "detr")) and prediction.boxes.shape == (2, 2, 5, 4)
    assert prediction.queries.shape == (2, 2, 5, 32) and group is None
    assert (prediction.boxes > 0).all() and (prediction.boxes < 1 + 1e-6).all()
    strides = (16,) if name in ("detr", "conditional_detr") else (8, 16, 32)
    assert [tuple(x.shape) for x in prediction.features] == [(2, 32, 64 // s, 96 // s) for s in strides]
    learned = name != "rt_detr"
    assert queries.content.shape == ((5, 32) if learned else (2, 5, 32))
    assert [tuple(x.prediction.boxes.shape) for x in auxiliary] == ([] if learned else [(1, 2, 5, 4)])


@pytest.mark.parametrize("name", HOSTED)
def test_says_what_its_host_says(name):
    """The last stage is transformers' own output, and the stages are those that its loss is given."""
    model = stirred(name, layers=3)
    stages = {}

    def criterion(logits, labels, device, boxes, config, logits_of_stages, boxes_of_stages, **_):
        first = 1 if name == "rt_detr" else 0  # its stages are the second dimension
        stages.update(logits=logits_of_stages.movedim(first, 0), boxes=boxes_of_stages.movedim(first, 0))
        return logits.sum(), {}, []

    model.host.loss_function = criterion
    with torch.no_grad():
        prediction = model(PICTURES).prediction
        theirs = model.host(PICTURES, labels=[{}, {}])
    assert relative(prediction.logits[-1], theirs.logits) < 1e-6
    assert relative(prediction.boxes[-1], theirs.pred_boxes) < 1e-6
    assert relative(prediction.logits[:-1], stages["logits"][:-1]) < 1e-6
    assert relative(prediction.boxes[:-1], stages["boxes"][:-1]) < 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_lent_to_itself(name):
    """By its own queries it says what it says anyway; backbone and encoder run once, the decoder twice."""
    model = stirred(name)
    calls = []
    decoder = (model.host.model.decoder if name in HOSTED else model).layers[0]
    first = [model.backbone, model.host.model.encoder] if name in HOSTED else [model.backbone]
    for part in (*first, decoder):
        part.register_forward_hook(lambda module, *_: calls.append(module))
    alone = model(PICTURES)
    calls.clear()
    both = model(PICTURES, lent=alone.queries)
    assert calls == [*first, decoder, decoder]
    assert_same(both.group, alone.prediction)
    assert_same(both.prediction, alone.prediction)
    both.group.logits.square().sum().backward()
    assert next(model.backbone.parameters()).grad.norm() > 0


@pytest.mark.parametrize("name", MODELS)
def test_lent_by_a_teacher(name):
    """Queries of another number; each picture's are its own; nothing goes back into the teacher."""
    student, teacher = stirred(name, 1), stirred(name, 2, queries=7, layers=3, width=0.25)
    lent = teacher(PICTURES).queries
    group = student(PICTURES, lent=lent).group
    assert group.logits.shape[:3] == group.boxes.shape[:3] == (2, 2, 7)
    (group.logits.sum() + group.boxes.sum()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    of_each = Queries(*(None if x is None else x.expand(2, -1, -1) for x in lent))
    assert_same(student(PICTURES, lent=of_each).group, group)
    second = Queries(*(None if x is None else x[1:] for x in of_each))
    assert relative(student(PICTURES[1:], lent=second).group.boxes, group.boxes[:, 1:]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backbone", ["compact", "resnet18"])
def test_every_parameter_learns(name, backbone):
    """In the second step: some heads and offsets start at 0, and let nothing through in the first."""
    model = detector(name, backbone=backbone).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        out = model(PICTURES)
        predictions = [out.prediction, *(x.prediction for x in out.auxiliary)]
        sum((x.logits.square().mean() + (x.boxes - 0.3).square().mean()) for x in predictions).backward()
        optimizer.step()
    still = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert still == {f"host.model.decoder.layers.0.self_attn.{part}_proj.weight" for part in _OF_ZEROS.get(name, ())}


@pytest.mark.parametrize("name", MODELS)
def test_starts(name):
    """Probabilities of 0.01 by a sigmoid; norms let signals through."""
    model = detector(name)
    logits = model(PICTURES).prediction.logits
    if name != "detr":
        assert 0.003 < logits.sigmoid().median() < 0.03
    norms = [m for m in model.modules() if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.LayerNorm))]
    assert norms and all((m.weight == 1).all() for m in norms)


def test_checkpoint_gives_the_same():
    model, other = detector("rt_detr", 1), detector("rt_detr", 2)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert_same(other(PICTURES).prediction, model(PICTURES).prediction)


def test_paper_size():
    """Deformable DETR of 40 million parameters, with a fourth map that it makes itself."""
    with torch.device("meta"):
        model = build(
            "deformable_detr", 80, backbone="resnet50", width=1, strides=(8, 16, 32, 64), channels=256, queries=300,
            layers=6, encoder_layers=6, feedforward=1024, refine=False,
        )  # fmt: skip
    assert 39.5e6 < sum(p.numel() for p in model.parameters()) < 40.5e6
    assert len(model.necks()) == 4 and model.backbone.channels == (256, 512, 1024, 2048)


def test_errors():
    with pytest.raises(ValueError, match=r"build: expected name in \('detr'.*got 'yolo'"):
        build("yolo", 3)
    with pytest.raises(ValueError, match=r"build: expected strides that double.*got \[8, 32\]"):
        build("rt_detr", 3, strides=(8, 32))
    with pytest.raises(ValueError, match=r"build: expected strides to 32 or more for resnet18, got \[8, 16\]"):
        build("rt_detr", 3, backbone="resnet18", strides=(8, 16))
    with pytest.raises(ValueError, match="build: expected channels a multiple of 32, got 40"):
        build("rt_detr", 3, channels=40)
    model = detector("rt_detr")
    with pytest.raises(ValueError, match=r"H and W multiples of 32, got \[2, 3, 64, 90\]"):
        model(PICTURES[..., :90])
    lent = model(PICTURES).queries
    with pytest.raises(
        ValueError, match=r"Queries: expected content of shape \(Q, 32\) or \(2, Q, 32\), got \[2, 5, 3"
    ):
        model(PICTURES, lent=Queries(lent.content[..., :31], reference=lent.reference))
    with pytest.raises(ValueError, match=r"Queries: expected reference of shape \(Q, 4\) or \(2, Q, 4\), got None"):
        model(PICTURES, lent=Queries(lent.content))
    with pytest.raises(ValueError, match=r"expected content of shape \(Q, 32\) or \(1, Q, 32\), got \[2, 5, 32\]"):
        model(PICTURES[:1], lent=lent)
