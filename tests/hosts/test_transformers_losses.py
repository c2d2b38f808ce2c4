"""Losses for transformers' detectors have transformers' numbers: loss, terms, gradients, other stages."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pydistill.hosts import transformers as ours
from pydistill.losses.detr.prediction import SetTargets
from pydistill.ops import pack_targets
from tests.conformance import NoCopies
from tests.hosts.detections import objects, predictions

pytest.importorskip("transformers", reason="needs pip install transformers")
CLASSES, BINS = 7, 8
CONFIG = SimpleNamespace(
    auxiliary_loss=True, num_labels=CLASSES, decoder_layers=3, group_detr=3,
    class_cost=1.0, bbox_cost=5.0, giou_cost=2.0, bbox_loss_coefficient=5.0, giou_loss_coefficient=2.0,
    class_loss_coefficient=1.5, eos_coefficient=0.1, focal_alpha=0.25, focal_loss_alpha=0.75, focal_loss_gamma=2.0,
    matcher_class_cost=2.0, matcher_bbox_cost=5.0, matcher_giou_cost=2.0, use_focal_loss=True,
    matcher_alpha=0.25, matcher_gamma=2.0, weight_loss_vfl=1.0, weight_loss_bbox=5.0, weight_loss_giou=2.0,
    weight_loss_fgl=0.15, weight_loss_ddf=1.5, max_num_bins=BINS, reg_scale=4.0, up=0.5,
)  # fmt: skip
FAMILIES = {
    "detr": ("loss_for_object_detection", "ForObjectDetectionLoss", ours.detr_loss),
    "deformable_detr": ("loss_deformable_detr", "DeformableDetrForObjectDetectionLoss", ours.deformable_detr_loss),
    "lw_detr": ("loss_lw_detr", "LwDetrForObjectDetectionLoss", ours.lw_detr_loss),
    "rt_detr": ("loss_rt_detr", "RTDetrForObjectDetectionLoss", ours.rt_detr_loss),
    "d_fine": ("loss_d_fine", "DFineForObjectDetectionLoss", ours.d_fine_loss),
}
OF_CLASSES = ("outputs_class", "enc_outputs_class", "enc_topk_logits")


def theirs(family):
    module, name, _ = FAMILIES[family]
    return getattr(importlib.import_module(f"transformers.loss.{module}"), name)


def denoised(counts, groups):
    """Where transformers' denoising queries have targets: in each group the positive ones, then as many negative."""
    most = max(counts)
    positive = [
        torch.cat([torch.arange(n) + 2 * most * g for g in range(groups)]) if n else torch.zeros(0, dtype=torch.long)
        for n in counts
    ]
    return {"dn_positive_idx": positive, "dn_num_group": groups}, 2 * most * groups


def handed_over(family, counts=(3, 0, 5), queries=12, layers=3, denoising=False, dtype=torch.float64, seed=0):
    """What a model of the family hands its loss over, as leaves."""
    targets = objects(counts, CLASSES, seed, dtype=dtype)
    rt, extra = family in ("rt_detr", "d_fine"), {}
    classes = CLASSES + (family == "detr")
    logits, boxes = predictions(targets, queries, classes, (layers,), seed, trained=True, dtype=dtype)
    encoder = dict(zip(("logits", "boxes"), predictions(targets, queries, classes, seed=seed + 7, dtype=dtype)))
    if denoising:
        meta, more = denoised(counts, 2)
        parts = predictions(targets, more, classes, (layers,), seed + 8, dtype=dtype)
        logits, boxes = (torch.cat(both, 2) for both in zip(parts, (logits, boxes)))
        extra["denoising_meta_values"] = {**meta, "dn_num_split": [more, queries]}
    if rt:
        logits, boxes = logits.transpose(0, 1).contiguous(), boxes.transpose(0, 1).contiguous()
        extra |= {"enc_topk_logits": encoder["logits"], "enc_topk_bboxes": encoder["boxes"]}
    if family == "lw_detr":
        extra |= {"enc_outputs_class": encoder["logits"], "enc_outputs_coord": encoder["boxes"]}
    if family == "d_fine":
        g = torch.Generator().manual_seed(seed)
        shape = boxes[:, 1:].shape  # of logits and boxes the model hands over one more: those before the first layer
        extra["predicted_corners"] = torch.randn(*shape[:-1], 4 * (BINS + 1), generator=g, dtype=dtype)
        noise = 0.05 * torch.randn(shape, generator=g, dtype=dtype)
        extra["initial_reference_points"] = (boxes[:, 1:] + noise).clamp(0.05, 1)
    outputs = {"outputs_class": logits, "outputs_coord": boxes, **extra}
    for value in outputs.values():
        if isinstance(value, torch.Tensor):
            value.requires_grad_()
    return targets, outputs


def run(loss, family, targets, outputs, config=CONFIG):
    """Loss, terms and gradients."""
    rt = family in ("rt_detr", "d_fine")
    last = [outputs[n][:, -1] if rt else outputs[n][-1] for n in ("outputs_class", "outputs_coord")]
    total, terms, auxiliary = loss(last[0], targets, torch.device("cpu"), last[1], config, **outputs)
    leaves = [t for t in outputs.values() if isinstance(t, torch.Tensor)]
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return total.detach(), {k: t.detach() for k, t in terms.items()}, auxiliary, dict(zip(outputs, gradients))


