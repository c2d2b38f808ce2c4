"""ResNet-18-SAD and ResNet-34-SAD."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pydistill.recipes.lanes.resnet import BasicBlock, ResNet, ResNetSAD, load_backbone
from pydistill.taps import Taps


def _count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("depth, parameters", [(18, 11_176_512), (34, 21_284_672)])
def test_backbone_has_torchvisions_parameters(depth, parameters):
    """Torchvision's published totals, 11 689 512 and 21 797 672, without the classifier's 513 000."""
    backbone = ResNet(depth)
    assert _count(backbone) == parameters
    names = dict(backbone.named_parameters())
    assert names["layer4.1.bn2.weight"].shape == (512,) and names["layer3.0.downsample.0.weight"].shape[:2] == (
        256,
        128,
    )
    assert "layer1.0.downsample.0.weight" not in names


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


def _strided(net):
    """The same weights in the strided network that torchvision's weights are trained in."""
    strided = ResNet(18, 8).double().eval()
    for stage in (strided.layer3, strided.layer4):
        for block in stage:
            for convolution in (block.conv1, block.conv2):
                convolution.dilation = convolution.padding = (1, 1)
        stage[0].conv1.stride = stage[0].downsample[0].stride = (2, 2)
    strided.load_state_dict(net.state_dict())
    return strided


def test_dilation_stands_in_for_strides():
    """At every second pixel of layer3 and every fourth of layer4 the result is that of the strided network."""
    torch.manual_seed(0)
    net = ResNet(18, 8).double().eval()
    taps, strided = (Taps(n, ["layer2", "layer3", "layer4"]) for n in (net, _strided(net)))
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad(), taps.record(), strided.record():
        net(x)
        strided.model(x)
    assert taps["layer4"].shape[2:] == (8, 12) and strided["layer4"].shape[2:] == (2, 3)
    for stage, step in (("layer2", 1), ("layer3", 2), ("layer4", 4)):
        torch.testing.assert_close(taps[stage][..., ::step, ::step], strided[stage], rtol=1e-12, atol=1e-12)


def test_basic_block():
    torch.manual_seed(0)
    block = BasicBlock(4, 6, 2, (1, 1)).double().eval()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    y = F.conv2d(F.batch_norm(F.conv2d(x, block.conv1.weight, stride=2, padding=1), *_norm(block.bn1)).relu(),
                 block.conv2.weight, padding=1)  # fmt: skip
    shortcut = F.batch_norm(F.conv2d(x, block.downsample[0].weight, stride=2), *_norm(block.downsample[1]))
    torch.testing.assert_close(block(x), (F.batch_norm(y, *_norm(block.bn2)) + shortcut).relu())


def _norm(module):
    return module.running_mean, module.running_var, module.weight, module.bias


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = ResNetSAD(18, (32, 64), width=0.125, dilated=True)
    sum(o.square().mean() for o in net(torch.randn(2, 3, 32, 64))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.fixture(scope="module")
def torchvisions():
    """A state dict as torchvision's ResNet-18 has it: other weights, and a classifier."""
    torch.manual_seed(1)
    state = {key: torch.rand_like(value.float()).to(value.dtype) for key, value in ResNet(18).state_dict().items()}
    return state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def _load(model, state, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    return load_backbone(model, tmp_path / "weights.pth")


def test_load_backbone(torchvisions, tmp_path):
    model = ResNetSAD(18, (32, 64))
    others = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    assert _load(model, torchvisions, tmp_path) == ("fc.weight", "fc.bias")
    state = model.state_dict()
    assert all(state[f"backbone.{k}"].equal(v) for k, v in torchvisions.items() if not k.startswith("fc."))
    assert all(state[k].equal(v) for k, v in others.items())


def test_load_backbone_without_batch_counts(torchvisions, tmp_path):
    old = {k: v for k, v in torchvisions.items() if not k.endswith("num_batches_tracked")}
    model = ResNetSAD(18, (32, 64))
    _load(model, old, tmp_path)
    assert model.backbone.conv1.weight.equal(old["conv1.weight"])


def test_load_backbone_refuses(torchvisions, tmp_path):
    """It names what is wrong, and then loads nothing."""
    model = ResNetSAD(18, (32, 64))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bad = {k: v for k, v in torchvisions.items() if k not in ("conv1.weight", "bn1.bias")}
    bad |= {"head.weight": torch.zeros(1), "layer1.0.bn1.weight": torch.zeros(65)}
    with pytest.raises(ValueError, match="expected torchvision's ResNet of the same depth in") as error:
        _load(model, bad, tmp_path)
    for part in (
        "2 missing: conv1.weight, bn1.bias",
        "1 unknown: head.weight",
        "1 of another shape: layer1.0.bn1.weight [65] for [64]",
    ):
        assert part in str(error.value)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match=r"80 missing: (\S+ ){8}\.\.\."):  # eight names, no more
        _load(ResNetSAD(34, (32, 64)), torchvisions, tmp_path)
    with pytest.raises(ValueError, match=r"of another shape: conv1.weight \[64, 3, 7, 7\] for \[32, 3, 7, 7\]"):
        _load(ResNetSAD(18, (32, 64), width=0.5), torchvisions, tmp_path)


def test_load_backbone_refuses_other_files(torchvisions, tmp_path):
    model = ResNetSAD(18, (32, 64))
    with pytest.raises(ValueError, match="expected a dict of tensors in .*, got list"):
        _load(model, [torch.zeros(1)], tmp_path)
    with pytest.raises(ValueError, match="expected a dict of tensors in .*, got others at state_dict, epoch"):
        _load(model, {"state_dict": torchvisions, "epoch": 3}, tmp_path)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"ResNet: expected depth in \(18, 34\), got 50"):
        ResNetSAD(50, (32, 64))
    with pytest.raises(ValueError, match=r"ResNetSAD: expected height and width .* got \[30, 64\]"):
        ResNetSAD(18, (30, 64))
    for width in (0, 1.5):
        with pytest.raises(ValueError, match=rf"ResNetSAD: expected width in \(0, 1\], got {width}"):
            ResNetSAD(18, (32, 64), width=width)
