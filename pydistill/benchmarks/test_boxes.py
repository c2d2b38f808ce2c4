"""Box sides from distributions, and losses of boxes, forward and backward: the anchors of two 800 x 1344 pictures."""

from functools import partial

import pytest
import torch

from pydistill.benchmarks.timing import forward_backward
from pydistill.ops import ciou_loss, giou_loss, integral
from pydistill.ops.box_iou_loss import box_iou_loss_reference

ANCHORS, BINS = 22400 * 2, 17


def torch_integral(logits, mask=None):
    """What the released code does: a softmax, then a product with the values of the bins."""
    values = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    out = torch.nn.functional.linear(logits.softmax(-1), values)
    return (out if mask is None else out * mask).sum()


@pytest.mark.parametrize("kept", [1.0, 0.02])
def test_integral(compare, device, kept):
    """Floor: the logits are read and a gradient of their size is written."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(ANCHORS, 4, BINS, generator=rng).to(device).requires_grad_()
    mask = None if kept == 1 else (torch.rand(ANCHORS, 1, generator=rng) < kept).to(device)
    plain = logits.detach()
    compare(
        ours=forward_backward(lambda x: integral(x, mask=mask).sum(), logits),
        eager=forward_backward(lambda x: torch_integral(x, mask), logits),
        compiled=forward_backward(torch.compile(lambda x: torch_integral(x, mask)), logits),
        floor=(lambda: plain + 1) if mask is None else lambda: torch.zeros_like(plain),
        bytes_moved=4 * 2 * plain.numel() if mask is None else 4 * plain.numel(),
    )


@pytest.mark.parametrize("loss", [giou_loss, ciou_loss], ids=["giou", "ciou"])
def test_box_loss(compare, device, loss):
    """Floor: two sets of boxes are read and one gradient is written."""
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(2, ANCHORS, 2, generator=rng) * 100
    boxes = torch.cat([corners, corners + 1 + torch.rand(2, ANCHORS, 2, generator=rng) * 100], -1).to(device)
    prediction, target = boxes[0].clone().requires_grad_(), boxes[1]
    eager = partial(box_iou_loss_reference, form=loss.__name__.removesuffix("_loss"), reduction="sum")
    compare(
        ours=forward_backward(partial(loss, reduction="sum"), prediction, target),
        eager=forward_backward(eager, prediction, target),
        compiled=forward_backward(torch.compile(eager), prediction, target),
        floor=lambda: prediction.detach() + target,
        bytes_moved=4 * 3 * target.numel(),
    )
