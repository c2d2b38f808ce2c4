"""The whole LD step, forward and backward: GFL's own terms, main and VLR LD, main KD and imitation, 2 images.

Peers: PyTorch as one writes it (``ld_eager``) and, where mmdetection is installed, its LDHead for the terms that it has
and ``ld_eager`` for the others. ``PYDISTILL_BENCH_COMPILED=1`` adds the former compiled: picking rows breaks the graph
at each level, so that compiling takes minutes, and then the step is no faster. Operations are not counted.
"""

import os

import pytest
import torch

from pydistill.benchmarks import ld_eager
from pydistill.benchmarks.cases import contenders, sides
from pydistill.losses import DensePrediction, LDLoss

STRIDES = [8, 16, 32, 64, 128]
SHAPES = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]  # of a picture of 800 x 1344 pixels: 22400 anchors
IMAGES, CLASSES, CHANNELS, BINS, OBJECTS = 2, 80, 256, 17, 7


def scene(device, shapes):
    """Maps of student and teacher, anchors, and 7 objects an image of the sizes that COCO has."""
    rng = torch.Generator().manual_seed(0)

    def maps(channels, scale, bias=0.0, grad=False):
        made = [(bias + scale * torch.randn(IMAGES, channels, *s, generator=rng)).to(device) for s in shapes]
        return [x.requires_grad_() for x in made] if grad else made

    heads = (
        maps(CLASSES, 1.0, -4.0, grad=True), maps(4 * BINS, 1.0, grad=True),
        maps(CLASSES, 1.0, -4.0), maps(4 * BINS, 1.0),
        maps(CHANNELS, 1.0, grad=True), maps(CHANNELS, 1.0),
    )  # fmt: skip
    anchors = []
    for (h, w), stride in zip(shapes, STRIDES):
        y, x = torch.meshgrid(torch.arange(h) * stride, torch.arange(w) * stride, indexing="ij")
        centre = torch.stack([x, y], -1).reshape(-1, 2).float()
        anchors.append(torch.cat([centre - 4 * stride, centre + 4 * stride], 1))
    size = torch.exp(3 + 2.5 * torch.rand(IMAGES, OBJECTS, 2, generator=rng))  # 20 to 245 pixels
    picture = 8 * torch.tensor([shapes[0][1], shapes[0][0]])
    centre = torch.rand(IMAGES, OBJECTS, 2, generator=rng) * picture
    boxes = torch.cat([centre - size / 2, centre + size / 2], -1).to(device)
    labels = torch.randint(0, CLASSES, (IMAGES, OBJECTS), generator=rng).to(device)
    return heads, torch.cat(anchors).to(device), boxes, labels


def fused(device, shapes):
    """Our loss as a function of the maps."""
    loss = LDLoss(STRIDES, reference="released", imitation=2.0, imitation_region="fine_grained").to(device)
    counts = torch.full((IMAGES,), OBJECTS, device=device)
    sizes = [h * w for h, w in shapes]

    def run(maps, anchors, boxes, labels):
        student, teacher = (DensePrediction.from_levels(*x) for x in (maps[:2], maps[2:4]))
        terms = loss(student, teacher, anchors, sizes, boxes, labels, counts, features=maps[4:])
        return torch.stack([*terms.values()]).sum()

    return run


def mmdetection(shapes):
    """mmdetection's LDHead where it has the terms, the other terms in plain PyTorch."""
    from tests.hosts.mmdet_here import MODELS, InstanceData

    head = MODELS.build(
        dict(
            type="LDHead", num_classes=CLASSES, in_channels=8, feat_channels=32, stacked_convs=1,
            anchor_generator=dict(
                type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES
            ),
            loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
            loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
            loss_ld=dict(type="KnowledgeDistillationKLDivLoss", loss_weight=0.25, T=10),
            train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1),
        )
    )  # fmt: skip
    picture = tuple(8 * side for side in shapes[0])
    meta = dict(img_shape=picture, pad_shape=picture)

    def run(maps, anchors, boxes, labels):
        objects = [InstanceData(bboxes=b, labels=c) for b, c in zip(boxes, labels)]
        terms = head.loss_by_feat(maps[0], maps[1], objects, [meta] * IMAGES, maps[3])
        levels, _ = ld_eager.levels_of(maps, anchors, STRIDES, [*boxes], [*labels])
        vlr, kd, imitation = (torch.stack(x).sum() for x in zip(*map(ld_eager.extra_terms, levels)))
        return sum(sum(parts) for parts in terms.values()) + 0.25 * vlr + 10 * kd + 2 * imitation

    return run


def eager(maps, anchors, boxes, labels):
    return ld_eager.step(maps, anchors, STRIDES, [*boxes], [*labels])


def peers(shapes):
    """mmdetection, or nothing where it is not installed."""
    try:
        return {"mmdet": mmdetection(shapes)}
    except (ImportError, pytest.skip.Exception):
        return {}


def test_step(compare, device, scale):
    shapes = [sides(scale, *shape) for shape in SHAPES]
    inputs = scene(device, shapes)
    compiled = bool(os.environ.get("PYDISTILL_BENCH_COMPILED"))
    numbers = sum(x.numel() * (1 + x.requires_grad) for part in inputs[0] for x in part)
    compare(
        **contenders(fused(device, shapes), eager, *inputs, compiled=compiled, **peers(shapes)),
        bytes_moved=4 * numbers,
    )
