"""The costs against the matchers they come from (golden arrays) and against plain PyTorch."""

import pytest
import torch

from pydistill.ops._match_options import PRESETS
from pydistill.ops.match_cost import match_cost, match_cost_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.golden import golden

INF, NAN = float("inf"), float("nan")
TOLERANCE = {torch.float32: 6e-6, torch.float64: 1e-14}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
terms = pytest.mark.parametrize("term", ["total", "cls", "l1", "giou"])
ALONE = {
    "total": None,
    "cls": {"class": 1, "l1": 0, "giou": 0},
    "l1": {"class": 0, "l1": 1, "giou": 0},
    "giou": {"class": 0, "l1": 0, "giou": 1},
}


def arrays(name, dtype=torch.float64):
    tensors = {k: torch.from_numpy(v) for k, v in golden(name).items() if v.dtype.kind in "fib"}
    return {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()}


def padded_targets(z, labels, boxes, images, dtype):
    """What lies beyond an image's count is poison: it must not be read."""
    counts = torch.tensor([len(z[f"{labels}_{b}"]) for b in range(images)])
    most = int(counts.max())
    target_labels, target_boxes = torch.full((images, most), -7), torch.full((images, most, 4), NAN, dtype=dtype)
    for b, n in enumerate(counts):
        target_labels[b, :n], target_boxes[b, :n] = z[f"{labels}_{b}"], z[f"{boxes}_{b}"].to(dtype)
    return target_labels, target_boxes, counts


def assert_golden(cost, counts, want, tolerance):
    for b, n in enumerate(counts):
        assert (cost[b, :, n:] == INF).all()
        if want(b) is not None and n > 0:
            assert (cost[b, :, :n].double() - want(b).double()).abs().max() <= tolerance


@each_device
@each_dtype
@terms
@pytest.mark.parametrize("name, preset, classes", [("detr", "detr", 21), ("ddetr", "deformable_detr", 20)])
def test_detr_and_deformable_detr(name, preset, classes, term, dtype, device):
    z, want = arrays("detr_inputs", dtype), arrays("detr_cost_fb", dtype)
    labels, boxes, counts = padded_targets(z, "gt_labels", "gt_boxes", 3, dtype)
    inputs = [t.to(device) for t in (z["logits"][..., :classes], z["pred_boxes"], labels, boxes, counts)]
    cost = match_cost(*inputs, preset=preset, weights=ALONE[term]).cpu()
    kind = "f64" if dtype == torch.float64 else "f32"
    assert_golden(cost, counts, lambda b: want[f"{name}_{kind}_{term}_{b}"], TOLERANCE[dtype])


@each_dtype
@pytest.mark.parametrize("term", ["total", "cls"])
@pytest.mark.parametrize(
    "name, preset, classes", [("softmax", "mmdet_detr", 21), ("focal", "mmdet_deformable_detr", 20)]
)
def test_mmdet(name, preset, classes, term, dtype):
    z, want = arrays("detr_inputs", dtype), arrays("detr_cost_mmdet33", dtype)
    labels, boxes, counts = padded_targets(z, "gt_labels", "gt_boxes", 3, dtype)
    cost = match_cost(
        z["logits"][..., :classes], z["pred_boxes"], labels, boxes, counts,
        preset=preset, image_sizes=z["img_hw"], weights=ALONE[term],
    )  # fmt: skip
    kind = "f64" if dtype == torch.float64 else "f32"
    assert_golden(cost, counts, lambda b: want.get(f"mm3_{kind}_{name}_{term}_{b}"), TOLERANCE[dtype])


@each_dtype
@pytest.mark.parametrize("term, preset", [("l1_xywh", "mmdet_dino"), ("l1_xyxy", "adamixer"), ("giou", "adamixer")])
def test_mmdet_box_terms(term, preset, dtype):
    z, want = arrays("detr_inputs", dtype), arrays("detr_cost_mmdet33", dtype)
    labels, boxes, counts = padded_targets(z, "gt_labels", "gt_boxes", 3, dtype)
    cost = match_cost(
        z["logits"], z["pred_boxes"], labels, boxes, counts,
        preset=preset, image_sizes=z["img_hw"], weights=ALONE[term[:2] if term[0] == "l" else term],
    )  # fmt: skip
    kind = "f64" if dtype == torch.float64 else "f32"
    assert_golden(cost, counts, lambda b: want.get(f"mm3_{kind}_{term}_{b}"), TOLERANCE[dtype])


def test_mmdet_binary_focal():
    z = arrays("detr_cost_mmdet33", torch.float32)
    boxes = torch.rand(1, 12, 4)
    cost = match_cost(
        z["mm3_bin_scores"][None], boxes, None, boxes[:, :5],
        preset="mmdet_grounding_dino", image_sizes=torch.tensor([[480, 640]]), weights=ALONE["cls"],
        target_scores=z["mm3_bin_positive_maps"][None], token_mask=z["mm3_bin_text_token_mask"][:1] > 0,
    )  # fmt: skip
    assert relative_error(cost[0], z["mm3_bin_focal"]) < 1e-6


