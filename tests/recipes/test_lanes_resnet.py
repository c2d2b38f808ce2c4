"""ResNet-18-SAD and ResNet-34-SAD."""

import pytest
import torch
from torch import nn

from pydistill.recipes.lanes.resnet import ResNetSAD
from pydistill.taps import Taps


def _count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("depth", [18, 34])
def test_shapes(depth):
    net = ResNetSAD(depth, (48, 80)).eval()
    taps = Taps(net, net.stages)
    with torch.no_grad(), taps.record():
        out = net(torch.zeros(1, 3, 48, 80))
    assert out.segmentation.shape == (1, 5, 48, 80) and out.existence.shape == (1, 4)
    shapes = [tuple(taps[stage].shape[1:]) for stage in net.stages]
    assert shapes == [(64, 12, 20), (128, 6, 10), (256, 6, 10), (512, 6, 10)]


def test_width():
    net = ResNetSAD(18, (48, 80), width=0.25).eval()
    assert [_first(net.get_submodule(stage)).out_channels for stage in net.stages] == [16, 32, 64, 128]
    assert net.head.in_channels == 32 and net(torch.zeros(1, 3, 48, 80)).segmentation.shape == (1, 5, 48, 80)
    assert _count(net.backbone) < 11_176_512 / 15


def _first(stage):
    return next(module for module in stage.modules() if isinstance(module, nn.Conv2d))


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = ResNetSAD(18, (32, 64), width=0.125, dilated=True)
    sum(o.square().mean() for o in net(torch.randn(2, 3, 32, 64))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"ResNet: expected depth in \(18, 34, 50, 101\), got 20"):
        ResNetSAD(20, (32, 64))
    with pytest.raises(ValueError, match=r"ResNetSAD: expected height and width .* got \[30, 64\]"):
        ResNetSAD(18, (30, 64))
    for width in (0, 1.5):
        with pytest.raises(ValueError, match=rf"ResNetSAD: expected width in \(0, 1\], got {width}"):
            ResNetSAD(18, (32, 64), width=width)
