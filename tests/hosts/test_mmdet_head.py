"""mmdetection's LD head and ours: the same maps, the same training, and the configs of the manual."""

import re
from pathlib import Path

import pytest
import torch

from pydistill.benchmarks import ld_eager
from tests.conformance import relative_error
from tests.hosts.mmdet_here import MODELS, Config, DetDataSample, InstanceData, dense_heads, mmdet
from tests.hosts.test_mmdet_boxes import SIZES, STRIDES, random_boxes

CLASSES, BINS = 5, 17
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "mmdet.md").read_text()
PROGRAMS = [x for x in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "-detr" not in x]
TINY_BACKBONE = dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
TINY_NECK = dict(in_channels=[8, 16, 32, 64], out_channels=16)
TINY_HEAD = dict(
    num_classes=CLASSES, in_channels=16, feat_channels=16, stacked_convs=1,
    norm_cfg=dict(type="GN", num_groups=4, requires_grad=True),
)  # fmt: skip


def head_config(kind, **options):
    return dict(
        type=kind,
        num_classes=CLASSES,
        in_channels=8,
        stacked_convs=0,
        reg_max=BINS - 1,
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES
        ),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        loss_ld=dict(type="KnowledgeDistillationKLDivLoss", loss_weight=0.25, T=10),
        train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1),
        **options,
    )


def wide_targets(self, *args, **kwargs):
    """Targets in float64: mmdetection's are float32 whatever its inputs are."""
    anchors, labels, *others, count = dense_heads.GFLHead.get_targets(self, *args, **kwargs)
    return [x.double() for x in anchors], labels, *([x.double() for x in part] for part in others), count


class WideLDHead(dense_heads.LDHead):
    get_targets = wide_targets


def maps(seed, images=3):
    rng = torch.Generator().manual_seed(seed)
    made = [
        [torch.randn(images, c, *size, generator=rng, dtype=torch.float64) for size in SIZES]
        for c in (CLASSES, 4 * BINS, CLASSES, 4 * BINS)
    ]
    for x in (*made[0], *made[1]):
        x.requires_grad_()
    return made


def objects(counts=(4, 0, 7), seed=0):
    rng = torch.Generator().manual_seed(seed)
    found = []
    for i, count in enumerate(counts):
        boxes = (random_boxes(count, seed * 100 + i) * 16).round().float() / 16  # float32, as mmdet asks
        found.append(InstanceData(bboxes=boxes, labels=torch.randint(0, CLASSES, (count,), generator=rng)))
    return found


META = dict(img_shape=(160, 192), pad_shape=(160, 192))


@pytest.mark.parametrize("counts", [(4, 0, 7), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("img_shape", [(160, 192), (130, 140)], ids=str)
def test_head_is_mmdets(counts, img_shape):
    """Value of each term and gradient of each map; anchors outside a smaller picture are not valid."""
    meta = dict(img_shape=img_shape, pad_shape=img_shape)
    theirs = WideLDHead(**{k: v for k, v in head_config("").items() if k != "type"})
    ours = MODELS.build(head_config("pydistill.LDHead", reference="mmdet"))
    results = []
    for head in (theirs, ours):
        scores, sides, _, soft = maps(1)
        terms = head.loss_by_feat(scores, sides, objects(counts), [meta] * 3, soft)
        terms = {name: sum(x) if isinstance(x, list) else x for name, x in terms.items()}
        gradients = torch.autograd.grad(sum(terms.values()), [*scores, *sides])
        results.append((terms, torch.cat([g.flatten() for g in gradients])))
    (want, want_gradient), (got, gradient) = results
    assert got.keys() == want.keys() == {"loss_cls", "loss_bbox", "loss_dfl", "loss_ld"}
    for name in want:
        assert relative_error(got[name], want[name]) < 1e-9, name
    assert relative_error(gradient, want_gradient) < 1e-9


def test_whole_objective():
    """All terms are there, have gradients, and say what they miss."""
    head = MODELS.build(head_config("pydistill.LDHead", loss_im=dict(loss_weight=2.0), imitation_method="finegrained"))
    scores, sides, teacher_scores, soft = maps(2)
    rng = torch.Generator().manual_seed(5)
    features = [
        [torch.randn(3, 8, *size, generator=rng, dtype=torch.float64).requires_grad_() for size in SIZES]
        for _ in range(2)
    ]
    inputs = (scores, sides, objects(), [META] * 3, soft)
    terms = head.loss_by_feat(*inputs, teacher_scores=teacher_scores, features=tuple(features))
    names = {"loss_cls", "loss_bbox", "loss_dfl", "loss_ld", "loss_ld_vlr", "loss_kd", "loss_im"}
    assert terms.keys() == names
    assert all(term.item() > 0 for term in terms.values())
    sum(terms.values()).backward()
    assert all(x.grad is not None for x in (*scores, *sides, *features[0])) and features[1][0].grad is None
    with pytest.raises(ValueError, match="expected the teacher's class logits for loss_kd, got none"):
        head.loss_by_feat(*inputs)
    with pytest.raises(ValueError, match="expected the teacher's feature maps for loss_im"):
        head.loss_by_feat(*inputs, teacher_scores=teacher_scores)


def test_options_are_the_released_codes():
    """The weights of the released configuration give the loss that its arithmetic gives."""
    kl = "pydistill.KnowledgeDistillationKLDivLoss"
    head = MODELS.build(
        head_config(
            "pydistill.LDHead",
            reference="released",
            loss_ld_vlr=dict(type=kl, loss_weight=0.25, T=10),
            loss_kd=dict(type=kl, loss_weight=10, T=2),
            loss_im=dict(type="IMLoss", loss_weight=2.0),
            imitation_method="finegrained",
        )
    )
    scores, sides, teacher_scores, soft = maps(3)
    rng = torch.Generator().manual_seed(5)
    features = [[torch.randn(3, 8, *s, generator=rng, dtype=torch.float64) for s in SIZES] for _ in range(2)]
    images = objects((4, 1, 7))
    terms = head.loss_by_feat(
        scores, sides, images, [META] * 3, soft, teacher_scores=teacher_scores, features=tuple(features)
    )
    anchors = torch.cat(head.prior_generator.grid_priors(SIZES, device="cpu")).double()
    boxes = [image.bboxes.double() for image in images]
    everything = (scores, sides, teacher_scores, soft, *features)
    want = ld_eager.step(everything, anchors, STRIDES, boxes, [image.labels for image in images])
    assert relative_error(sum(terms.values()).detach(), want.detach()) < 1e-6  # the regions are of float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(loss_bbox=dict(type="DIoULoss")), "expected loss_bbox GIoULoss, got DIoULoss"),
        (dict(loss_cls=dict(type="QualityFocalLoss", beta=1.0)), "expected beta of loss_cls 2.0, got 1.0"),
        (dict(loss_kd=dict(type="MSELoss")), "expected type of loss_kd KnowledgeDistillationKLDivLoss, got MSELoss"),
        (dict(loss_ld_vlr=dict(type="KnowledgeDistillationKLDivLoss", T=5)), "expected one T for all of LD"),
        (
            dict(train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=5), allowed_border=-1, pos_weight=-1)),
            "expected topk of the assigner 9, got 5",
        ),
    ],
)
def test_what_the_objective_lacks_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**head_config("pydistill.LDHead"), **options})


