"""LDLoss: the objectives of paper and codes, restated, and what they make of larger batches."""

from functools import partial

import pytest
import torch

from pydistill.losses import DensePrediction, LDLoss
from pydistill.ops import (
    ciou_loss,
    diou_loss,
    fine_grained_region,
    general_instance_region,
    giou_loss,
    inside_region,
)
from tests.conformance import assert_close, relative_error
from tests.losses import ld_restated as restated
from tests.losses.ld_scene import (
    BOXES,
    CASES,
    COUNTS,
    LABELS,
    PRESETS,
    SIZES,
    STRIDES,
    gradients,
    grid,
    parts,
    prediction,
    run,
)


@pytest.mark.parametrize(("preset", "reference"), CASES)
def test_objective_is_the_restated_one(preset, reference):
    student, teacher = prediction(0, grad=True), prediction(1)
    valid = torch.rand(3, 252, generator=torch.Generator().manual_seed(2)) < 0.8
    valid = None if preset in ("fcos", "retina") else valid  # those codes have no such flags
    own = {} if reference == "mmdet" else dict(vlr_kd=10.0, pseudo_box=1.0)
    got = run(LDLoss(STRIDES, preset=preset, reference=reference, **own), student, teacher, valid=valid)
    facts = restated.Scene(grid(), SIZES, STRIDES, BOXES, LABELS, COUNTS, valid)
    want = restated.objective(preset, reference, student, teacher, facts)
    want = {name: value for name, value in want.items() if value.item()}
    if reference == "mmdet":
        want = {name: want[name] for name in ("classification", "box", "dfl", "main_ld")}
    assert set(got) == set(want)
    for name in got:
        assert relative_error(got[name], want[name]) < 1e-9, name
    assert_close(gradients(got, student), gradients(want, student), 1e-9)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("box_loss", "rows"),
    [
        ("giou", giou_loss),
        ("diou", diou_loss),
        ("ciou", ciou_loss),
        ("ciou_released", partial(ciou_loss, alpha="released")),
        ("ciou_mmdet", partial(ciou_loss, alpha="mmdet")),
    ],
)
def test_box_loss_is_the_operator(preset, box_loss, rows):
    student, teacher = prediction(0, grad=True), prediction(1)
    loss = LDLoss(STRIDES, preset=preset, vlr_kd=10.0, pseudo_box=1.0, box_loss=box_loss)
    facts = restated.Scene(grid(), SIZES, STRIDES, BOXES, LABELS, COUNTS)
    got = run(loss, student, teacher)
    want = restated.objective(preset, "paper", student, teacher, facts, partial(rows, eps=1e-6))
    for name in got:
        assert relative_error(got[name], want[name]) < 1e-9, name
    assert_close(gradients(got, student), gradients({name: want[name] for name in got}, student), 1e-9)


def doubled(p):
    return DensePrediction(*(torch.cat([x, x]) for x in parts(p)))


