"""soft_iou_loss, forward and backward: the lanes of CULane at the size that ENet-SAD trains on."""

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.timing import forward_backward
from pydistill.ops import soft_iou_loss


def torch_soft_iou(logits, labels):
    """What one writes in PyTorch: a softmax and a one-hot tensor, every lane counted."""
    p = logits.softmax(1)[:, 1:]
    y = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(p.dtype)
    intersection = (p * y).sum((2, 3))
    return 1 - (intersection / (p + y - p * y).sum((2, 3))).mean()


def inputs(device, *shape):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=rng).to(device).requires_grad_()
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=rng).to(device)
    return logits, labels


def contenders(logits, labels, compiled=True):
    peers = {"eager": torch_soft_iou} | ({"compiled": torch.compile(torch_soft_iou)} if compiled else {})
    runs = {name: forward_backward(fn, logits, labels) for name, fn in peers.items()}
    return {"ours": forward_backward(lambda z, y: soft_iou_loss(z, y, absent="one"), logits, labels), **runs}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_soft_iou_loss(compare, device, dtype):
    """Floor: the logits are read twice, the labels twice, and the gradient is written."""
    logits, labels = inputs(device, 8, 5, 288, 800)
    logits = logits.detach().to(dtype).requires_grad_()
    plain = logits.detach()
    compare(
        **contenders(logits, labels, compiled=dtype == torch.float32),
        floor=lambda: (plain.sum(), labels.sum(), labels.sum(), plain * 2.0),
        bytes_moved=2 * logits.element_size() * logits.numel() + 8 * labels.numel(),
    )


def test_soft_iou_loss_call_overhead(compare, device):
    logits, labels = inputs(device, 1, 5, 4, 4)
    compare(
        **contenders(logits, labels, compiled=False),
        bytes_moved=4 * 2 * logits.numel() + 8 * labels.numel(),
        iterations=200,
    )
