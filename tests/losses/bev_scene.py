"""Predictions and boxes of three samples, the last one without any; run by torchrun, their gradients on two
processes."""

import sys

import torch
import torch.distributed as dist

from pydistill.losses import BEVPrediction, UniDistillLoss
from pydistill.ops import BEVGrid
from tests.ops.bev import random_boxes

GRID = BEVGrid(-4, -3, 0.5, 0.4, 11, 17)


def scene(seed, channels=None):
    """Student, teacher, boxes and which are valid; the student has ``channels`` in place of the teacher's 4 and 5."""
    rng = torch.Generator().manual_seed(seed)

    def prediction(low, high, learns):
        sizes = [low, high, 1, 2, 3, 2, 4]
        made = [torch.randn(3, c, GRID.height, GRID.width, generator=rng, dtype=torch.float64) for c in sizes]
        made = [x.requires_grad_(learns) for x in made]
        return BEVPrediction(made[0], made[1], made[2:4], made[4:])

    student = prediction(channels or 4, channels or 5, True)
    teacher = prediction(4, 5, False)
    boxes, valid = random_boxes(rng, 3, 5, GRID)
    valid[2] = False
    return student, teacher, boxes, valid


def gradients(samples):
    """Of the two feature maps, summed over channels of some samples; means over processes, as DDP has them."""
    student, teacher, boxes, valid = scene(0)
    weight = torch.ones(5, 1, 1, dtype=torch.float64, requires_grad=True)  # a parameter that all samples share
    pick = list(samples)

    def part(p, learns):
        scale = weight if learns else torch.ones_like(weight)
        return BEVPrediction(
            p.low[pick] * scale[:4], p.high[pick] * scale, [x[pick] * scale[:1] for x in p.heatmaps],
            [x[pick] * scale[1:2] for x in p.regressions],
        )  # fmt: skip

    terms = UniDistillLoss(GRID)(part(student, True), part(teacher, False), boxes[pick], valid[pick])
    return [torch.autograd.grad(term, weight, retain_graph=True)[0] for term in terms.values()]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    found = gradients([[0, 1], [2]][dist.get_rank()])
    for gradient in found:
        dist.all_reduce(gradient)
    if dist.get_rank() == 0:
        torch.save([gradient / dist.get_world_size() for gradient in found], sys.argv[1])
    dist.destroy_process_group()
