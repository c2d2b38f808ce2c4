"""distribution_focal_loss, forward and backward: all sides of all locations, and with weights on 1% of them.

Operations: 7 a bin. Of the softmax the maximum, a difference, an exponential, a sum and a product; of the gradient a
difference and a product; the rest is of the rows.
"""

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.dense_scene import ANCHORS, BINS, IMAGES
from pydistill.benchmarks.timing import rotate
from pydistill.ops import distribution_focal_loss


def torch_distribution(logits, target, weight=None):
    """What one writes in PyTorch."""
    left = target.long()
    share = left + 1 - target
    logits = logits.flatten(0, 1)
    rows = F.cross_entropy(logits, left.flatten(), reduction="none") * share.flatten()
    rows = rows + F.cross_entropy(logits, left.flatten() + 1, reduction="none") * (1 - share.flatten())
    return (rows if weight is None else rows * weight.flatten()).sum()


def ours(logits, target, weight=None):
    return distribution_focal_loss(logits, target, weight=weight, reduction="sum")


@pytest.mark.parametrize("used", [1.0, 0.01])
def test_sides(compare, device, scale, used):
    """Floor: the logits are read and the gradient is written; where few are used, the gradient filled with zeros."""
    rng = torch.Generator().manual_seed(0)
    rows = times(scale, IMAGES * ANCHORS), 4
    logits = torch.randn(*rows, BINS, generator=rng).to(device).requires_grad_()
    target = ((BINS - 1.1) * torch.rand(rows, generator=rng)).to(device)
    weight = [] if used == 1 else [(torch.rand(rows, generator=rng) < used).float().to(device)]
    compare(
        **contenders(ours, torch_distribution, logits, target, *weight),
        floor=rotate((lambda x: x + 1) if used == 1 else torch.zeros_like, logits.detach()),
        bytes_moved=int(4 * (1 + used) * logits.numel()),
        operations=int(7 * used * logits.numel()),
    )
