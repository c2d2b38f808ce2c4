"""mmdetection's matching of DETR against ours: costs, assignments, the terms of the heads, and training."""

import re
from pathlib import Path

import pytest
import torch

from tests.conformance import relative_error
from tests.hosts.mmdet_here import MODELS, TASK_UTILS, Config, InstanceData, mmdet, register_all_modules
from tests.hosts.test_mmdet_boxes import random_boxes
from tests.hosts.test_mmdet_head import CLASSES, PAGE, batch, detector, total

META = dict(img_shape=(160, 192))
FOCAL = [
    dict(type="FocalLossCost", weight=2.0),
    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
    dict(type="IoUCost", iou_mode="giou", weight=2.0),
]
SOFTMAX = [dict(type="ClassificationCost"), *FOCAL[1:]]
SPARSE = [FOCAL[0], dict(type="BBoxL1Cost", weight=5.0), FOCAL[2]]
TEXT = [dict(type="BinaryFocalLossCost", weight=2.0), *FOCAL[1:]]
MASKS = [
    dict(type="ClassificationCost", weight=2.0),
    dict(type="CrossEntropyLossCost", weight=5.0),
    dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
]
FOCAL_MASKS = [FOCAL[0], dict(type="FocalLossCost", binary_input=True, weight=20.0), MASKS[2]]
PLAIN_IOU = [*FOCAL[:2], dict(type="IoUCost", iou_mode="iou", weight=2.0)]
PROBABILITIES = [FOCAL[0], dict(type="DiceCost", naive_dice=False)]
COSTS = dict(
    focal=FOCAL, softmax=SOFTMAX, sparse=SPARSE, text=TEXT, masks=MASKS, focal_masks=FOCAL_MASKS, iou=PLAIN_IOU,
    probabilities=PROBABILITIES, twice=[*FOCAL, SPARSE[1]], foreign=[dict(type="mmdet.FocalLossCost"), *FOCAL[1:]],
)  # fmt: skip
FLOAT = {"text", "masks", "focal_masks", "probabilities"}  # mmdetection makes these targets float32
APART = {"iou", "probabilities", "twice", "foreign"}  # more than one call


def image(seed, queries=30, objects=7, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    count = (queries, objects)
    logits = 3 * torch.randn(queries, CLASSES, generator=rng, dtype=dtype)
    masks = [torch.randn(n, 5, 6, generator=rng, dtype=dtype) for n in count]
    boxes = [random_boxes(n, 2 * seed + i, dtype=dtype) for i, n in enumerate(count)]
    text = torch.arange(CLASSES) < CLASSES - 1
    positive = torch.rand(objects, CLASSES, generator=rng, dtype=dtype) * text
    labels = torch.randint(0, CLASSES, (objects,), generator=rng)
    gt = InstanceData(
        bboxes=boxes[1], labels=labels, masks=(masks[1] > 0).long(), positive_maps=positive,
        text_token_mask=text.repeat(objects, 1),
    )  # fmt: skip
    return InstanceData(scores=logits, bboxes=boxes[0], masks=masks[0]), gt


def activated(costs, pred):
    return InstanceData(**{**dict(pred.items()), "masks": pred.masks.sigmoid()}) if costs is PROBABILITIES else pred


def both(config, **options):
    return (
        TASK_UTILS.build({**config, "type": f"{prefix}{config['type']}", **options}) for prefix in ("", "pydistill.")
    )


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_mmdets(name):
    dtype, most = (torch.float32, 1e-5) if name in FLOAT else (torch.float64, 1e-12)
    for config in COSTS[name]:
        if "." in config["type"]:
            continue
        for seed in range(3):
            pred, gt = image(seed, dtype=dtype)
            pred = activated(COSTS[name], pred)
            want, got = (cost(pred_instances=pred, gt_instances=gt, img_meta=META) for cost in both(config))
            assert got.shape == (30, 7) and relative_error(got, want) < most, config


@pytest.mark.parametrize("name", COSTS)
def test_assignments_are_mmdets(name):
    """The same indices, with more queries than objects and with fewer, and with one of them absent."""
    config = dict(type="HungarianAssigner", match_costs=COSTS[name])
    theirs, ours = both(config)
    assert (ours.options is None) == (name in APART)
    for seed in range(40):
        dtype = torch.float32 if seed % 2 or name in FLOAT else torch.float64
        pred, gt = image(seed, *[(30, 7), (100, 20), (5, 9), (6, 0)][seed % 4], dtype=dtype)
        pred = activated(COSTS[name], pred)
        want, got = (assigner.assign(pred, gt, img_meta=META) for assigner in (theirs, ours))
        assert got.num_gts == want.num_gts and got.max_overlaps is None
        assert got.gt_inds.equal(want.gt_inds) and got.labels.equal(want.labels), seed


@pytest.mark.parametrize("name", ["focal", "twice"])
def test_costs_that_are_not_finite(name):
    config = dict(type="HungarianAssigner", match_costs=COSTS[name])
    pred, gt = image(0)
    pred.scores[3] = torch.nan
    for assigner in both(config):
        with pytest.raises(ValueError, match="invalid numeric entries"):
            assigner.assign(pred, gt, img_meta=META)
    _, ours = both(config)
    got = TASK_UTILS.build(dict(config, type="pydistill.HungarianAssigner", nonfinite="forbid"))
    index = got.assign(pred, gt, img_meta=META).gt_inds
    keep = torch.arange(30) != 3
    assert index[3] == 0 and index[keep].equal(ours.assign(pred[keep], gt, img_meta=META).gt_inds)


def test_what_the_assigner_lacks_is_refused():
    for config, message in (
        (dict(match_costs=[]), "expected one or more match_costs, got none"),
        (dict(match_costs=dict(type="BBoxL1Cost", box_format="cxcywh")), 'expected box_format "xyxy" or "xywh"'),
        (dict(match_costs=dict(type="CrossEntropyLossCost", use_sigmoid=False)), "expected use_sigmoid=True"),
    ):
        with pytest.raises(ValueError, match=message):
            TASK_UTILS.build(dict(type="pydistill.HungarianAssigner", **config))


CROSS_ENTROPY = dict(
    type="CrossEntropyLoss", bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0
)  # fmt: skip
FOCAL_LOSS = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
QUALITY = dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0)