def distillation(dtype=torch.float64):
    z = arrays("detr_distill", dtype)
    student = z["dd_student_logits"], z["dd_student_boxes"]
    options = {
        "target_scores": z["dd_teacher_logits"].sigmoid(),
        "image_sizes": z["dd_img_hw"],
        "preset": "detrdistill",
    }
    return z, student, z["dd_teacher_boxes"], options


def test_detrdistill_teacher_targets():
    z, student, teacher_boxes, options = distillation()
    cost = match_cost(*student, None, teacher_boxes, **options)
    for layer in range(3):
        for b in range(2):
            # the reference computes its class term in float32
            assert (cost[layer, b] - z[f"dd_cost_{layer}_{b}"]).abs().max() < 2e-6
    only_class = match_cost(*student, None, teacher_boxes, weights=ALONE["cls"], **options)
    assert (only_class[0, 0] - z["dd_costcls_0_0"]).abs().max() < 2e-6


def test_detrdistill_ground_truth_targets():
    z, student, _, _ = distillation()
    counts = torch.tensor([5, 3])
    sizes = z["dd_img_hw"]
    labels, boxes = torch.zeros(2, 5).long(), torch.zeros(2, 5, 4, dtype=torch.float64)
    for b, n in enumerate(counts):
        pixels = z[f"dd_gt_boxes_{b}"] / sizes[b].flip(0).repeat(2)
        labels[b, :n] = z[f"dd_gt_labels_{b}"]
        boxes[b, :n] = torch.cat([0.5 * (pixels[:, :2] + pixels[:, 2:]), pixels[:, 2:] - pixels[:, :2]], 1)
    cost = match_cost(*student, labels, boxes, counts, preset="mmdet_deformable_detr", image_sizes=sizes)
    for layer in range(3):
        assert_golden(cost[layer], counts, lambda b: z[f"dd_gtcost_{layer}_{b}"], 1e-12)  # noqa: B023


def inputs(*leading, queries=7, targets=5, classes=6, per_layer=False, scores=False, padding=True):
    """Queries and targets that overlap; one box of each is not proper, the last target's label is unknown."""

    def make(rng):
        images = leading[-1:]
        where = leading if per_layer else images
        logits = 2 * torch.randn(*leading, queries, classes, generator=rng, dtype=torch.float64)
        boxes = 0.2 + 0.6 * torch.rand(*leading, queries, 4, generator=rng, dtype=torch.float64)
        target_boxes = 0.2 + 0.6 * torch.rand(*where, targets, 4, generator=rng, dtype=torch.float64)
        labels = torch.randint(0, classes, (*where, targets), generator=rng)
        counts = torch.randint(-1, targets + 3, where, generator=rng) if padding else None
        if boxes.numel():
            boxes[..., 0, 2] = -0.1
        if target_boxes.numel():
            target_boxes[..., 1, 3] = INF
            labels[..., -1] = classes
        sizes = torch.randint(100, 900, (*images, 2), generator=rng).double()
        soft = torch.rand(*where, targets, classes, generator=rng, dtype=torch.float64) if scores else None
        mask = torch.rand(*images, classes, generator=rng) < 0.7 if scores else None
        return [logits, boxes, labels, target_boxes, counts, sizes, soft, mask]

    return make


def positional(function):
    def call(logits, boxes, labels, target_boxes, counts, sizes, scores, mask, **kwargs):
        kwargs = {**kwargs, "image_sizes": sizes, "target_scores": scores, "token_mask": mask}  # compiles in torch 2.6
        return function(logits, boxes, labels, target_boxes, counts, **kwargs)

    return call


def call(counts=None, labels=None, **kwargs):
    labels = torch.zeros(2, 5).long() if labels is None else labels
    return match_cost(torch.rand(2, 7, 6), torch.rand(2, 7, 4), labels, torch.rand(2, 5, 4), counts, **kwargs)


def mistake(expected, error=ValueError, **kwargs):
    return lambda: call(**kwargs), error, f"match_cost: expected {expected}"


