"""ENet-SAD: shapes, sizes and gradients."""

import pytest
import torch

from pydistill.recipes.lanes.enet import Bottleneck, ENetSAD, context_block
from pydistill.recipes.lanes.existence import Existence
from pydistill.taps import Taps


def _count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size, shared, separate", [((288, 800), 817_331, 1_106_423), ((208, 976), 748_851, 1_037_943)])
def test_parameters(size, shared, separate):
    """Those of InhwanBae/ENet-SAD_Pytorch, measured."""
    assert _count(ENetSAD(size)) == shared
    assert _count(ENetSAD(size, shared=False)) == separate


def test_parameters_of_the_parts():
    net = ENetSAD((368, 640))
    assert _count(net) == 830_131
    assert _count(net.context) == 144_546
    assert _count(ENetSAD((288, 800)).p1.read) == 576_644
    assert _count(net) == _count(ENetSAD((368, 640), classes=2)) + 3 * 16 * 9


@pytest.mark.parametrize("size", [(96, 160), (288, 800), (360, 640)])
@pytest.mark.parametrize("shared", [True, False])
def test_shapes(size, shared):
    net = ENetSAD(size, shared=shared).eval()
    taps = Taps(net, [*net.stages, "p1.coarse"])
    with torch.no_grad(), taps.record():
        out = net(torch.zeros(1, 3, *size))
    h, w = size
    assert out.segmentation.shape == (1, 5, h, w) and out.existence.shape == (1, 4)
    assert [tuple(taps[s].shape[1:]) for s in net.stages] == [(64, h // 4, w // 4)] + [(128, h // 8, w // 8)] * 3
    assert taps["p1.coarse"].shape == (1, 5, h // 16, w // 16)


@pytest.mark.parametrize("shared", [True, False])
def test_stages_follow_one_another(shared):
    """E3 and E4 are further blocks on E2; the decoder reads E3 and E4, and P1 reads E4."""
    torch.manual_seed(0)
    net = ENetSAD((32, 64), shared=shared).double().eval()
    pictures = torch.rand(1, 3, 32, 64, dtype=torch.float64)
    taps = Taps(net, net.stages)
    with torch.no_grad(), taps.record():
        out = net(pictures)
        x, first = net.down1(net.initial(pictures))
        x, second = net.down2(net.e1(x))
        blocks = [net.context[0 if shared else i] for i in range(3)]
        e2 = blocks[0](x)
        e3 = blocks[1](e2)
        e4 = blocks[2](e3)
        for stage, expected in (("e2", e2), ("e3", e3), ("e4", e4)):
            torch.testing.assert_close(taps[stage], expected)
        torch.testing.assert_close(out.existence, net.p1(e4))
        torch.testing.assert_close(out.segmentation, net.decoder(torch.cat([e3, e4], 1), (first, second)))


@pytest.mark.parametrize("shared", [True, False])
def test_every_parameter_learns(shared):
    torch.manual_seed(0)
    net = ENetSAD((32, 64), shared=shared)
    sum(o.square().mean() for o in net(torch.randn(2, 3, 32, 64))).backward()
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


def test_existence_branch():
    """A softmax over classes, the mean (or, dilated, the maximum) of 2 x 2 cells, and two linear layers."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    plain = Existence(8, (5, 6)).double().eval()
    weight, bias = plain.coarse[0].weight[:, :, 0, 0], plain.coarse[0].bias
    p = (torch.einsum("kc,nchw->nkhw", weight, x) + bias.view(-1, 1, 1)).softmax(1)[
        :, :, :4
    ]  # the fifth row has no pair
    means = p.reshape(2, 5, 2, 2, 3, 2).mean((3, 5)).flatten(1)
    one, two = plain.read[1], plain.read[3]
    torch.testing.assert_close(plain(x), (means @ one.weight.T + one.bias).relu() @ two.weight.T + two.bias)

    dilated = Existence(8, (5, 6), dilated=True).double().eval()
    convolution, norm = dilated.coarse[0], dilated.coarse[1]
    assert convolution.dilation == (4, 4) and convolution.weight.shape == (32, 8, 3, 3) and norm.eps == 1e-3
    p = dilated.coarse[:-1](x)[:, :, :4]
    maxima = p.reshape(2, 5, 2, 2, 3, 2).amax((3, 5))
    torch.testing.assert_close(dilated.coarse(x), maxima)


def test_dilated_existence_branch_parameters():
    plain, dilated = (_count(ENetSAD((96, 160), dilated=on)) for on in (False, True))
    assert dilated - plain == 128 * 32 * 9 + 2 * 32 + (32 * 5 + 5) - (128 * 5 + 5)


def test_wrong_size():
    for size in ((90, 160), (96, 8)):
        with pytest.raises(ValueError, match=r"ENetSAD: expected height and width that are multiples of 8 .* got"):
            ENetSAD(size)
    with pytest.raises(ValueError, match=r"ENetSAD: expected pictures of shape \(N, 3, 32, 64\), got \[1, 3, 64, 32\]"):
        ENetSAD((32, 64))(torch.zeros(1, 3, 64, 32))
