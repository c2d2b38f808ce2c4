"""response_loss, forward and backward: nuScenes' heads of 4 samples, as they come, a tensor each.

Operations: 16 a number of a heat map, two sigmoids of 4 with two comparisons to clamp and one for the largest, the
gradient 2; 6 a regression, difference, absolute value, sum and the gradient's sign and product twice.
"""

import torch

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.bev_scene import CLASSES, boxes_on, grid_of, heads
from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.timing import rotate
from pydistill.ops import gaussian_region, response_loss

TASKS = len(CLASSES)


def ours(*given):
    student, teacher, region = split(given)
    losses = response_loss(student[:TASKS], teacher[:TASKS], student[TASKS:], teacher[TASKS:], region)
    return losses.classes + losses.numbers


def eager(*given):
    student, teacher, region = split(given)
    return bev_eager.response(student, teacher, region, TASKS)


def split(given):
    """The heads of both, and the region."""
    half = len(given) // 2
    return [*given[:half]], [*given[half:-1]], given[-1]


def test_heads(compare, device, scale):
    """Floor: the gradients allocated and filled with zeros."""
    grid = grid_of(scale)
    region = gaussian_region(*boxes_on(grid, device), grid)
    student, teacher = [x.requires_grad_() for x in heads(grid, device)], heads(grid, device)
    numbers = sum(x.numel() for x in student)
    maps = sum(x.numel() for x in student[:TASKS])
    compare(
        **contenders(ours, eager, *student, *teacher, region),
        floor=rotate(lambda *x: [torch.zeros_like(y) for y in x], *teacher),
        bytes_moved=4 * numbers,
        operations=16 * maps + 6 * (numbers - maps),
    )
