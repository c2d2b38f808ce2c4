"""integral, forward and backward: box sides from the distributions of all anchors of two images, and of 2% of them.

Operations: 10 a bin. The maximum, a difference, an exponential and two sums with a product; of the gradient a
difference and three products.
"""

import pytest
import torch

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.dense_scene import ANCHORS, BINS, IMAGES
from pydistill.benchmarks.timing import rotate
from pydistill.ops import integral


def torch_integral(logits, mask=None):
    """What the released code does: a softmax, then a product with the values of the bins."""
    values = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    out = torch.nn.functional.linear(logits.softmax(-1), values)
    return (out if mask is None else out * mask).sum()


def ours(logits, mask=None):
    return integral(logits, mask=mask).sum()


@pytest.mark.parametrize("kept", [1.0, 0.02])
def test_sides(compare, device, scale, kept):
    """Floor: the logits are read and a gradient of their size is written; of few, the gradient filled with zeros."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(times(scale, IMAGES * ANCHORS), 4, BINS, generator=rng).to(device).requires_grad_()
    mask = [] if kept == 1 else [(torch.rand(len(logits), 1, generator=rng) < kept).to(device)]
    compare(
        **contenders(ours, torch_integral, logits, *mask),
        floor=rotate((lambda x: x + 1) if kept == 1 else torch.zeros_like, logits.detach()),
        bytes_moved=int(4 * (1 + kept) * logits.numel()),
        operations=int(10 * kept * logits.numel()),
    )
