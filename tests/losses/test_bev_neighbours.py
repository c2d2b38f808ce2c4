"""The losses of UniDistill's neighbours, as docs/bev.md writes them, are theirs."""

import pytest
import torch

from pydistill.ops import box_keypoints, gaussian_region, keypoint_relation_loss, masked_feature_loss
from tests.conformance import relative_error
from tests.ops.bev import GRID, random_boxes


@pytest.fixture
def scene():
    rng = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(2, 6, GRID.height, GRID.width, generator=rng, dtype=torch.float64) for _ in range(2)
    )
    return student.requires_grad_(), teacher, *random_boxes(rng, 2, 5, GRID)


def gradients(loss, student):
    return torch.autograd.grad(loss, student)[0]


def test_bevdistill(scene):
    """Sum over channels of the squares, weighed with the region, over its sum."""
    s, t, boxes, valid = scene
    region = gaussian_region(boxes, valid, GRID, overlap=0.1, min_radius=1)
    got = masked_feature_loss(s, t, region, channels="sum", normalizer="mask")
    want = (region[:, None] * (s - t).square()).sum() / region.sum()
    assert relative_error(got, want) < 1e-12
    assert relative_error(gradients(got, s), gradients(want, s)) < 1e-12


def test_distillbev(scene):
    """Any free map of weights, over the samples: regions, sizes of boxes and attention in one."""
    s, t, _, _ = scene
    scale = torch.rand(2, GRID.height, GRID.width, dtype=torch.float64)
    attention = (t.abs().mean(1).flatten(1) / 0.5).softmax(1).view_as(scale) * GRID.height * GRID.width
    got = masked_feature_loss(s, t, scale * attention, channels="sum", normalizer=2.0)
    want = ((s - t).square() * (scale * attention)[:, None]).sum() / 2
    assert relative_error(got, want) < 1e-12
    assert relative_error(gradients(got, s), gradients(want, s)) < 1e-12


@pytest.mark.parametrize("background", [None, 0.3])
def test_cmkd(scene, background):
    """The mean of the squares, times 32; off the boxes 0.3 of it."""
    s, t, boxes, valid = scene
    inside = gaussian_region(boxes, valid, GRID) > 0
    weight = torch.ones(inside.shape).double() if background is None else inside.double().where(inside, background)
    got = 32 * masked_feature_loss(s, t, weight)
    want = 32 * ((s - t).square() * weight[:, None]).mean()
    assert relative_error(got, want) < 1e-12
    assert relative_error(gradients(got, s), gradients(want, s)) < 1e-12


def test_simdistill(scene):
    """The mean of the squares on objects, times 100."""
    s, t, boxes, valid = scene
    inside = gaussian_region(boxes, valid, GRID) > 0
    got = 100 * masked_feature_loss(s, t, inside, normalizer="mask")
    want = 100 * (s - t).square().movedim(1, -1)[inside].mean()
    assert relative_error(got, want) < 1e-12
    assert relative_error(gradients(got, s), gradients(want, s)) < 1e-12


@pytest.mark.parametrize("gram", ["rows", "channels"])
def test_tig_bev(scene, gram):
    """Inner products of 16 x 16 points, or of channels, rows normalised; a box's sum of squares is n^2 of its mean."""
    s, t, boxes, valid = scene
    points = box_keypoints(boxes, GRID, layout=(16, 16))
    n = 256 if gram == "rows" else s.shape[1]
    got = n**2 * keypoint_relation_loss(s, t, points, valid, gram=gram, norm=2, eps=0)
    place = torch.stack([points[..., 0] / GRID.width, points[..., 1] / GRID.height], -1) * 2 - 1
    rows = []
    for x in (s, t):
        p = torch.nn.functional.grid_sample(x, place, align_corners=False).permute(0, 2, 3, 1)[valid]
        rows.append(torch.nn.functional.normalize(p @ p.mT if gram == "rows" else p.mT @ p, dim=-1))
    want = (rows[0] - rows[1]).square().sum() / valid.sum()
    assert relative_error(got, want) < 1e-10
    assert relative_error(gradients(got, s), gradients(want, s)) < 1e-8
