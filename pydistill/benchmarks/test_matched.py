"""The losses of matched queries, forward and backward: six decoder stages, 8 images, 300 queries, 91 classes."""

from functools import partial

import pytest
import torch

from pydistill.benchmarks.timing import forward_backward
from pydistill.ops import info_nce_loss, matched_box_loss, matched_class_loss
from pydistill.ops.info_nce_loss import info_nce_loss_reference
from pydistill.ops.matched_box_loss import matched_box_loss_reference
from pydistill.ops.matched_class_loss import matched_class_loss_reference

STAGES, IMAGES, QUERIES, CLASSES = 6, 8, 300, 91


def matches(rng, targets):
    order = torch.rand(STAGES, IMAGES, QUERIES, generator=rng).argsort(-1)
    return order.masked_fill(order >= targets, -1)


def total(loss):
    def call(*tensors):
        losses = loss(*tensors)
        return losses.sum() if isinstance(losses, torch.Tensor) else torch.stack(losses).sum()

    return call


def compared(compare, ours, eager, *inputs):
    """Floor: the predictions are read and their gradient is written."""
    plain = inputs[0].detach()
    compare(
        ours=forward_backward(total(ours), *inputs),
        eager=forward_backward(total(eager), *inputs),
        compiled=forward_backward(torch.compile(total(eager)), *inputs),
        floor=lambda: plain + 1,
        bytes_moved=2 * plain.element_size() * plain.numel(),
    )


@pytest.mark.parametrize("targets", [20, QUERIES], ids=["objects", "teacher"])
def test_matched_box_loss(compare, device, targets):
    rng = torch.Generator().manual_seed(0)
    boxes = (0.1 + 0.8 * torch.rand(STAGES, IMAGES, QUERIES, 4, generator=rng)).to(device).requires_grad_()
    target_boxes = (0.1 + 0.8 * torch.rand(IMAGES, targets, 4, generator=rng)).to(device)
    compared(
        compare, matched_box_loss, matched_box_loss_reference, boxes, target_boxes, matches(rng, targets).to(device)
    )


@pytest.mark.parametrize("form", ["focal", "soft_bce"])
def test_matched_class_loss(compare, device, form):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(STAGES, IMAGES, QUERIES, CLASSES, generator=rng) - 4
    if form == "focal":
        targets, match = torch.randint(CLASSES, (IMAGES, 20), generator=rng), matches(rng, 20)
    else:
        targets, match = torch.randn(logits.shape, generator=rng) - 4, matches(rng, QUERIES)
    logits, targets, match = logits.to(device).requires_grad_(), targets.to(device), match.to(device)
    ours, eager = (partial(fn, form=form) for fn in (matched_class_loss, matched_class_loss_reference))
    compared(compare, ours, eager, logits, targets, match)


def test_info_nce_loss(compare, device):
    """All queries of one stage."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(IMAGES * QUERIES, 256, generator=rng).to(device) for _ in range(2))
    compared(compare, info_nce_loss, info_nce_loss_reference, student.requires_grad_(), teacher)
