"""LDLoss on images without boxes, in every dtype, without a copy, compiled; and what it refuses."""

import re
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import pydistill
from pydistill.losses import DensePrediction, LDLoss
from tests.conformance import NoCopies, assert_captured, assert_close, each_device
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

each_case = pytest.mark.parametrize(("preset", "reference"), CASES)
DISTILLED = ("main_ld", "vlr_ld", "main_kd", "vlr_kd")


@each_device
@pytest.mark.parametrize("padding", [0, 2])
@each_case
def test_images_without_boxes(preset, reference, padding, device):
    """Background everywhere: the classification learns, all else is 0 and has the gradient 0."""
    student = prediction(0, grad=True)
    student = DensePrediction(*(x.detach().to(device).requires_grad_() for x in parts(student)))
    teacher = DensePrediction(*(x.to(device) for x in parts(prediction(1))))
    none = [BOXES[:, :padding], LABELS[:, :padding], torch.zeros(3, dtype=torch.int64)]
    extra = {} if reference == "mmdet" else dict(vlr_kd=1.0, pseudo_box=1.0)
    loss = LDLoss(STRIDES, preset=preset, reference=reference, **extra)
    losses = run(loss, student, teacher, *(x.to(device) for x in none))
    assert losses["classification"] > 0
    rest = {name: value for name, value in losses.items() if name != "classification"}
    assert all(value == 0 for value in rest.values())
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients(rest, student))
    assert all(g.isfinite().all() for g in gradients(losses, student))


def test_fcos_takes_points_and_may_have_a_band():
    student, teacher = prediction(0), prediction(1)
    low, high = grid().chunk(2, 1)
    loss, data = LDLoss(STRIDES, preset="fcos"), (SIZES, BOXES, LABELS, COUNTS)
    of_boxes, of_points = (loss(student, teacher, anchors, *data) for anchors in (grid(), (low + high) / 2))
    assert all(torch.equal(of_boxes[name], of_points[name]) for name in of_boxes)
    band = run(LDLoss(STRIDES, preset="fcos", vlr_region="band", vlr_weight="iou"), student, teacher)
    rest = run(LDLoss(STRIDES, preset="atss", vlr_ld=0.0625, positives_in_vlr=True), student, teacher)
    assert 0 < band["vlr_ld"] < rest["vlr_ld"]  # ATSS' band without FCOS' positives


@pytest.mark.parametrize("preset", PRESETS)
def test_no_images(preset):
    """A process whose share of the last batch is empty loses nothing."""
    student, teacher = prediction(0, images=0, grad=True), prediction(1, images=0)
    losses = run(LDLoss(STRIDES, preset=preset), student, teacher, BOXES[:0], LABELS[:0], COUNTS[:0])
    assert all(value == 0 for value in losses.values())
    assert all(g.numel() == 0 for g in gradients(losses, student))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_weight_of_zero_is_the_term_left_out(preset):
    """The others and the gradients are those of a loss without it, bit for bit; nothing of the teacher is read."""
    student, teacher = prediction(0, grad=True), prediction(1)
    everything = run(LDLoss(STRIDES, preset=preset, vlr_kd=1.0, pseudo_box=1.0), student, teacher)
    for name in everything:
        fewer = run(LDLoss(STRIDES, preset=preset, **{"vlr_kd": 1.0, "pseudo_box": 1.0, name: 0.0}), student, teacher)
        assert set(fewer) == set(everything) - {name}
        assert all(torch.equal(fewer[n], everything[n]) for n in fewer)
    own = dict.fromkeys((*DISTILLED, "pseudo_box"), 0.0)
    off, alone = (run(LDLoss(STRIDES, preset=preset, **o), student, t) for o, t in ((own, teacher), ({}, None)))
    assert set(off) == set(alone) and all(torch.equal(off[n], alone[n]) for n in off)
    assert all(torch.equal(a, b) for a, b in zip(gradients(off, student), gradients(alone, student), strict=True))
    nan = DensePrediction(*(torch.full_like(x, torch.nan) for x in parts(teacher)))
    assert all(
        torch.equal(off[n], value) for n, value in run(LDLoss(STRIDES, preset=preset, **own), student, nan).items()
    )


def test_a_teacher_equal_to_the_student_teaches_nothing():
    student = prediction(0, grad=True)
    losses = run(LDLoss(STRIDES, vlr_kd=1.0, classification=0.0, box=0.0, dfl=0.0), student, student.detach())
    assert set(losses) == set(DISTILLED)
    assert sum(losses.values()).abs() < 1e-12
    assert max(g.abs().max() for g in gradients(losses, student)) < 1e-12


