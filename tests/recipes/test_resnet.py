"""ResNets for boxes and lanes, and torchvision's weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pydistill.recipes.resnet import BasicBlock, Bottleneck, ResNet, load_backbone

PARAMETERS = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160}


class Model(nn.Module):
    def __init__(self, depth, channels=64):
        super().__init__()
        self.backbone = ResNet(depth, channels)
        self.head = nn.Conv2d(self.backbone.channels[-1], 2, 1)


@pytest.mark.parametrize("depth", PARAMETERS)
def test_backbone_has_torchvisions_parameters(depth):
    """Torchvision's published totals without the classifier's 513 000 (18, 34) or 2 049 000 (50, 101)."""
    with torch.device("meta"):
        backbone = ResNet(depth)
    assert sum(p.numel() for p in backbone.parameters()) == PARAMETERS[depth]
    names = dict(backbone.named_parameters())
    basic = depth < 50
    assert names[f"layer4.1.bn{2 if basic else 3}.weight"].shape == ((512,) if basic else (2048,))
    assert names["layer3.0.downsample.0.weight"].shape[:2] == ((256, 128) if basic else (1024, 512))
    assert ("layer1.0.downsample.0.weight" in names) != basic


@pytest.mark.parametrize("depth", [18, 50])
def test_dilation_stands_in_for_strides(depth):
    """At every second pixel of layer3 and every fourth of layer4 the result is that of the strided network."""
    torch.manual_seed(0)
    strided, dilated = (ResNet(depth, 8, dilated=d).double().eval() for d in (False, True))
    strided.load_state_dict(dilated.state_dict())
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        stages = zip(strided(x), dilated(x), (1, 1, 2, 4))
    for i, (coarse, fine, step) in enumerate(stages):
        assert coarse.shape[1:] == (strided.channels[i], 16 >> i, 24 >> i) and fine.shape[-1] == (24 if i == 0 else 12)
        torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=1e-11, atol=1e-11)


def test_basic_block():
    torch.manual_seed(0)
    block = BasicBlock(4, 6, 2, (1, 1)).double().eval()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    y = F.conv2d(F.batch_norm(F.conv2d(x, block.conv1.weight, stride=2, padding=1), *_norm(block.bn1)).relu(),
                 block.conv2.weight, padding=1)  # fmt: skip
    shortcut = F.batch_norm(F.conv2d(x, block.downsample[0].weight, stride=2), *_norm(block.downsample[1]))
    torch.testing.assert_close(block(x), (F.batch_norm(y, *_norm(block.bn2)) + shortcut).relu())


@pytest.mark.parametrize("inputs", [8, 12, 24])
def test_strided_shortcut(inputs):
    """Channels last, of few channels too, where oneDNN's gradient would write past its buffer."""
    torch.manual_seed(0)
    conv = BasicBlock(inputs, 16, 2).downsample[0].to(memory_format=torch.channels_last)
    x = torch.randn(2, inputs, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
    want_x = x.detach().double().contiguous().requires_grad_()
    weight = conv.weight.detach().double().requires_grad_()
    want = F.conv2d(want_x, weight, stride=2)
    dx, dw = torch.autograd.grad(want.square().sum(), [want_x, weight])
    for _ in range(20):
        got = conv(x)
        grads = torch.autograd.grad(got.square().sum(), [x, conv.weight])
        for a, b in zip((got, *grads), (want, dx, dw)):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5 * float(b.detach().abs().max()))


def test_bottleneck():
    torch.manual_seed(0)
    block = Bottleneck(4, 8, 2).double().eval()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    y = F.batch_norm(F.conv2d(x, block.conv1.weight), *_norm(block.bn1)).relu()
    y = F.batch_norm(F.conv2d(y, block.conv2.weight, stride=2, padding=1), *_norm(block.bn2)).relu()
    y = F.batch_norm(F.conv2d(y, block.conv3.weight), *_norm(block.bn3))
    shortcut = F.batch_norm(F.conv2d(x, block.downsample[0].weight, stride=2), *_norm(block.downsample[1]))
    torch.testing.assert_close(block(x), (y + shortcut).relu())


def _norm(module):
    return module.running_mean, module.running_var, module.weight, module.bias


def test_freeze():
    """The stem and a stage keep their weights, every batch norm its statistics, and training goes on elsewhere."""
    torch.manual_seed(0)
    net = ResNet(18, 4).train()
    net.freeze(1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    sum(stage.square().mean() for stage in net(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    changed = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    trained = {key for key, _ in net.named_parameters() if key.startswith(("layer2", "layer3", "layer4"))}
    assert changed == trained and net.layer2.training


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
    model = Model(18)
    others = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    assert _load(model, torchvisions, tmp_path) == ("fc.weight", "fc.bias")
    state = model.state_dict()
    assert all(state[f"backbone.{k}"].equal(v) for k, v in torchvisions.items() if not k.startswith("fc."))
    assert all(state[k].equal(v) for k, v in others.items())


def test_load_backbone_without_batch_counts(torchvisions, tmp_path):
    old = {k: v for k, v in torchvisions.items() if not k.endswith("num_batches_tracked")}
    model = Model(18)
    _load(model, old, tmp_path)
    assert model.backbone.conv1.weight.equal(old["conv1.weight"])


def test_load_backbone_refuses(torchvisions, tmp_path):
    """It names what is wrong, and then loads nothing."""
    model = Model(18)
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
        _load(Model(34), torchvisions, tmp_path)
    with pytest.raises(ValueError, match=r"of another shape: conv1.weight \[64, 3, 7, 7\] for \[32, 3, 7, 7\]"):
        _load(Model(18, 32), torchvisions, tmp_path)


def test_load_backbone_refuses_other_files(torchvisions, tmp_path):
    model = Model(18)
    with pytest.raises(ValueError, match="expected a dict of tensors in .*, got list"):
        _load(model, [torch.zeros(1)], tmp_path)
    with pytest.raises(ValueError, match="expected a dict of tensors in .*, got others at state_dict, epoch"):
        _load(model, {"state_dict": torchvisions, "epoch": 3}, tmp_path)
    with pytest.raises(ValueError, match=r"expected a dict of tensors, got .*weights\.pth"):
        _load(model, model, tmp_path)
