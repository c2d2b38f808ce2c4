"""A whole step of UniDistill, camera from LiDAR, forward and backward: 4 samples of 40 boxes, 180 x 180 cells.

All terms, of 256 low and 512 high features and of nuScenes' heads. Operations are not counted.
"""

import torch

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.bev_scene import CELL, CLASSES, boxes_on, grid_of, heads, maps
from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.timing import rotate
from pydistill.losses import BEVPrediction, UniDistillLoss
from pydistill.ops import box_keypoints

TASKS = len(CLASSES)


def test_step(compare, device, scale):
    """Floor: the gradients allocated and filled with zeros."""
    grid = grid_of(scale)
    loss, boxes = UniDistillLoss(grid), boxes_on(grid, device)
    low, high = maps(256, grid, device), maps(512, grid, device)
    student, teacher = (
        BEVPrediction(low[i], high[i], of_heads[:TASKS], of_heads[TASKS:])
        for i, of_heads in enumerate(([x.requires_grad_() for x in heads(grid, device)], heads(grid, device)))
    )

    def ours(student, teacher, boxes, valid):
        return sum(loss(student, teacher, boxes, valid).values())

    def eager(student, teacher, boxes, valid):
        points, region = box_keypoints(boxes, grid), bev_eager.region(boxes, valid, grid.x_min, CELL, grid.width)
        total = 100 * bev_eager.feature(student.low, teacher.low, points, valid)
        total = total + 40 * bev_eager.relation(student.high, teacher.high, points, valid)
        heads = ([*x.heatmaps, *x.regressions] for x in (student, teacher))
        return total + 10 * bev_eager.response(*heads, region, TASKS)

    like = [*low[1:], *high[1:], *teacher.heatmaps, *teacher.regressions]
    compare(
        **contenders(ours, eager, student, teacher, *boxes, compiled=False, tolerance=1e-3),
        floor=rotate(lambda x: [torch.zeros_like(y) for y in x], like),
        bytes_moved=4 * sum(x.numel() for x in like),
        rounds=7,
    )
