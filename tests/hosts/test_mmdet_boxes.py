"""mmdetection's overlaps and assigners against ours, on the same boxes."""

import pytest
import torch

from tests.conformance import relative_error
from tests.hosts.mmdet_here import TASK_UTILS, InstanceData, diou_loss

SIZES = [(20, 24), (10, 12), (5, 6), (3, 3), (2, 2)]
STRIDES = [8, 16, 32, 64, 128]


def random_boxes(count, seed, *, low=6.0, high=120.0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=rng, dtype=dtype) * torch.tensor([192.0, 160.0], dtype=dtype)
    size = low + (high - low) * torch.rand(count, 2, generator=rng, dtype=dtype)
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def anchors(dtype=torch.float64):
    generator = TASK_UTILS.build(
        dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES)
    )
    return [level.to(dtype) for level in generator.grid_priors(SIZES, dtype=torch.float32, device="cpu")]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
def test_overlaps_are_mmdets(mode, aligned):
    a, b = random_boxes(50, 1), random_boxes(50 if aligned else 9, 2)
    scored = torch.cat([b, b[:, :1]], -1)  # mmdet takes a fifth column, the score
    theirs, ours = (TASK_UTILS.build(dict(type=kind)) for kind in ("BboxOverlaps2D", "pydistill.BboxOverlaps2D"))
    want = theirs(a, scored, mode=mode, is_aligned=aligned)
    assert relative_error(ours(a, scored, mode=mode, is_aligned=aligned), want) < 1e-12
    if not aligned:
        assert ours(a, b[:0], mode=mode).shape == theirs(a, b[:0], mode=mode).shape == (50, 0)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_overlaps_of_rounded_boxes(scale):
    a, b = random_boxes(50, 1, dtype=torch.float32), random_boxes(9, 2, dtype=torch.float32)
    ours = TASK_UTILS.build(dict(type="pydistill.BboxOverlaps2D", scale=scale, dtype="fp16"))(a, b)
    want = TASK_UTILS.build(dict(type="BboxOverlaps2D"))((a / scale).half().float(), (b / scale).half().float())
    assert ours.dtype == torch.float32 and relative_error(ours, want) < 1e-6


def test_overlaps_that_mmdet_lacks():
    a, b = random_boxes(50, 1), random_boxes(50, 2)
    ours = TASK_UTILS.build(dict(type="pydistill.BboxOverlaps2D"))
    assert relative_error(ours(a, b, "diou", True), 1 - diou_loss(a, b, reduction="none", eps=1e-6)) < 1e-9
    assert (ours(a, b, "diou_released") >= ours(a, b, "diou") - 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("ignored", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_atss_is_mmdets(count, ignored, dtype):
    levels, lowest, wide = anchors(dtype), 0, dtype == torch.float64
    for seed in range(8):
        boxes = random_boxes(count, seed, dtype=dtype)
        labels = torch.arange(count) % 3
        regions = InstanceData(bboxes=random_boxes(ignored, 100 + seed, dtype=dtype)) if ignored else None
        arguments = (
            InstanceData(priors=torch.cat(levels)),
            [len(level) for level in levels],
            InstanceData(bboxes=boxes, labels=labels),
            regions,
        )
        config = dict(type="ATSSAssigner", topk=9, ignore_iof_thr=0.5)
        want = TASK_UTILS.build(config).assign(*arguments)
        got = TASK_UTILS.build({**config, "type": "pydistill.ATSSAssigner"}).assign(*arguments)
        assert got.num_gts == want.num_gts
        assert torch.equal(got.gt_inds, want.gt_inds)
        assert torch.equal(got.labels, want.labels)
        found = want.gt_inds > 0
        assert relative_error(got.max_overlaps[found], want.max_overlaps[found]) < (1e-9 if wide else 1e-6)
        assert torch.equal(got.max_overlaps[~found], want.max_overlaps[~found])
        lowest = min(lowest, int(got.gt_inds.min()))
    assert lowest == (-1 if ignored and count else 0)


@pytest.mark.parametrize("reference", ["paper", "released"])
def test_atss_gives_the_region(reference):
    levels, boxes = torch.cat(anchors()), random_boxes(5, 3)
    assigner = TASK_UTILS.build(dict(type="pydistill.ATSSAssigner", topk=9, reference=reference))
    instances = InstanceData(bboxes=boxes, labels=torch.zeros(5, dtype=torch.int64))
    result = assigner.assign(InstanceData(priors=levels), [h * w for h, w in SIZES], instances)
    threshold, region = result.get_extra_property("threshold"), result.get_extra_property("region")
    measure = TASK_UTILS.build(dict(type="pydistill.BboxOverlaps2D"))
    x = measure(levels, boxes, "diou" if reference == "paper" else "diou_released")
    below = x <= threshold if reference == "paper" else x < threshold
    iou = measure(levels, boxes)
    want = torch.where((x >= 0.25 * threshold) & below & (iou > 0), iou, 0.0).amax(1)
    assert want.count_nonzero() > 20
    assert relative_error(region, want) < 1e-12


def test_atss_refuses_what_it_lacks():
    with pytest.raises(ValueError, match="expected alpha=None, got 0.8"):
        TASK_UTILS.build(dict(type="pydistill.ATSSAssigner", topk=9, alpha=0.8))
    with pytest.raises(ValueError, match="expected iou_calculator BboxOverlaps2D, got RBboxOverlaps2D"):
        TASK_UTILS.build(dict(type="pydistill.ATSSAssigner", topk=9, iou_calculator=dict(type="RBboxOverlaps2D")))
    with pytest.raises(ValueError, match="expected reference in"):
        TASK_UTILS.build(dict(type="pydistill.ATSSAssigner", topk=9, reference="official"))
    with pytest.raises(ValueError, match="expected mode in"):
        TASK_UTILS.build(dict(type="pydistill.BboxOverlaps2D"))(random_boxes(2, 0), random_boxes(2, 1), mode="area")
