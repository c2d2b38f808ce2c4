"""The losses of UniDistill, forward and backward: 4 samples, 180 x 180 cells, 40 boxes each, nuScenes' heads."""

import pytest
import torch

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.timing import forward_backward
from pydistill.losses import BEVPrediction, UniDistillLoss
from pydistill.ops import (
    BEVGrid,
    box_keypoints,
    gaussian_region,
    keypoint_feature_loss,
    keypoint_relation_loss,
    response_loss,
)

GRID = BEVGrid(-54, -54, 0.6, 0.6, 180, 180)
SAMPLES, BOXES = 4, 40
CLASSES, NUMBERS = (1, 2, 2, 1, 2, 2), (2, 1, 3, 2, 2, 1)  # of each task; of one


def scene(device):
    """Boxes as large as cars, all over the map."""
    rng = torch.Generator().manual_seed(0)
    unit = torch.rand(SAMPLES, BOXES, 7, generator=rng)
    boxes = torch.cat([100 * unit[..., :2] - 50, unit[..., 2:3], 1 + 4 * unit[..., 3:6], 6.28 * unit[..., 6:]], -1)
    return boxes.to(device), torch.ones(SAMPLES, BOXES, dtype=torch.bool, device=device)


def maps(channels, device, layout=torch.contiguous_format):
    rng = torch.Generator().manual_seed(1)
    student, teacher = (
        torch.randn(SAMPLES, channels, 180, 180, generator=rng).to(device, memory_format=layout) for _ in range(2)
    )
    return student.requires_grad_(), teacher


@pytest.mark.parametrize("channels", [256, 512])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
@pytest.mark.parametrize("loss", [keypoint_feature_loss, keypoint_relation_loss])
def test_keypoints(compare, device, loss, layout, channels):
    """Floor: the gradient allocated and filled with zeros."""
    boxes, valid = scene(device)
    points = box_keypoints(boxes, GRID)
    args = *maps(channels, device, layout), points, valid
    eager = bev_eager.feature if loss is keypoint_feature_loss else bev_eager.relation
    compare(
        ours=forward_backward(loss, *args),
        eager=forward_backward(eager, *args),
        compiled=forward_backward(torch.compile(eager), *args),
        floor=lambda: torch.zeros_like(args[0]),
        bytes_moved=4 * args[0].numel(),
        rounds=7,
    )


def heads(device):
    rng = torch.Generator().manual_seed(2)
    sizes = [*CLASSES, *NUMBERS * len(CLASSES)]
    return [torch.randn(SAMPLES, n, 180, 180, generator=rng).to(device) for n in sizes]


def test_response_loss(compare, device):
    """Heads as they come, a tensor each. Floor: their gradients allocated and filled with zeros."""
    tasks, region = len(CLASSES), gaussian_region(*scene(device), GRID)
    student, teacher = [x.requires_grad_() for x in heads(device)], heads(device)

    def ours(*student):
        losses = response_loss(student[:tasks], teacher[:tasks], student[tasks:], teacher[tasks:], region)
        return losses.classes + losses.numbers

    def eager(*student):
        return bev_eager.response(list(student), teacher, region, tasks)

    compare(
        ours=forward_backward(ours, *student),
        eager=forward_backward(eager, *student),
        compiled=forward_backward(torch.compile(eager), *student),
        floor=lambda: [torch.zeros_like(x) for x in student],
        bytes_moved=4 * sum(x.numel() for x in student),
    )


def test_gaussian_region(compare, device):
    """Floor: the map filled with zeros. ``released``: its loop over boxes on the host."""
    boxes, valid = scene(device)
    compare(
        ours=lambda: gaussian_region(boxes, valid, GRID),
        released=lambda: bev_eager.region(boxes, valid, -54, 0.6, 180),
        floor=lambda: boxes.new_zeros(SAMPLES, 180, 180),
        bytes_moved=4 * SAMPLES * 180 * 180,
        iterations=10,
    )


def test_unidistill_step(compare, device):
    """All terms, camera from LiDAR: 256 low and 512 high features."""
    boxes, valid = scene(device)
    tasks = len(CLASSES)
    low, high = maps(256, device), maps(512, device)
    ours, theirs = [x.requires_grad_() for x in heads(device)], heads(device)
    loss = UniDistillLoss(GRID)
    learners = [low[0], high[0], *ours]

    def fused():
        student = BEVPrediction(low[0], high[0], ours[:tasks], ours[tasks:])
        teacher = BEVPrediction(low[1], high[1], theirs[:tasks], theirs[tasks:])
        return torch.autograd.grad(sum(loss(student, teacher, boxes, valid).values()), learners)

    def eager():
        points, region = box_keypoints(boxes, GRID), bev_eager.region(boxes, valid, -54, 0.6, 180)
        total = 100 * bev_eager.feature(*low, points, valid) + 40 * bev_eager.relation(*high, points, valid)
        return torch.autograd.grad(total + 10 * bev_eager.response(ours, theirs, region, tasks), learners)

    compare(
        ours=fused,
        eager=eager,
        floor=lambda: [torch.zeros_like(x) for x in learners],
        bytes_moved=4 * sum(x.numel() for x in learners),
        rounds=7,
    )
