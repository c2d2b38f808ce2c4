"""attention_map and its first stage, channel_energy, forward and backward: a stage of ENet, as it is and upsampled.

Operations: 4 a value (square, sum; in the gradient two products); the map adds a hundredth.
"""

import pytest
import torch

from pydistill.benchmarks.cases import contenders, sides
from pydistill.benchmarks.timing import rotate
from pydistill.ops import attention_map, channel_energy
from pydistill.ops.attention_map import attention_map_reference


def feature(device, scale):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(8, 128, *sides(scale, 36, 100), generator=rng).to(device).requires_grad_()


def compared(compare, ours, eager, x):
    """Floor: the channels are summed, which reads all, and a gradient is written."""
    compare(
        **contenders(ours, eager, x),
        floor=rotate(lambda x: (x.sum(1), x * 2.0), x.detach()),
        bytes_moved=4 * 3 * x.numel(),
        operations=4 * x.numel(),
    )


@pytest.mark.parametrize("up", [1, 2], ids=["same", "upsampled"])
def test_map(compare, device, scale, up):
    x = feature(device, scale)
    size = x.shape[2] * up, x.shape[3] * up
    ours, eager = (lambda x, fn=fn: fn(x, size).square().sum() for fn in (attention_map, attention_map_reference))
    compared(compare, ours, eager, x)


def test_energy(compare, device, scale):
    x = feature(device, scale)
    compared(compare, lambda x: channel_energy(x).sum(), lambda x: x.square().sum(1).sum(), x)