def close(a, b, tolerance):
    if a is None or b is None:
        return a is b or float((b if a is None else a).abs().max()) == 0
    return float((a.double() - b.double()).abs().max()) <= tolerance * max(float(b.double().abs().max()), 1e-6)


CASES = [(f, d) for f in FAMILIES for d in (False, True) if f in ("rt_detr", "d_fine") or not d]


def compare(family, targets, outputs, config=CONFIG, tolerance=2e-5):
    want = run(theirs(family), family, targets, outputs, config)
    got = run(FAMILIES[family][2], family, targets, outputs, config)
    assert close(got[0], want[0], tolerance)
    assert got[1].keys() == want[1].keys()
    assert not [name for name in want[1] if not close(got[1][name], want[1][name].reshape(()), tolerance)]
    assert not [name for name in want[3] if not close(got[3][name], want[3][name], tolerance)]
    if want[2] is None:
        assert got[2] is None
        return
    assert len(got[2]) == len(want[2])
    for a, b in zip(got[2], want[2]):
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert a.keys() >= {name for name, t in b.items() if t is not None}


@pytest.mark.parametrize("family, denoising", CASES)
def test_same_numbers(family, denoising):
    for seed in range(3):
        compare(family, *handed_over(family, denoising=denoising, dtype=torch.float32, seed=seed))


@pytest.mark.parametrize("family, denoising", [case for case in CASES if case[0] != "d_fine"])  # float32 inside
def test_same_numbers_in_double_precision(family, denoising):
    torch.set_default_dtype(torch.float64)  # DETR's weights of classes have it
    try:
        compare(family, *handed_over(family, denoising=denoising), tolerance=1e-11)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_stage_alone(family):
    config = SimpleNamespace(**{**vars(CONFIG), "auxiliary_loss": False})
    compare(family, *handed_over(family, dtype=torch.float32), config)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_objects(family):
    compare(family, *handed_over(family, (0, 0), dtype=torch.float32))


@pytest.mark.parametrize("queries", [4, 11])
def test_queries_left_over_in_groups(queries):
    """More objects than queries in a group, and queries that make no whole group."""
    compare("lw_detr", *handed_over("lw_detr", (6, 2), queries, dtype=torch.float32))


def test_an_encoder_with_other_queries():
    targets, outputs = handed_over("rt_detr", dtype=torch.float32)
    outputs["enc_topk_logits"], outputs["enc_topk_bboxes"] = (
        t.detach()[:, :9].contiguous().requires_grad_()
        for t in (outputs["enc_topk_logits"], outputs["enc_topk_bboxes"])
    )
    compare("rt_detr", targets, outputs)


def test_boxes_beyond_the_bins():
    """Objects far from the references: offsets below the first bin and above the last."""
    targets, outputs = handed_over("d_fine", dtype=torch.float32)
    with torch.no_grad():
        outputs["initial_reference_points"][..., 2:] *= torch.tensor([0.02, 3.0])
    compare("d_fine", targets, outputs)


def packed(targets):
    boxes, counts = pack_targets([t["boxes"] for t in targets])
    return pack_targets([t["class_labels"] for t in targets])[0], boxes, counts


@pytest.mark.parametrize("family, denoising", CASES)
def test_nothing_waits(family, denoising):
    """Labels that are packed where batches are made need no copy; forward and backward read no value on the host."""
    targets, outputs = handed_over(family, denoising=denoising, dtype=torch.float32)
    labels = SetTargets(*packed(targets))
    with NoCopies():
        want = run(FAMILIES[family][2], family, labels, outputs)
    assert torch.equal(want[0], run(FAMILIES[family][2], family, targets, outputs)[0])


def test_an_unknown_model():
    with pytest.raises(ValueError, match="loss_for: expected a model whose loss_type is one of ForObject.*, got None"):
        ours.loss_for(torch.nn.Linear(1, 1))


def fake(x):
    """The same on a GPU that need not be there."""
    if isinstance(x, dict):
        return {name: fake(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [fake(value) for value in x]
    return torch.empty(x.shape, dtype=x.dtype, device="cuda") if isinstance(x, torch.Tensor) else x


@pytest.mark.parametrize("family, denoising", CASES)
def test_stays_on_the_device(family, denoising):
    targets, outputs = handed_over(family, denoising=denoising, dtype=torch.float32)
    rt, labels = family in ("rt_detr", "d_fine"), packed(targets)
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        there, labels = fake(outputs), SetTargets(*fake(labels))
        last = [there[name].select(int(rt), -1) for name in ("outputs_class", "outputs_coord")]
        total, terms, _ = FAMILIES[family][2](last[0], labels, None, last[1], CONFIG, **there)
    assert {(t.device.type, t.ndim) for t in (total, *terms.values())} == {("cuda", 0)}
