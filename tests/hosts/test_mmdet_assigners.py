"""The assigners of RetinaNet and FCOS against mmdetection's, on the same boxes."""

import pytest
import torch

from pydistill.ops import assign_max_iou, assign_points, pack_targets
from tests.conformance import relative_error
from tests.hosts.mmdet_here import MODELS, TASK_UTILS, InstanceData
from tests.hosts.test_mmdet_boxes import SIZES, STRIDES, random_boxes

COUNTS = (6, 0, 11)


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("ignored", [0, 2])
def test_max_iou_is_mmdets(ignored, low_quality):
    """RetinaNet's anchors, nine at each location, and its thresholds."""
    generator = TASK_UTILS.build(
        dict(type="AnchorGenerator", ratios=[0.5, 1.0, 2.0], octave_base_scale=4, scales_per_octave=3, strides=STRIDES)
    )
    anchors = torch.cat(generator.grid_priors(SIZES, device="cpu")).double()
    assigner = TASK_UTILS.build(
        dict(
            type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.1, match_low_quality=low_quality,
            ignore_iof_thr=0.5,
        )
    )  # fmt: skip
    for seed in range(6):
        boxes, counts = pack_targets([random_boxes(n, 10 * seed + i) for i, n in enumerate(COUNTS)])
        regions, region_counts = pack_targets([random_boxes(ignored, 500 + 10 * seed + i) for i in range(3)])
        ignore = dict(ignore_boxes=regions, ignore_counts=region_counts, ignore_threshold=0.5) if ignored else {}
        got = assign_max_iou(anchors, boxes, counts, min_positive=0.1, match_low_quality=low_quality, **ignore)
        for i, count in enumerate(COUNTS):
            want = assigner.assign(
                InstanceData(priors=anchors),
                InstanceData(bboxes=boxes[i, :count], labels=torch.arange(count)),
                InstanceData(bboxes=regions[i]) if ignored and count else None,
            ).gt_inds
            index = got.gt_index[i] + 1
            if not count:  # ours marks the anchors in ignored regions here, too
                index = index.clamp(min=0)
            assert torch.equal(index, want)


@pytest.mark.parametrize("sampling", [1.5, None])
def test_points_are_mmdets(sampling):
    """FCOS: labels, distances and centerness of its targets, from the box that each point has."""
    nothing = 100
    head = MODELS.build(
        dict(
            type="FCOSHead", num_classes=nothing, in_channels=8, strides=STRIDES, center_sampling=sampling is not None,
            regress_ranges=((-1, 32), (32, 64), (64, 96), (96, 128), (128, 1e8)),
        )
    )  # fmt: skip
    levels = [p.double() for p in head.prior_generator.grid_priors(SIZES, device="cpu")]
    points, sizes = torch.cat(levels), [len(p) for p in levels]
    for seed in range(6):
        images = [random_boxes(n, 10 * seed + i, high=150.0) for i, n in enumerate(COUNTS)]
        instances = [InstanceData(bboxes=b, labels=torch.arange(len(b))) for b in images]
        labels, targets = head.get_targets(levels, instances)
        want = torch.cat([x.view(3, -1) for x in labels], 1)
        distances = torch.cat([x.view(3, -1, 4) for x in targets], 1)
        boxes, counts = pack_targets(images)
        got = assign_points(
            points, STRIDES, sizes, boxes, counts, regress_ranges=head.regress_ranges, center_sampling=sampling
        )
        assert torch.equal(torch.where(got.gt_index < 0, nothing, got.gt_index), want)
        found = want < nothing
        assert found.sum() > 20
        assert relative_error(got.centerness[found], head.centerness_target(distances[found])) < 1e-9
        assert got.centerness[~found].eq(0).all()
