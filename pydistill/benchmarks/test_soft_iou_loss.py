"""soft_iou_loss, forward and backward: the lanes of CULane at the size that ENet-SAD trains on.

Operations: 13 a logit. Of the softmax 5 (maximum, difference, exponential, sum, product), of the sums 2, of the
gradient 6: the softmax again but for its maximum, and two products.
"""

import pytest
import torch

from pydistill.benchmarks import sad_eager
from pydistill.benchmarks.cases import contenders, sides
from pydistill.benchmarks.timing import rotate
from pydistill.ops import soft_iou_loss


def ours(logits, labels):
    return soft_iou_loss(logits, labels, absent="one")


def inputs(device, *shape, dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=rng).to(device, dtype).requires_grad_()
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=rng).to(device)
    return logits, labels


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float16, 2e-3)], ids=["float32", "float16"])
def test_lanes(compare, device, scale, dtype, tolerance):
    """Floor: the logits are read twice, the labels twice, and the gradient is written."""
    logits, labels = inputs(device, 8, 5, *sides(scale, 288, 800), dtype=dtype)
    compare(
        **contenders(ours, sad_eager.soft_iou, logits, labels, compiled=dtype == torch.float32, tolerance=tolerance),
        floor=rotate(lambda z, y: (z.sum(), y.sum(), y.sum(), z * 2.0), logits.detach(), labels),
        bytes_moved=2 * logits.element_size() * logits.numel() + 8 * labels.numel(),
        operations=13 * logits.numel(),
    )


def test_call_overhead(compare, device):
    logits, labels = inputs(device, 1, 5, 4, 4)
    compare(
        **contenders(ours, sad_eager.soft_iou, logits, labels, compiled=False, copies=1),
        bytes_moved=4 * 2 * logits.numel() + 8 * labels.numel(),
        iterations=200,
    )
