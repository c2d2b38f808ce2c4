"""matched_box_loss, forward and backward: six decoder stages, 8 images, matched with 20 objects or a teacher's queries.

Operations: about 100 a matched pair, 12 of L1, 8 of the corners, 31 of GIoU and as much as that again and half of the
gradient.
"""

import pytest
import torch

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.set_scene import IMAGES, QUERIES, STAGES, TARGETS, matches
from pydistill.benchmarks.timing import rotate
from pydistill.ops import matched_box_loss
from pydistill.ops.matched_box_loss import matched_box_loss_reference


@pytest.mark.parametrize("teacher", [False, True], ids=["objects", "teacher"])
def test_boxes(compare, device, scale, teacher):
    """Floor: the boxes are read and their gradient is written."""
    rng, queries = torch.Generator().manual_seed(0), times(scale, QUERIES)
    targets = queries if teacher else min(TARGETS, queries)
    boxes = (0.1 + 0.8 * torch.rand(STAGES, IMAGES, queries, 4, generator=rng)).to(device)
    target_boxes = (0.1 + 0.8 * torch.rand(IMAGES, targets, 4, generator=rng)).to(device)
    match = matches(rng, queries, targets).to(device)
    ours, eager = (lambda *x, fn=fn: torch.stack(fn(*x)).sum() for fn in (matched_box_loss, matched_box_loss_reference))
    compare(
        **contenders(ours, eager, boxes.clone().requires_grad_(), target_boxes, match),
        floor=rotate(lambda x: x + 1, boxes),
        bytes_moved=2 * 4 * boxes.numel(),
        operations=100 * STAGES * IMAGES * targets,
    )
