"""info_nce_loss, forward and backward: all queries of one stage of 8 images, 256 channels each.

Operations: those of the two products, 2 a channel and pair of queries forward and 2 backward.
"""

import torch

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.set_scene import IMAGES, QUERIES
from pydistill.benchmarks.timing import rotate
from pydistill.ops import info_nce_loss
from pydistill.ops.info_nce_loss import info_nce_loss_reference


def test_queries(compare, device, scale):
    """Floor: the two products."""
    rng, queries = torch.Generator().manual_seed(0), times(scale, IMAGES * QUERIES)
    student, teacher = (torch.randn(queries, 256, generator=rng).to(device) for _ in range(2))
    compare(
        **contenders(info_nce_loss, info_nce_loss_reference, student.clone().requires_grad_(), teacher),
        floor=rotate(lambda s, t: (s @ t.T) @ t, student, teacher),
        bytes_moved=3 * 4 * student.numel(),
        operations=4 * 256 * queries**2,
    )