def head(kind, costs, loss):
    config = dict(type=kind, num_classes=CLASSES, embed_dims=8, loss_cls=dict(loss), sync_cls_avg_factor=False)
    config.update(train_cfg=dict(assigner=dict(type="HungarianAssigner", match_costs=costs)))
    return MODELS.build(config)


@pytest.mark.parametrize("counts", [(4, 0, 7), (0, 0, 0), (12, 1, 2)], ids=str)
@pytest.mark.parametrize(
    ("kind", "costs", "loss"),
    [
        ("DETRHead", SOFTMAX, CROSS_ENTROPY),
        ("DeformableDETRHead", FOCAL, FOCAL_LOSS),
        ("DeformableDETRHead", COSTS["twice"], FOCAL_LOSS),
        ("ConditionalDETRHead", FOCAL, QUALITY),
        ("DABDETRHead", FOCAL, FOCAL_LOSS),
        ("DINOHead", FOCAL, QUALITY),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_heads_are_mmdets(kind, costs, loss, counts):
    """Each term of each layer and the gradient of all predictions; of two-stage detectors, the proposals' terms."""
    layers, queries, denoising = 3, 10, 4 if kind == "DINOHead" else 0
    metas = [dict(img_shape=size) for size in ((160, 192), (100, 192), (160, 130))]
    results = []
    for prefix in ("", "pydistill."):
        made = head(prefix + kind, costs, loss)
        rng = torch.Generator().manual_seed(1)
        shape = (layers, 3, denoising + queries)
        scores = torch.randn(*shape, made.cls_out_channels, generator=rng, dtype=torch.float64)
        boxes = torch.rand(*shape, 4, generator=rng, dtype=torch.float64) * 0.5 + 0.1
        inputs = [scores, boxes]
        if kind in ("DeformableDETRHead", "DINOHead"):
            inputs += [scores[0, :, denoising:].flip(1).clone(), boxes[0, :, denoising:].flip(1).clone()]
        inputs = [x.requires_grad_() for x in inputs]
        objects = [
            InstanceData(
                bboxes=random_boxes(n, i, high=60.0), labels=torch.randint(0, CLASSES, (n,), generator=rng)
            )
            for i, n in enumerate(counts)
        ]  # fmt: skip
        extra = (dict(num_denoising_queries=denoising, num_denoising_groups=1),) if denoising else ()
        if denoising:
            made.loss_dn = lambda *args, **kwargs: [[x.new_zeros(())] * layers for x in args[0][0, :, :3, 0]]
        terms = made.loss_by_feat(*inputs, objects, metas, *extra)
        gradients = torch.autograd.grad(sum(terms.values()), inputs)
        results.append((terms, torch.cat([g.flatten() for g in gradients])))
    (want, want_gradient), (got, gradient) = results
    assert list(got) == list(want)
    for name in want:
        assert relative_error(got[name].detach(), want[name].detach()) < 1e-9, name
    assert relative_error(gradient, want_gradient) < 1e-9


PROGRAM = next(x for x in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "-detr" in x)


def tiny(config):
    model = config.model
    model.num_queries = 12
    model.backbone.update(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
    model.neck.update(in_channels=[16, 32, 64], out_channels=16, norm_cfg=dict(type="GN", num_groups=4))
    for part in (model.encoder, model.decoder):
        part.num_layers = 2
        for name, layer in part.layer_cfg.items():
            layer.update(dict(feedforward_channels=32) if name == "ffn_cfg" else dict(num_heads=4))
            layer.update(embed_dims=16, **(dict(ffn_drop=0.0) if name == "ffn_cfg" else dict(dropout=0.0)))
    model.positional_encoding.num_feats = 8
    model.bbox_head.update(num_classes=CLASSES, embed_dims=16)
    return detector(model).double()


@pytest.fixture
def wide():
    """float64 for what mmdetection makes itself; on one thread, because small layers are slower on two."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


def test_training_is_mmdets(wide, tmp_path):
    """A hundred steps of Deformable DETR from one seed, with the manual's config and its base: the same curve."""
    register_all_modules(init_default_scope=True)
    path = tmp_path / "config.py"
    path.write_text(PROGRAM)
    base = re.search(r"mmdet::(.*?)\"", PROGRAM)[1]
    curves = []
    for source, head_type in (
        (Path(mmdet.__file__).parent / ".mim/configs" / base, "DeformableDETRHead"),
        (path, "pydistill.DeformableDETRHead"),
    ):
        config = Config.fromfile(source)
        assert config.model.bbox_head.type == head_type
        model = tiny(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        curve = []
        for step in range(100):
            pictures, samples = batch(step % 4)
            terms = model.loss(pictures, samples)
            loss = total(terms)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.detach())
        assert len(terms) == 6
        curves.append(torch.stack(curve))
    theirs, ours = curves
    assert theirs[-4:].mean() < 0.9 * theirs[:4].mean()  # it learns
    assert ((ours - theirs) / theirs).abs().max() < 1e-4
