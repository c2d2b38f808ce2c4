"""DETRDistillLoss on images without boxes, in every dtype, without a copy, compiled; and what it refuses."""

import re
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import pydistill
from pydistill.losses import DETRDistillLoss, SetTargets
from tests.conformance import NoCopies, assert_captured, assert_close, each_device
from tests.losses.detr_scene import CHANNELS, gradients, of_tensors, prediction, targets, tensors

each_detector = pytest.mark.parametrize("detector", ["deformable_detr", "detr", "rt_detr", "adamixer"])
each_reference = pytest.mark.parametrize("reference", ["paper", "released"])
OWN = ("classification", "l1", "giou")
GROUP = tuple(f"group_{name}" for name in OWN)
INSTANCE = ("instance_class", "instance_l1", "instance_giou")


def loss_of(detector="deformable_detr", reference="paper", **options):
    """With every term."""
    return DETRDistillLoss(
        detector=detector, reference=reference, **{"relation": 0.5, "projection": (CHANNELS, 8), **options}
    )


def scene(detector="deformable_detr", dtype=torch.float64, device="cpu", images=3, padding=4):
    """Student, teacher, targets and group."""
    made = [
        prediction(seed, stages, queries, detector, images, dtype)
        for seed, stages, queries in ((0, 2, 12), (1, 3, 8), (2, 2, 8))
    ]
    student, teacher, group = (of_tensors([x.to(device) for x in tensors(p)]) for p in made)
    for x in (*tensors(student), *tensors(group)):
        x.requires_grad_()
    t = targets(images, padding)
    t = SetTargets(*(x.to(device) for x in (t.labels, t.boxes.to(dtype), t.counts, t.image_sizes)))
    return student, teacher, t, group


def run(loss, student, teacher, t, group):
    return loss(student, teacher, t, group=group)


@each_device
@pytest.mark.parametrize("padding", [0, 4])
@each_reference
@each_detector
def test_images_without_boxes(detector, reference, padding, device):
    """Everything is background: boxes lose nothing and have the gradient 0; what the teacher says still counts."""
    student, teacher, t, group = scene(detector, device=device, padding=padding)
    t = replace(t, counts=torch.zeros_like(t.counts))
    losses = run(loss_of(detector, reference).double().to(device), student, teacher, t, group)
    for name in ("l1", "giou", "group_l1", "group_giou"):
        assert losses[name] == 0
    nothing = gradients({n: losses[n] for n in ("l1", "giou", "group_l1", "group_giou")}, student, group)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in nothing)
    assert (losses["instance_class"] == 0) == (reference == "paper")  # no positive pairs
    assert all(losses[n] > 0 for n in ("classification", "instance_l1", "instance_giou", "feature", "relation"))
    assert all(g.isfinite().all() for g in gradients(losses, student, group))


@each_detector
def test_no_images(detector):
    """A process whose share of the last batch is empty loses nothing."""
    student, teacher, t, group = scene(detector, images=0)
    losses = run(loss_of(detector, relation=0.0), student, teacher, t, group)
    assert all(value == 0 for value in losses.values())
    assert all(g.numel() == 0 for g in gradients(losses, student, group))


