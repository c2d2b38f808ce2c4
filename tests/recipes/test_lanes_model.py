"""ENet's shapes, sizes and gradients."""

import pytest
import torch

from pydistill.recipes.lanes.model import STAGES, Bottleneck, ENet, Upsample, context_block
from pydistill.taps import Taps


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters():
    """Of the published ENet-SAD: one block for three stages, 256 channels into the decoder, no existence branch."""
    net = ENet()
    assert _count(net.e2) == _count(net.e3) == 144_546
    shared = _count(net) - _count(net.e3) - _count(net.up1) + _count(Upsample(256, 64, 0.1))
    assert shared == 817_331 - 576_644 - (128 * 5 + 5)


@pytest.mark.parametrize("size", [(96, 160), (288, 800)])
def test_shapes(size):
    net = ENet().eval()
    taps = Taps(net, STAGES)
    with torch.no_grad(), taps.record():
        logits = net(torch.zeros(1, 3, *size))
    h, w = size
    assert logits.shape == (1, 5, h, w)
    assert [tuple(taps[s].shape[1:]) for s in STAGES] == [(64, h // 4, w // 4)] + [(128, h // 8, w // 8)] * 2


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = ENet()
    net(torch.randn(2, 3, 32, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_context_grows_with_dilation():
    """In a deep stage a pixel reaches 8 + 16 + ... cells; a stage without dilation would not see the far end."""
    torch.manual_seed(0)
    block = context_block().double().eval()
    x = torch.zeros(1, 128, 1, 80, dtype=torch.float64).add_(torch.randn(1, 128, 1, 1)).requires_grad_()
    block(x)[0, :, 0, 0].sum().backward()
    reach = x.grad.abs().sum((0, 1, 2)).nonzero().max().item()
    assert reach == 1 + 2 + 2 + 4 + 1 + 8 + 2 + 16


def test_bottleneck_is_residual():
    block = Bottleneck(16, 0.1).eval()
    torch.nn.init.zeros_(block.branch[2][0].weight)
    x = torch.rand(1, 16, 4, 4)
    torch.testing.assert_close(block(x), x)


def test_wrong_size():
    with pytest.raises(ValueError, match="multiples of 8, got"):
        ENet()(torch.zeros(1, 3, 90, 160))