def tiny(config):
    """The model of a config with a small backbone, and a small teacher if it has one."""
    model = config.model
    model.backbone.update(TINY_BACKBONE)
    model.neck.update(TINY_NECK)
    model.bbox_head.update(TINY_HEAD)
    if "teacher_config" in model:
        teacher = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs/gfl/gfl_r50_fpn_1x_coco.py")
        model.update(teacher_config=dict(model=tiny(teacher)), teacher_ckpt=None)
    return model


def detector(model, seed=0):
    torch.manual_seed(seed)
    made = MODELS.build(model)
    made.init_weights()
    made.train()  # gives back None
    return made


def batch(seed, size=64):
    rng = torch.Generator().manual_seed(seed)
    samples = []
    for count in (3, 2):
        corner = 30 * torch.rand(count, 2, generator=rng)
        extent = 12 + 20 * torch.rand(count, 2, generator=rng)
        boxes = torch.cat([corner, corner + extent], 1)
        sample = DetDataSample(
            metainfo=dict(img_shape=(size, size), pad_shape=(size, size), batch_input_shape=(size,) * 2)
        )
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(0, CLASSES, (count,), generator=rng))
        samples.append(sample)
    return torch.randn(2, 3, size, size, generator=rng), samples


def total(terms):
    return sum(sum(x) if isinstance(x, list) else x for x in terms.values())


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_config_of_the_manual(number, tmp_path):
    path = tmp_path / "config.py"
    path.write_text(PROGRAMS[number])
    model = detector(tiny(Config.fromfile(path)))
    terms = model.loss(*batch(0))
    total(terms).backward()
    grown = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"bbox_head.gfl_cls.weight", "bbox_head.gfl_reg.weight", "neck.lateral_convs.0.conv.weight"} <= grown
    extra = [{"loss_ld", "loss_ld_vlr", "loss_kd"}, {"loss_ld", "loss_ld_vlr", "loss_kd", "loss_im"}, set()][number]
    assert terms.keys() == {"loss_cls", "loss_bbox", "loss_dfl"} | extra
    assert not any("teacher" in key for key in model.state_dict())


def test_training_is_mmdets(tmp_path, monkeypatch):
    """A hundred steps of mmdetection's LD detector from one seed: the same curve with their head and ours.

    In float64: in float32 a change of the weights by 1e-6 moves the curve by a tenth within as many steps.
    """

    def forward_single(self, x, scale):  # GFLHead's, which rounds the sides to float32
        sides = x
        for layer in self.cls_convs:
            x = layer(x)
        for layer in self.reg_convs:
            sides = layer(sides)
        return self.gfl_cls(x), scale(self.gfl_reg(sides))

    monkeypatch.setattr(dense_heads.GFLHead, "forward_single", forward_single)
    monkeypatch.setattr(dense_heads.LDHead, "get_targets", wide_targets)
    path = tmp_path / "config.py"
    path.write_text(PROGRAMS[0])
    batches = [batch(seed) for seed in range(4)]
    curves = []
    for kind in ("LDHead", "pydistill.LDHead"):
        config = Config.fromfile(path)
        config.model.type = "KnowledgeDistillationSingleStageDetector"
        config.model.bbox_head.type = kind
        if kind != "LDHead":
            config.model.bbox_head.reference = "mmdet"
        model = detector(tiny(config)).double()
        model.teacher_model.double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        curve = []
        for step in range(100):
            pictures, samples = batches[step % 4]
            loss = total(model.loss(pictures.double(), samples))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.detach())
        curves.append(torch.stack(curve))
    theirs, ours = curves
    assert theirs[-4:].mean() < 0.8 * theirs[:4].mean()  # it learns
    assert ((ours - theirs) / theirs).abs().max() < 1e-4