@each_detector
def test_a_weight_of_zero_is_the_term_left_out(detector):
    """The others and the gradients are those of a loss without it, bit for bit; nothing of the teacher is read."""
    student, teacher, t, group = scene(detector)
    loss = loss_of(detector).double().eval()
    everything = run(loss, student, teacher, t, group)
    for switch, names in (
        *((name, (name,)) for name in (*OWN, "feature", "relation")),
        ("instance", INSTANCE),
        ("group", GROUP),
    ):
        fewer = loss_of(detector, **{switch: 0.0}).double().eval()
        fewer.load_state_dict(loss.state_dict(), strict=switch != "relation")
        got = run(fewer, student, teacher, t, None if switch == "group" else group)
        assert set(got) == set(everything) - set(names)
        assert all(torch.equal(got[n], everything[n]) for n in got)
    off = loss_of(detector, instance=0.0, feature=0.0, relation=0.0, group=0.0)
    nan = of_tensors([torch.full_like(x, torch.nan) for x in tensors(teacher)])
    alone = run(loss, student, None, t, None)
    assert list(alone) == list(OWN)
    for got in (off(student, teacher, t), off(student, nan, t)):
        assert list(got) == list(OWN) and all(torch.equal(got[n], alone[n]) for n in got)
        pairs = zip(gradients(got, student), gradients(alone, student), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_weights_multiply_their_terms():
    scenes = scene()
    one = run(loss_of().double().eval(), *scenes)
    weights = dict(classification=3.0, l1=7.0, giou=11.0, instance=13.0, feature=17.0, group=19.0)
    got = run(loss_of(relation=0.0, **weights), *scenes)
    ratios = {
        **dict(zip(OWN, (1.5, 1.4, 5.5))),
        **dict.fromkeys(INSTANCE, 13.0),
        "feature": 17.0,
        **dict.fromkeys(GROUP, 19.0),
    }
    assert {name: round((got[name] / one[name]).item(), 9) for name in got} == ratios
    some = run(loss_of(group=0.0, relation=0.0, instance_weights=(2.0, 0.0, 2.0), pairs="all"), *scenes)
    assert not {"instance_l1", "group_l1", "relation"} & set(some)
    no_boxes = run(loss_of(instance_box_pairs="none"), *scenes)
    assert not {"instance_l1", "instance_giou"} & set(no_boxes)
    halves = [run(loss_of(pairs="all", **{name: 0.0}), *scenes)["instance_l1"] for name in ("positive", "negative")]
    whole = run(loss_of(pairs="all", positive=2.0, negative=2.0), *scenes)["instance_l1"]
    assert all(x > 0 for x in halves)
    assert_close(whole.detach(), 2 * sum(halves).detach(), 1e-12)


@each_detector
def test_a_teacher_equal_to_the_student_teaches_nothing(detector):
    student, _, t, _ = scene(detector)
    options = dict(classification=0.0, l1=0.0, giou=0.0, group=0.0, pairs="all", clamp_teacher=False)
    losses = DETRDistillLoss(detector=detector, **options)(student, student, t)
    assert set(losses) == {*INSTANCE, "feature"}
    assert all(losses[name].abs() < 1e-12 for name in losses if name != "instance_class" or detector == "detr")
    of_logits, of_boxes, *rest = gradients({n: losses[n] for n in losses if n != "instance_giou"}, student)
    assert max(g.abs().max() for g in (of_logits, of_boxes, *rest)) < 1e-12


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@each_detector
def test_dtypes(detector, dtype, device):
    """Losses of half inputs are float32, and as exact as if these inputs had been given in float64."""
    loss = DETRDistillLoss(detector=detector)
    small = scene(detector, dtype, device)
    small = (*small[:2], replace(small[2], boxes=small[2].boxes.float()), small[3])
    t = SetTargets(*(x.cpu().double() if x.is_floating_point() else x.cpu() for x in vars(small[2]).values()))
    wide = [
        of_tensors([x.detach().cpu().double().requires_grad_(x.requires_grad) for x in tensors(p)])
        for p in (small[0], small[1], small[3])
    ]
    wide.insert(2, t)
    got, want = run(loss, *small), run(loss, *wide)
    assert {x.dtype for x in got.values()} == {torch.float32}
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert_close([x.detach() for x in got.values()], [x.detach() for x in want.values()], 2e-5)
    assert_close(gradients(got, small[0], small[3]), gradients(want, wide[0], wide[3]), tolerance)


def fake(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")


@each_reference
@each_detector
def test_nothing_is_copied_or_read_by_the_host(detector, reference):
    scenes = scene(detector)
    loss = loss_of(detector, reference).double()
    with NoCopies():
        gradients(run(loss, *scenes), scenes[0], scenes[3])
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        student, teacher, group = (of_tensors([fake(x) for x in tensors(scenes[k])]) for k in (0, 1, 3))
        t = SetTargets(*(fake(x) for x in vars(scenes[2]).values()))
        for region in ("quality", "query", "boxes", "none"):
            somewhere = loss_of(detector, reference, feature_region=region, relation=0.0, instance_stage="last")
            losses = run(somewhere, student, teacher, t, group)
            assert {(x.device.type, x.ndim) for x in losses.values()} == {("cuda", 0)}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_reference
@each_detector
def test_captured_in_a_graph(detector, reference):
    """Captured once, forward and backward, and replayed on other pictures and other boxes."""
    loss = loss_of(detector, reference).cuda()

    def inputs(turn):
        student, teacher, t, group = scene(detector, torch.float32, "cuda")
        parts = [x.detach().roll(turn, 1 if x.ndim == 4 and x.shape[1] == 3 else 0) for p in (student, teacher, group)
                 for x in tensors(p)]  # fmt: skip
        return [*parts, *(x.roll(turn, 0) for x in vars(t).values())]

    held, other = inputs(0), inputs(1)
    for x in (*held[:5], *held[10:15]):
        x.requires_grad_()

    def step():
        student, teacher, group = (of_tensors(held[k : k + 5]) for k in (0, 5, 10))
        losses = run(loss, student, teacher, SetTargets(*held[15:]), group)
        return [*(x.detach() for x in losses.values()), *gradients(losses, student, group)]

    assert_captured(step, held, other)


def test_compiled():
    torch._dynamo.reset()
    scenes = scene(dtype=torch.float32)
    loss = DETRDistillLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, want = run(compiled, *scenes), run(loss, *scenes)
    assert_close([x.detach() for x in got.values()], [x.detach() for x in want.values()], 1e-6)
    assert_close(gradients(got, scenes[0], scenes[3]), gradients(want, scenes[0], scenes[3]), 1e-6)


def wrong(message, loss, *args, **options):
    with pytest.raises(ValueError, match=re.escape(message)):
        loss(*args, **options)


def test_predictions_that_do_not_fit_are_named():
    loss, (s, teacher, t, group) = loss_of().double(), scene()
    other, first = prediction(1, 3), s.features[0]
    for student, message in (
        (replace(s, logits=s.logits[0]), "the student's logits of shape (L, B, Q, C) with L >= 1, got [3, 12, 5]"),
        (replace(s, boxes=s.boxes[0]), "the student's boxes of shape [2, 3, 12, 4], got [3, 12, 4]"),
        (replace(s, features=[first, s.logits[0]]), "the student's features of shape (3, D, h, w) at level 1"),
    ):
        wrong(message, loss, student, teacher, t, group=group)
    for of_teacher, message in (
        (replace(teacher, queries=other.queries), "the teacher's queries of shape (3, 3, 8, D), got [3, 3, 12, 6]"),
        (prediction(1, images=2), "a teacher of the student's 3 images, got 2"),
        (prediction(1, detector="detr"), "a teacher of the student's 5 class logits, got 6"),
    ):
        wrong(message, loss, s, of_teacher, t, group=group)
    for of_images, message in (
        (targets(2), "targets.labels of shape (3, T), got [2, 4]"),
        (replace(t, boxes=t.boxes[:, :3]), "targets.boxes of shape [3, 4, 4], got [3, 3, 4]"),
        (replace(t, counts=t.counts[:2]), "targets.counts of shape [3], got [2]"),
        (replace(t, image_sizes=t.image_sizes[:2]), "targets.image_sizes of shape [3, 2], got [2, 2]"),
    ):
        wrong(message, loss, s, teacher, of_images, group=group)
    deep = loss_of(stages=[0, 3])
    wrong("stages, 2 numbers below the teacher's 3 stages, got [0, 3]", deep, s, teacher, t, group=group)
    for options in (dict(reference="released"), dict(detector="adamixer")):
        wrong("expected targets.image_sizes, since", loss_of(**options), s, teacher, replace(t, image_sizes=None))


def test_what_a_term_lacks_is_named():
    loss, (s, teacher, t, group) = loss_of().double(), scene()
    maps = [torch.zeros(3, 4, 8, 10), s.features[1]]
    for features, message in (
        ((), "features of as many levels of student and teacher, at least one, or feature=0"),
        (maps, "teacher features of the student's shape [3, 4, 8, 10] at level 0"),
    ):
        wrong(message, loss, replace(s, features=features), teacher, t, group=group)
    both = [replace(x, features=maps[:1]) for x in (s, teacher)]
    wrong("features of the 6 channels of its queries at level 0, got 4", loss, *both, t)
    assert loss_of(feature_region="boxes").double()(*both, t, group=group)["feature"] == 0
    bare = replace(teacher, queries=None)
    wrong("the teacher's queries for the mask of its features, got None", loss, s, bare, t)
    wrong("of 6 channels for the term relation, got 6 and None", loss_of(feature=0.0), s, bare, t)
    wrong("of 7 channels for the term relation, got 6 and 6", loss_of(projection=(7, 8)), s, teacher, t)
    wrong("expected group, the student's prediction with the teacher's queries, or", loss, s, teacher, t)
    wrong("a group of the teacher's 8 queries, got 12", loss, s, teacher, t, group=s)
    wrong("shape (2, 3, Q, 5), got [3, 3, 8, 5]", loss, s, teacher, t, group=teacher)
    assert "group_l1" in loss_of(assignment="rematch").double()(s, teacher, t, group=s)


def test_options_outside_the_known_are_named():
    for options, message in (
        (dict(detector="yolo"), "expected detector in"),
        (dict(reference="lua"), "expected reference in"),
        (dict(feature_region="all"), "expected feature_region in"),
        (dict(reference="released"), "expected projection, (256, 512) as released, or relation=0"),
        (dict(l1=-1.0), "expected a finite l1 >= 0, got -1.0"),
        (dict(pairs="none"), "expected pairs in ('pos_neg', 'all', 'positives', 'negatives'), got 'none'"),
        (dict(negative=-1.0), "expected a finite negative >= 0, got -1.0"),
        (dict(instance_weights=(1.0, 5.0)), "expected instance_weights of class, L1 and GIoU >= 0, got (1.0, 5.0)"),
        (dict(matching="yolo"), "expected matching in"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            DETRDistillLoss(**options)
    with pytest.raises(TypeError, match="DETRDistillLoss: expected options in .*, got 'temprature'"):
        DETRDistillLoss(temprature=2.0)


def test_bad_data_has_a_stated_result():
    """A label outside the classes and a broken box are as if not there; checking says where they are."""
    student, teacher, t, group = scene()
    loss = DETRDistillLoss()
    odd = replace(t, labels=t.labels.masked_fill(t.labels == 4, 5))
    few = replace(t, boxes=t.boxes.clone())
    few.boxes[0, 1] = torch.nan
    a, b = run(loss, student, teacher, odd, group), run(loss, student, teacher, few, group)
    assert all(torch.equal(a[name], b[name]) for name in (*OWN, *GROUP))
    assert all(x.isfinite() for x in b.values())
    with pydistill.checking(True), pytest.raises(ValueError, match=r"expected labels in \[0, 5\), got 5 at \[0, 1\]"):
        run(loss, student, teacher, odd, group)
