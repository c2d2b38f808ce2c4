"""The GFL detector: shapes, layers, weights, precision, compilation."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pydistill.recipes.dense.fpn import FPN
from pydistill.recipes.dense.network import GFLDetector, GFLHead
from pydistill.recipes.resnet import ResNet, load_backbone


def _parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "backbone, strides",
    [
        ("compact", (8, 16, 32)),
        ("compact", (4, 8, 16)),
        ("compact", (8, 16, 32, 64, 128)),
        ("resnet18", (4, 8, 16, 32)),
        ("resnet50", (8, 16, 32, 64, 128)),
    ],
)
def test_shapes(backbone, strides):
    net = GFLDetector(7, 0.125, backbone, strides, reg_max=5).eval()
    with torch.no_grad():
        out = net(torch.zeros(2, 3, 72, 100))
    assert out.shapes == tuple((-(-72 // s), -(-100 // s)) for s in strides)
    for logits, sides, feature, shape in zip(*out, out.shapes):
        assert logits.shape == (2, 7, *shape) and sides.shape == (2, 4 * 6, *shape) and feature.shape[2:] == shape
    assert net.strides == strides


def test_every_parameter_learns():
    torch.manual_seed(0)
    for net in (GFLDetector(3, 0.125), GFLDetector(3, 0.125, "resnet18", (8, 16, 32, 64))):
        out = net(torch.randn(2, 3, 64, 64))
        sum(x.square().mean() for xs in out[:2] for x in xs).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_sizes():
    """A student of 0.22 million parameters; a teacher twice as wide fits a file of 2 MB in half precision."""
    student, teacher = GFLDetector(10, 0.25), GFLDetector(10, 0.5)
    assert _parameters(student) < 220_000 and 3.5 < _parameters(teacher) / _parameters(student) < 4
    file = io.BytesIO()
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in teacher.state_dict().items()}, file)
    assert file.tell() < 2_000_000


def test_paper_size():
    """ResNet-50, pyramid of 256 channels with two extra levels, towers of 4 convolutions, 80 classes, 4 x 17 bins."""
    with torch.device("meta"):
        net = GFLDetector(80, 1.0, "resnet50", (8, 16, 32, 64, 128))
    pyramid = 256 * (512 + 1024 + 2048 + 3) + 5 * (9 * 256**2 + 256)
    towers = 2 * 4 * (9 * 256**2 + 2 * 256)
    assert _parameters(net) == 23_508_032 + pyramid + towers + (80 + 68) * (9 * 256 + 1) + 5


def test_prior():
    """At the start every class has about one percent, and every side about half its range."""
    torch.manual_seed(0)
    with torch.no_grad():
        out = GFLDetector(10).eval()(torch.randn(1, 3, 64, 64))
    assert all((x.sigmoid() - 0.01).abs().max() < 0.005 for x in out.logits)
    shares = [x.unflatten(1, (4, 17)).softmax(2) for x in out.sides]
    assert all(((x.transpose(2, -1) @ torch.arange(17.0)) - 8).abs().max() < 1.5 for x in shares)


def test_pyramid():
    """Sums from the top down, by nearest neighbour also where sizes do not halve, and an extra level on top."""
    torch.manual_seed(0)
    fpn = FPN([2, 3, 4], 8, 4).double()
    features = [torch.randn(1, c, h, w).double() for c, h, w in ((2, 5, 7), (3, 3, 4), (4, 2, 2))]
    sums = [F.conv2d(x, m.weight, m.bias) for x, m in zip(features, fpn.lateral)]
    sums[1] = sums[1] + sums[2][:, :, torch.arange(3) * 2 // 3][..., torch.arange(4) * 2 // 4]
    sums[0] = sums[0] + sums[1][:, :, torch.arange(5) * 3 // 5][..., torch.arange(7) * 4 // 7]
    expected = [F.conv2d(x, m.weight, m.bias, padding=1) for x, m in zip(sums, fpn.output)]
    expected.append(F.conv2d(expected[2], fpn.extra[0].weight, fpn.extra[0].bias, stride=2, padding=1))
    for a, b in zip(fpn(features), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_head():
    """One tower for classes, one for sides, and a factor of the sides alone for each level."""
    torch.manual_seed(0)
    head = GFLHead(16, 2, 5, 2, convolutions=1).double()
    with torch.no_grad():
        head.scales.copy_(torch.tensor([1.0, 3.0]))
    feature = torch.randn(1, 16, 4, 4).double()
    out = head([feature, feature])

    def tower(layers, last):
        x = F.conv2d(feature, layers[0].weight, padding=1)
        groups = x.view(1, 2, -1)  # eight channels each
        x = (
            (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        ).view_as(x)
        return F.conv2d(x.relu(), last.weight, last.bias, padding=1)

    for a, b in (
        (out.logits[0], tower(head.class_tower, head.classes)),
        (out.sides[0], tower(head.side_tower, head.sides)),
        (out.logits[1], out.logits[0]),
        (out.sides[1], 3 * out.sides[0]),
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def _close(a, b, tolerance):
    for x, y in zip((*a.logits, *a.sides), (*b.logits, *b.sides), strict=True):
        assert (x.double() - y.double()).norm() <= tolerance * y.double().norm()


def test_layout_precision_and_compilation():
    """Channels-last memory stays so and changes nothing; bfloat16 nearly nothing; compiled in one graph the same."""
    torch.manual_seed(0)
    net = GFLDetector(4, 0.125, strides=(8, 16, 32, 64))
    x = torch.randn(2, 3, 64, 96)
    net(x)  # batch norms of something
    net.eval()
    with torch.no_grad():
        plain = net(x)
        _close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), plain, 1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x)
        assert half.logits[0].dtype == half.sides[0].dtype == torch.bfloat16
        _close(half, plain, 0.02)
        last = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in (*last.sides, *last.features))
        _close(last, plain, 1e-5)


def test_torchvisions_weights(tmp_path):
    torch.manual_seed(0)
    backbone = ResNet(18)
    torch.save(backbone.state_dict() | {"fc.weight": torch.zeros(2, 512)}, tmp_path / "resnet18.pth")
    net = GFLDetector(3, 1.0, "resnet18", fpn_channels=16)
    assert load_backbone(net, tmp_path / "resnet18.pth") == ("fc.weight",)
    assert net.backbone.layer4[1].conv2.weight.equal(backbone.layer4[1].conv2.weight)
    assert isinstance(net.fpn.lateral[0], nn.Conv2d) and net.fpn.lateral[0].in_channels == 128


def test_wrong_arguments():
    for strides in ((), (8, 32), (16, 32)):
        with pytest.raises(ValueError, match="expected strides that double, from 4 or 8 on, got"):
            GFLDetector(3, strides=strides)
    with pytest.raises(ValueError, match=r"from 4 or 8 on to 32 or more, got \[4, 8, 16\]"):
        GFLDetector(3, 0.25, "resnet18", (4, 8, 16))
    with pytest.raises(ValueError, match=r"build_backbone: expected one of .*'resnet101'\), got 'vgg'"):
        GFLDetector(3, backbone="vgg")
    with pytest.raises(ValueError, match="expected fpn_channels a multiple of 8, got 12"):
        GFLDetector(3, fpn_channels=12)
    with pytest.raises(
        ValueError, match=r"expected classes, reg_max and blocks >= 1 and width > 0, got 0, 16, 1 and 0.25"
    ):
        GFLDetector(0)
    with pytest.raises(ValueError, match=r"expected pictures of shape \(N, 3, H, W\), got \[1, 1, 64, 64\]"):
        GFLDetector(3)(torch.zeros(1, 1, 64, 64))