class TestMatchCost(Conformance):
    fn, reference = positional(match_cost), positional(match_cost_reference)
    cases = {
        "softmax": Case(inputs(3), dict(preset="detr")),
        "focal": Case(inputs(2, 3), dict(preset="mmdet_dino")),
        "many-queries": Case(inputs(2, queries=600, targets=3, classes=40), dict(preset="adamixer")),
        "many-classes": Case(inputs(2, queries=40, targets=3, classes=92), dict(preset="hf_detr")),
        "no-counts": Case(inputs(2, padding=False), dict(preset="mmdet_deformable_detr", box_format="xyxy")),
        "own-numbers": Case(inputs(2), dict(alpha=0.4, gamma=1.5, eps=1e-6, weights={"l1": 0.5}, box_format="xyxy")),
        "targets-per-layer": Case(inputs(2, 3, per_layer=True), dict(preset="rt_detr")),
        "soft-focal": Case(inputs(2, scores=True), dict(preset="hf_grounding_dino")),
        "binary-focal": Case(inputs(2, 2, queries=300, scores=True), dict(preset="mmdet_grounding_dino")),
        "distill": Case(inputs(2, 2, per_layer=True, scores=True), dict(preset="detrdistill")),
        "clamp-corners": Case(inputs(2), dict(clamp_targets=True, l1_format="xyxy")),
        "clamp-centres": Case(inputs(2), dict(clamp_targets=True, box_format="xyxy")),
        "no-class": Case(inputs(2), dict(class_cost="none")),
        "no-class-weight": Case(inputs(2), dict(weights={"class": 0.0})),
    }
    empty = Case(inputs(0, padding=False), dict(preset="detr"))
    wrong = {
        "ranks": (
            lambda: match_cost(torch.rand(3, 4), torch.rand(3, 4), None, torch.rand(1, 4)),
            ValueError,
            r"match_cost: expected logits \(..., B, Q, C\) and boxes \(..., B, Q, 4\), got \[3, 4\] and \[3, 4\]",
        ),
        "labels": (
            lambda: match_cost(torch.rand(2, 7, 6), torch.rand(2, 7, 4), None, torch.rand(2, 5, 4)),
            ValueError,
            "match_cost: expected target_labels with class_cost focal, got None",
        ),
        "preset": mistake("preset to be one of detr, .*, got x", preset="x"),
        "class-cost": mistake("class_cost to be one of focal, .*, got x", class_cost="x"),
        "weights": mistake("weights of class, l1, giou, mask, dice, got box", weights={"box": 1}),
        "no-weights": mistake("weights as a mapping, got list", TypeError, weights=[]),
        "formats": mistake("box_format to be cxcywh or xyxy, got xywh", box_format="xywh"),
        "l1": mistake("l1_format to be one of cxcywh, xyxy, got xywh", l1_format="xywh"),
        "pixels": mistake("image_sizes, .*, got None", preset="mmdet_detr"),
        "scores": mistake("target_scores with class_cost soft_bce, got None", class_cost="soft_bce"),
        "no-scores": mistake(
            "no target_scores with class_cost softmax", preset="detr", target_scores=torch.rand(2, 5, 6)
        ),
        "counts": mistake(r"counts of shape \[2\] or \[2\], got \[3\]", counts=torch.zeros(3).long()),
        "label-dtype": mistake("target_labels of dtype int64, got float32", TypeError, labels=torch.zeros(2, 5)),
    }


@each_device
@pytest.mark.parametrize("preset", [name for name, o in PRESETS.items() if not o.weight("mask")])
def test_every_preset_equals_the_reference(preset, device):
    soft = PRESETS[preset].class_cost in ("binary_focal", "soft_bce")
    xs = Case(inputs(2, 3, scores=soft)).inputs("cpu", torch.float64)
    want = positional(match_cost_reference)(*xs, preset=preset)
    got = positional(match_cost)(*[x if x is None else x.to(device) for x in xs], preset=preset)
    assert_close(got, want, 1e-13)


@each_device
def test_faults_stay_in_their_row_or_column(device):
    logits, boxes, labels, target_boxes, *_ = Case(inputs(1, padding=False)).inputs(device, torch.float32)
    boxes, target_boxes, labels = boxes.abs(), target_boxes.clamp_max(1), labels.clamp_max(5)
    want = match_cost(logits, boxes, labels, target_boxes)
    assert want.isfinite().all()
    logits[0, 1, 2], boxes[0, 2, 0], boxes[0, 3, 3] = NAN, NAN, -0.5
    labels[0, 4], target_boxes[0, 3, 0], labels[0, 0] = -1, INF, 2
    want[0, :, 0] = match_cost(logits, boxes, labels, target_boxes)[0, :, 0]
    got = match_cost(logits, boxes, labels, target_boxes)[0]
    assert (got[2:4] == INF).all() and (got[:, 3:] == INF).all()
    assert got[1, 0].isnan() and (got[1, :3].isnan() == (labels[0, :3] == 2)).all()
    assert torch.equal(got[[0, 4, 5, 6]][:, :3], want[0, [0, 4, 5, 6]][:, :3])


@each_device
@pytest.mark.parametrize("class_cost", ["focal", "softmax"])
def test_without_classes_no_label_is_known(class_cost, device):
    logits, boxes, labels, target_boxes, *_ = Case(inputs(2, classes=1)).inputs(device, torch.float32)
    cost = match_cost(logits[..., :0], boxes, labels, target_boxes, class_cost=class_cost)
    assert cost.shape == (2, 7, 5) and (cost == INF).all()


def test_is_the_transposed_view_of_one_block():
    cost = call()
    assert cost.shape == (2, 7, 5) and cost.transpose(1, 2).is_contiguous()


def test_half_logits_with_float_boxes_are_computed_in_float():
    xs = Case(inputs(2)).inputs("cpu", torch.float32)
    half = [xs[0].half(), *xs[1:]]
    assert torch.equal(positional(match_cost)(*half), positional(match_cost)(xs[0].half().float(), *xs[1:]))
