"""attention_distillation_loss, forward and backward: the paper's pair and one that is upsampled."""

import pytest
import torch

from pydistill.benchmarks.timing import forward_backward
from pydistill.ops import attention_distillation_loss
from pydistill.ops.attention_distillation_loss import attention_distillation_loss_reference

PAIRS = {
    "same": ((8, 128, 36, 100), (8, 128, 36, 100)),
    "upsampled": ((8, 64, 72, 200), (8, 128, 36, 100)),
}


def floor(shallow, deep):
    """The channel sums of both and one scaled copy: what must be read and written."""
    with torch.no_grad():
        return shallow.sum(1), deep.sum(1), shallow * 2.0


@pytest.mark.parametrize("scale", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("pair", PAIRS)
def test_attention_distillation_loss(compare, device, pair, scale):
    rng = torch.Generator().manual_seed(0)
    shallow, deep = ((scale * torch.randn(s, generator=rng)).to(device) for s in PAIRS[pair])
    shallow.requires_grad_()
    compiled = torch.compile(attention_distillation_loss_reference)
    compare(
        ours=forward_backward(attention_distillation_loss, shallow, deep),
        eager=forward_backward(attention_distillation_loss_reference, shallow, deep),
        compiled=forward_backward(compiled, shallow, deep),
        floor=lambda: floor(shallow, deep),
        bytes_moved=4 * (3 * shallow.numel() + deep.numel()),
    )


def test_attention_call_overhead(compare, device):
    rng = torch.Generator().manual_seed(0)
    shallow, deep = (torch.randn(1, 2, 4, 4, generator=rng).to(device) for _ in range(2))
    shallow.requires_grad_()
    compare(
        ours=forward_backward(attention_distillation_loss, shallow, deep),
        eager=forward_backward(attention_distillation_loss_reference, shallow, deep),
        bytes_moved=4 * (3 * shallow.numel() + deep.numel()),
        iterations=200,
    )