@each_device
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-5), (torch.bfloat16, 1e-5)])
@pytest.mark.parametrize("preset", PRESETS)
def test_dtypes(preset, dtype, tolerance, device):
    """Losses of half inputs are float32, and as exact as if these inputs had been given in float64."""
    student, teacher = (
        DensePrediction(*(x.to(device, dtype).requires_grad_(grad) for x in parts(prediction(seed))))
        for seed, grad in ((0, True), (1, False))
    )
    wide = [
        DensePrediction(*(x.detach().cpu().double().requires_grad_() for x in parts(p))) for p in (student, teacher)
    ]
    loss = LDLoss(STRIDES, preset=preset, vlr_kd=1.0)
    data = [x.to(device) for x in (BOXES.float(), LABELS, COUNTS)]
    got = loss(student, teacher, grid().float().to(device), SIZES, *data)
    want = run(loss, *wide)
    assert {x.dtype for x in got.values()} == {torch.float32}
    assert_close([x.detach() for x in got.values()], [x.detach() for x in want.values()], tolerance)
    rounding = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert_close(gradients(got, student), gradients(want, wide[0]), rounding)


def fake(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")


@each_case
def test_nothing_is_copied_or_read_by_the_host(preset, reference):
    student, teacher = prediction(0, grad=True), prediction(1)
    loss = LDLoss(STRIDES, preset=preset, reference=reference)
    with NoCopies():
        torch.autograd.grad(sum(run(loss, student, teacher).values()), parts(student), allow_unused=True)
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        s, t = (DensePrediction(*map(fake, parts(p))) for p in (student, teacher))
        losses = loss(s, t, fake(grid()), SIZES, *map(fake, (BOXES, LABELS, COUNTS)))
    assert {(x.device.type, x.ndim) for x in losses.values()} == {("cuda", 0)}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_case
def test_captured_in_a_graph(preset, reference):
    """Captured once, forward and backward, and replayed on other pictures and other boxes."""
    loss = LDLoss(STRIDES, preset=preset, reference=reference)
    anchors = grid().float().cuda()

    def tensors(seed):
        p, t = (parts(prediction(seed + k, dtype=torch.float32)) for k in (0, 1))
        boxes = BOXES.float().roll(seed, 1)
        return [x.detach().cuda() for x in (*p, *t, boxes, LABELS, COUNTS.roll(seed))]

    inputs = tensors(0)
    for x in inputs[:4]:
        x.requires_grad_()

    def step():
        losses = loss(DensePrediction(*inputs[:4]), DensePrediction(*inputs[4:8]), anchors, SIZES, *inputs[8:])
        grads = torch.autograd.grad(sum(losses.values()), inputs[:4], allow_unused=True)
        return [*(x.detach() for x in losses.values()), *(g for g in grads if g is not None)]

    assert_captured(step, inputs, tensors(1))


def wrong(match, loss, *args, **options):
    with pytest.raises(ValueError, match=re.escape(match)):
        run(loss, *args, **options)


def test_student_and_teacher_that_do_not_fit_are_named():
    loss, s, t = LDLoss(STRIDES), prediction(0), prediction(1)
    wrong("a teacher of the student's 5 classes, got 3 classes", loss, s, prediction(1, classes=3))
    wrong(
        "sides of 4 * 17 bins (reg_max 16) as the student's, got 32 channels (reg_max 7)",
        loss,
        s,
        prediction(1, bins=8),
    )
    wrong(
        "strides and anchors per location), logits of shape [3, 252, 5], got [3, 60, 5]",
        loss,
        s,
        prediction(1, anchors=60),
    )
    wrong("4 * n) with n >= 2 bins, got [3, 252, 4]", loss, prediction(0, bins=1), t)
    wrong(
        "logits of shape (3, 252, C), as boxes and anchors have it, got [3, 60, 5]", loss, prediction(0, anchors=60), t
    )
    bare = DensePrediction(s.logits, s.sides)
    wrong("the student's centerness of shape [3, 252], got None", LDLoss(STRIDES, preset="atss"), bare, t)
    wrong("the student's scores of shape [3, 252, 5], got None", LDLoss(STRIDES, preset="gflv2"), bare, t)
    wrong("2 level_sizes, one a stride, got [192, 48, 12]", LDLoss((8, 16)), s, t)
    wrong("labels of shape [3, 3], got [3, 2]", loss, s, t, labels=LABELS[:, :2])
    wrong("counts of shape [3], got [2]", loss, s, t, counts=COUNTS[:2])
    wrong("boxes of shape (B, G, 4), got [3, 4]", loss, s, t, boxes=BOXES[:, 0])
    imitating, maps = LDLoss(STRIDES, imitation=1.0), [torch.zeros(3, 4, 96 // x, 128 // x) for x in STRIDES]
    wrong("features of 3 levels of student and teacher, got None", imitating, s, t)
    wrong("features of 3 levels of student and teacher, got 3 and 2", imitating, s, t, features=(maps, maps[:2]))
    wide = [maps[0], torch.zeros(3, 8, 6, 8), maps[2]]
    wrong("student's shape [3, 4, 6, 8] at level 1, got [3, 8, 6, 8]", imitating, s, t, features=(maps, wide))
    wrong("192 anchors at level 0, got [3, 4, 6, 5]", imitating, s, t, features=([maps[0][:, :, :6, :5]] * 3,) * 2)


def test_options_outside_the_known_are_named():
    for options, message in (
        (dict(preset="yolo"), "expected preset in"),
        (dict(reference="lua"), "expected reference in"),
        (dict(imitation_region="all"), "expected imitation_region in"),
        (dict(preset="atss", reference="mmdet"), "expected preset 'gfl' of reference 'mmdet', got 'atss'"),
        (dict(main_ld=-1.0), "expected a finite main_ld >= 0, got -1.0"),
        (
            dict(box_loss="iou"),
            "expected box_loss in ('giou', 'diou', 'ciou', 'ciou_released', 'ciou_mmdet'), got 'iou'",
        ),
        (dict(vlr_upper="half"), "expected vlr_upper in ('closed', 'open'), got 'half'"),
        (dict(vlr_region="negatives"), "expected vlr_weight 'score' or 'one' of the region 'negatives', got 'iou'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            LDLoss(STRIDES, **options)
    with pytest.raises(TypeError, match="LDLoss: expected options in .*, got 'temprature'"):
        LDLoss(STRIDES, temprature=2.0)


def test_labels_outside_the_classes_are_background():
    student, teacher = prediction(0), prediction(1)
    odd = LABELS.masked_fill(LABELS == 4, 5)
    on = dict(vlr_ld=0.0, main_kd=0.0, classification=0.0)
    a = run(LDLoss(STRIDES, preset="retina", **on), student, teacher, labels=odd)
    assert a["main_ld"] < run(LDLoss(STRIDES, preset="retina", **on), student, teacher)["main_ld"]
    with (
        pydistill.checking(True),
        pytest.raises(ValueError, match=r"LDLoss: expected labels in \[0, 5\), got 5 at \[0, 1\]"),
    ):
        run(LDLoss(STRIDES), student, teacher, labels=odd)


def test_from_levels():
    """In mmdetection's order: row by row, the anchors of a location together."""
    maps = [torch.randn(2, 9 * c, h, w) for c in (3, 8) for h, w in ((4, 6), (2, 3))]
    p = DensePrediction.from_levels(maps[:2], maps[2:], anchors=9)
    assert [x.shape for x in p.logits] == [(2, 9 * 24, 3), (2, 9 * 6, 3)] and p.bins == 2 and p.centerness is None
    assert torch.equal(p.logits[0][1, (2 * 6 + 5) * 9 + 4], maps[0][1, 12:15, 2, 5])
    assert torch.equal(p.sides[1][0, 8], maps[3][0, 64:, 0, 0])
    maps = [torch.randn(2, 1, 4, 6)]
    p = DensePrediction.from_levels(maps, maps, maps)
    assert torch.equal(p.centerness[0], maps[0].flatten(1)) and p.logits[0].data_ptr() == maps[0].data_ptr()
    with pytest.raises(ValueError, match=r"maps of shape \(B, 9 \* channels, h, w\), got \[2, 1, 4, 6\]"):
        DensePrediction.from_levels(maps, maps, anchors=9)


@pytest.mark.parametrize(("preset", "reference"), [("gfl", "paper"), ("gflv2", "released"), ("retina", "released")])
def test_levels_give_what_one_tensor_gives(preset, reference):
    """A student of views of its maps, a teacher of either kind."""
    student, teacher = prediction(0, grad=True), prediction(1)
    loss = LDLoss(STRIDES, preset=preset, reference=reference, vlr_kd=10.0, pseudo_box=1.0)
    want = run(loss, student, teacher)

    def maps(x):
        shapes = [(96 // s, 128 // s) for s in STRIDES]
        levels = [p.detach().transpose(1, 2).unflatten(2, hw) for p, hw in zip(x.split(SIZES, 1), shapes, strict=True)]
        return [m.contiguous().requires_grad_(x.requires_grad) for m in levels]

    own, others = ([maps(x.unsqueeze(-1) if x.ndim == 2 else x) for x in parts(p)] for p in (student, teacher))
    for other in (teacher, DensePrediction.from_levels(*others)):
        got = run(loss, DensePrediction.from_levels(*own), other)
        assert list(got) == list(want)
        assert_close([x.detach() for x in got.values()], [x.detach() for x in want.values()], 1e-12)
        grads = torch.autograd.grad(sum(got.values()), own[0] + own[1])
        together = [torch.cat([g.flatten(2) for g in part], 2).transpose(1, 2) for part in (grads[:3], grads[3:])]
        kept = torch.autograd.grad(sum(want.values()), [student.logits, student.sides], retain_graph=True)
        assert_close(together, kept, 1e-12)
    split = replace(student, logits=student.logits.split([200, 40, 12], 1))
    wrong("levels of [192, 48, 12] anchors, got [200, 40, 12]", loss, split, teacher)


def test_compiled():
    torch._dynamo.reset()
    student, teacher = prediction(0, grad=True, dtype=torch.float32), prediction(1, dtype=torch.float32)
    for preset in ("gfl", "fcos"):
        loss = LDLoss(STRIDES, preset=preset)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        got, want = run(compiled, student, teacher, BOXES.float()), run(loss, student, teacher, BOXES.float())
        assert_close([x.detach() for x in got.values()], [x.detach() for x in want.values()], 1e-6)
        assert_close(gradients(got, student), gradients(want, student), 1e-6)
