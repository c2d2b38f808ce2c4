"""The whole LD step, forward and backward: GFL's own terms, main and VLR LD, main KD and imitation, 2 images.

Peers: PyTorch as one writes it (``ld_eager``) and, where mmdetection is installed, its LDHead for the terms that it has
and ``ld_eager`` for the others. ``PYDISTILL_BENCH_COMPILED=1`` adds the former compiled: picking rows breaks the graph
at each level, so that compiling takes minutes, and then the step is no faster. What a step allocates at its peak goes
to ``extra_info`` as ``memory_mb``; the gradients, which it returns, are ``gradients_mb`` of it.
"""

import os
from functools import partial

import pytest
import torch

from pydistill.benchmarks import ld_eager
from pydistill.losses import DensePrediction, LDLoss

STRIDES = [8, 16, 32, 64, 128]
SHAPES = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]  # of a picture of 800 x 1344 pixels: 22400 anchors
IMAGES, CLASSES, CHANNELS, BINS, OBJECTS = 2, 80, 256, 17, 7


def peak_memory(run) -> float:
    """MB allocated at the peak of ``run`` beyond what was allocated before, as the allocators report it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak / 2**20


def scene(device):
    """Maps of student and teacher, anchors, and 7 objects an image of the sizes that COCO has."""
    rng = torch.Generator().manual_seed(0)

    def maps(channels, scale, bias=0.0, grad=False):
        made = [(bias + scale * torch.randn(IMAGES, channels, *s, generator=rng)).to(device) for s in SHAPES]
        return [x.requires_grad_() for x in made] if grad else made

    heads = (
        maps(CLASSES, 1.0, -4.0, grad=True), maps(4 * BINS, 1.0, grad=True),
        maps(CLASSES, 1.0, -4.0), maps(4 * BINS, 1.0),
        maps(CHANNELS, 1.0, grad=True), maps(CHANNELS, 1.0),
    )  # fmt: skip
    anchors = []
    for (h, w), stride in zip(SHAPES, STRIDES):
        y, x = torch.meshgrid(torch.arange(h) * stride, torch.arange(w) * stride, indexing="ij")
        centre = torch.stack([x, y], -1).reshape(-1, 2).float()
        anchors.append(torch.cat([centre - 4 * stride, centre + 4 * stride], 1))
    size = torch.exp(3 + 2.5 * torch.rand(IMAGES, OBJECTS, 2, generator=rng))  # 20 to 245 pixels
    centre = torch.rand(IMAGES, OBJECTS, 2, generator=rng) * torch.tensor([1344.0, 800.0])
    boxes = torch.cat([centre - size / 2, centre + size / 2], -1).to(device)
    labels = torch.randint(0, CLASSES, (IMAGES, OBJECTS), generator=rng).to(device)
    return heads, torch.cat(anchors).to(device), boxes, labels


def fused(device):
    """Our loss as a function of the maps."""
    loss = LDLoss(STRIDES, reference="released", imitation=2.0, imitation_region="fine_grained").to(device)
    counts = torch.full((IMAGES,), OBJECTS, device=device)
    sizes = [h * w for h, w in SHAPES]

    def run(maps, anchors, boxes, labels):
        student, teacher = (DensePrediction.from_levels(*x) for x in (maps[:2], maps[2:4]))
        terms = loss(student, teacher, anchors, sizes, boxes, labels, counts, features=maps[4:])
        return torch.stack([*terms.values()]).sum()

    return run


def mmdetection():
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
    meta = dict(img_shape=(800, 1344), pad_shape=(800, 1344))

    def run(maps, anchors, boxes, labels):
        objects = [InstanceData(bboxes=b, labels=c) for b, c in zip(boxes, labels)]
        terms = head.loss_by_feat(maps[0], maps[1], objects, [meta] * IMAGES, maps[3])
        levels, _ = ld_eager.levels_of(maps, anchors, STRIDES, [*boxes], [*labels])
        vlr, kd, imitation = (torch.stack(x).sum() for x in zip(*map(ld_eager.extra_terms, levels)))
        return sum(sum(parts) for parts in terms.values()) + 0.25 * vlr + 10 * kd + 2 * imitation

    return run


def eager(maps, anchors, boxes, labels):
    return ld_eager.step(maps, anchors, STRIDES, [*boxes], [*labels])


def test_ld_step(compare, device, benchmark):
    maps, anchors, boxes, labels = scene(device)
    learners = [x for part in maps for x in part if x.requires_grad]
    losses = {"ours": fused(device), "eager": eager}
    if os.environ.get("PYDISTILL_BENCH_COMPILED"):
        losses["compiled"] = torch.compile(eager)
    try:
        losses["mmdet"] = mmdetection()
    except pytest.skip.Exception:
        print("mmdetection is not installed: PyTorch alone is the peer")
    runs = {}
    for name, loss in losses.items():

        def run(loss):
            return torch.autograd.grad(loss(maps, anchors, boxes, labels), learners, allow_unused=True)

        runs[name] = partial(run, loss)
    want = losses["eager"](maps, anchors, boxes, labels).item()
    for name in runs:
        got = losses[name](maps, anchors, boxes, labels).item()
        assert abs(got - want) < 1e-4 * want, f"{name}: {got}, eager: {want}"
    benchmark.extra_info["gradients_mb"] = round(sum(4 * x.numel() for x in learners) / 2**20, 1)
    benchmark.extra_info["memory_mb"] = {name: round(peak_memory(run), 1) for name, run in runs.items()}
    moved = 4 * sum(x.numel() for part in maps for x in part) + 4 * sum(x.numel() for x in learners)
    compare(**runs, bytes_moved=moved)
