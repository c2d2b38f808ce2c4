"""attention_distillation_loss and, of energies at hand, energy_distillation_loss: forward and backward.

The paper's pair, and one that is upsampled. Operations: 4 a value that learns (square, sum; in the gradient two
products) and 2 a value of the target; the maps add a hundredth. 44 a cell of the energies' maps: bilinear reading of
both 18, softmaxes 12, difference and gradient 14.
"""

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.cases import contenders, sides
from pydistill.benchmarks.timing import rotate
from pydistill.ops import attention_distillation_loss, energy_distillation_loss
from pydistill.ops.attention_distillation_loss import attention_distillation_loss_reference

PAIRS = {
    "same": ((8, 128, 36, 100), (8, 128, 36, 100)),
    "upsampled": ((8, 64, 72, 200), (8, 128, 36, 100)),
}


def features(device, *shapes, spread=1.0):
    rng = torch.Generator().manual_seed(0)
    shallow, deep = ((spread * torch.randn(s, generator=rng)).to(device) for s in shapes)
    return shallow.requires_grad_(), deep


def floor(shallow, deep):
    """The channel sums of both and one scaled copy: what must be read and written."""
    return shallow.sum(1), deep.sum(1), shallow * 2.0


@pytest.mark.parametrize("spread", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("pair", PAIRS)
def test_features(compare, device, scale, pair, spread):
    shapes = [(*s[:2], *sides(scale, *s[2:])) for s in PAIRS[pair]]
    shallow, deep = features(device, *shapes, spread=spread)
    compare(
        **contenders(attention_distillation_loss, attention_distillation_loss_reference, shallow, deep),
        floor=rotate(floor, shallow.detach(), deep),
        bytes_moved=4 * (3 * shallow.numel() + deep.numel()),
        operations=4 * shallow.numel() + 2 * deep.numel(),
    )


def torch_energies(shallow, deep):
    """What one writes in PyTorch."""
    size = shallow.shape[1:]
    s, d = (F.interpolate(e[:, None], size, mode="bilinear").flatten(1).softmax(1) for e in (shallow, deep))
    return (s - d).square().sum() / len(shallow)


@pytest.mark.parametrize("pair", PAIRS)
def test_energies(compare, device, scale, pair):
    """Floor: both are read and a gradient is written."""
    shallow, deep = features(device, *((s[0], *sides(scale, *s[2:])) for s in PAIRS[pair]))
    compare(
        **contenders(energy_distillation_loss, torch_energies, shallow, deep),
        floor=rotate(lambda s, d: (s * 2.0, d.sum()), shallow.detach(), deep),
        bytes_moved=4 * (2 * shallow.numel() + deep.numel()),
        operations=44 * shallow.numel(),
        iterations=10,
    )


def test_call_overhead(compare, device):
    shallow, deep = features(device, (1, 2, 4, 4), (1, 2, 4, 4))
    runs = contenders(
        attention_distillation_loss, attention_distillation_loss_reference, shallow, deep, compiled=False, copies=1
    )
    compare(**runs, bytes_moved=4 * (3 * shallow.numel() + deep.numel()), iterations=200)