@pytest.mark.parametrize("preset", PRESETS)
def test_paper_does_not_depend_on_the_batch_size(preset):
    """A batch given twice, images without boxes included, has the same loss; the released sums double."""
    student, teacher = prediction(0), prediction(1)
    features = [torch.randn(3, 4, 96 // s, 128 // s, dtype=torch.float64) for s in STRIDES]
    others = [x + torch.randn_like(x) for x in features]
    twice = [[torch.cat([x, x]) for x in xs] for xs in (features, others)]
    loss = LDLoss(STRIDES, preset=preset, vlr_kd=1.0, imitation=1.0, pseudo_box=1.0)
    once = run(loss, student, teacher, features=(features, others))
    data = [torch.cat([x, x]) for x in (BOXES, LABELS, COUNTS)]
    again = run(loss, doubled(student), doubled(teacher), *data, features=tuple(twice))
    assert_close(list(again.values()), list(once.values()), 1e-12)
    released = LDLoss(STRIDES, preset=preset, reference="released")
    once, again = run(released, student, teacher), run(released, doubled(student), doubled(teacher), *data)
    for name in ("main_ld", "vlr_ld"):
        assert relative_error(again[name], 2 * once[name]) < 1e-12


def test_paper_weighs_as_released_with_two_images():
    student, teacher = prediction(0, images=2), prediction(1, images=2)
    options = dict(vlr_measure="diou_released", vlr_upper="open", positives_in_vlr=True, ignored_in_vlr=True)
    data = (BOXES[:2], LABELS[:2], COUNTS[:2])
    paper, released = (
        run(LDLoss(STRIDES, **o), student, teacher, *data) for o in (options, dict(reference="released"))
    )
    for name in ("classification", "main_ld", "vlr_ld"):
        assert relative_error(paper[name], released[name]) < 1e-12


@pytest.mark.parametrize("options", [dict(vlr_weight="score"), dict(vlr_weight="one"), dict(vlr_region="inside")])
def test_region_of_all_negatives(options):
    """For assigners without a threshold; one image, so that the sum is the released one twice."""
    student, teacher = prediction(0, images=1, grad=True), prediction(1, images=1)
    options = dict(vlr_region="negatives", vlr_weight="score") | options
    got = run(LDLoss(STRIDES, **options), student, teacher, BOXES[:1], LABELS[:1], COUNTS[:1])["vlr_ld"]
    facts = restated.Scene(grid(), SIZES, STRIDES, BOXES[:1], LABELS[:1], COUNTS[:1])
    index, _ = restated.assign(facts, 0, "atss")
    rest = index < 0
    if options["vlr_region"] == "inside":
        centre = (grid()[:, None, :2] + grid()[:, None, 2:]) / 2
        rest &= ((centre > BOXES[0, :, :2]) & (centre < BOXES[0, :, 2:])).all(-1).any(-1)
    w = torch.ones(252) if options["vlr_weight"] == "one" else student.logits[0].sigmoid().amax(1).detach()
    rows = restated.kl_rows(student.sides[0].view(252, 4, 17), teacher.sides[0].view(252, 4, 17), 10).sum(1)
    want = 0.0625 / 4 * 2 * (rows * w)[rest].sum()
    assert relative_error(got, want) < 1e-9
    assert_close(gradients({"vlr_ld": got}, student), gradients({"vlr_ld": want}, student), 1e-9)


@pytest.mark.parametrize("reference", ["paper", "released"])
def test_ignored_anchors(reference):
    """No classification there; the released code still distils the sides of those in the band."""
    student, teacher = prediction(0, grad=True), prediction(1)
    region = torch.tensor([[[0.0, 0, 60, 96]], [[64.0, 0, 128, 96]], [[0.0, 0, 0, 0]]], dtype=torch.float64)
    loss = LDLoss(STRIDES, reference=reference, ignore_threshold=0.5)
    losses = run(loss, student, teacher, ignore_boxes=region, ignore_counts=torch.tensor([1, 1, 0]))
    low, high = torch.maximum(grid()[:, :2], region[:, :, :2]), torch.minimum(grid()[:, 2:], region[:, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    ignored = inter / (grid()[:, 2:] - grid()[:, :2]).prod(-1) > 0.5
    of_class = torch.autograd.grad(losses["classification"], student.logits, retain_graph=True)[0].abs().amax(-1)
    of_sides = torch.autograd.grad(losses["vlr_ld"], student.sides)[0].abs().amax(-1)
    assert ignored.sum() > 50 and torch.equal(of_class == 0, ignored)
    assert (of_sides[ignored] > 0).any() == (reference == "released")


@pytest.mark.parametrize("region", ["fine_grained", "inside", "general_instance"])
@pytest.mark.parametrize("reference", ["paper", "released"])
def test_imitation(reference, region):
    rng = torch.Generator().manual_seed(5)
    shapes = [(3, 4, 96 // s, 128 // s) for s in STRIDES]
    ours, theirs = ([torch.randn(s, generator=rng, dtype=torch.float64) for s in shapes] for _ in range(2))
    for x in ours:
        x.requires_grad_()
    student, teacher = prediction(0), prediction(1)
    boxes = BOXES.clone()
    boxes[:, :, 2:] = boxes[:, :, :2] + (boxes[:, :, 2:] - boxes[:, :, :2]) / 3  # no positive on the coarsest level
    loss = LDLoss(STRIDES, reference=reference, imitation=2.0, imitation_region=region)
    got = run(loss, student, teacher, boxes, features=(ours, theirs))["imitation"]
    if region == "general_instance":
        decoded = []
        stride = torch.cat([torch.full((n, 1), float(s)) for n, s in zip(SIZES, STRIDES)]).double()
        for p in (student, teacher):
            d = (p.sides.view(3, 252, 4, 17).softmax(-1) * torch.arange(17)).sum(-1)
            centre = (grid()[:, :2] + grid()[:, 2:]) / 2 / stride
            decoded.append(torch.cat([centre - d[..., :2], centre + d[..., 2:]], -1))
        scope = "image" if reference == "paper" else "batch"
        mask = general_instance_region(student.logits, teacher.logits, *decoded, SIZES, scope=scope)
    elif region == "inside":
        mask = inside_region((grid()[:, :2] + grid()[:, 2:]) / 2, boxes, COUNTS)
    else:
        mask = fine_grained_region(grid(), boxes, COUNTS)
    facts = restated.Scene(grid(), SIZES, STRIDES, boxes, LABELS, COUNTS)
    positive = torch.stack([restated.assign(facts, i, "atss")[0] >= 0 for i in range(3)])
    want, dead = 0.0, 0
    for s, t, m, p in zip(ours, theirs, mask.split(SIZES, 1), positive.split(SIZES, 1)):
        rows = (s - t).square().flatten(2).transpose(1, 2)[m]
        dead += not p.any()
        if len(rows) and (reference == "paper" or p.any()):
            want = want + 2 * rows.mean()
    assert dead
    assert relative_error(got, want) < 1e-9
    assert_close(torch.autograd.grad(got, ours), torch.autograd.grad(want + 0 * sum(x.sum() for x in ours), ours), 1e-9)
