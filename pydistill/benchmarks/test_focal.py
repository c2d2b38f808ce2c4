"""The focal losses, forward and backward: the class logits of two images with 1% positives, and the sides of boxes."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.timing import forward_backward
from pydistill.ops import distribution_focal_loss, quality_focal_loss, sigmoid_focal_loss

IMAGES, ANCHORS, CLASSES, BINS = 2, 22400, 80, 17


def locations(device, classes=CLASSES):
    """Logits near a detector's first ones, labels (``classes`` is background) and scores."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, ANCHORS, classes, generator=rng) - 4
    labels = torch.randint(classes, (IMAGES, ANCHORS), generator=rng)
    labels = labels.masked_fill(torch.rand(IMAGES, ANCHORS, generator=rng) > 0.01, classes)
    scores = torch.rand(IMAGES, ANCHORS, generator=rng)
    return logits.to(device).requires_grad_(), labels.to(device), scores.to(device)


def torch_quality(logits, labels, scores, beta=2.0):
    """What one writes in PyTorch without looking at values on the host."""
    y = torch.zeros_like(logits)
    known = labels < logits.shape[-1]
    y.scatter_(-1, torch.where(known, labels, 0).unsqueeze(-1), torch.where(known, scores, 0).unsqueeze(-1))
    entropy = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return (entropy * (y - logits.sigmoid()).abs() ** beta).sum()


def torch_sigmoid(logits, labels, alpha=0.25, gamma=2.0):
    t = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    return ((alpha * t + (1 - alpha) * (1 - t)) * (p * (1 - t) + (1 - p) * t) ** gamma * entropy).sum()


def torch_distribution(logits, target, weight=None):
    left = target.long()
    share = left + 1 - target
    logits = logits.flatten(0, 1)
    rows = F.cross_entropy(logits, left.flatten(), reduction="none") * share.flatten()
    rows = rows + F.cross_entropy(logits, left.flatten() + 1, reduction="none") * (1 - share.flatten())
    return (rows if weight is None else rows * weight.flatten()).sum()


def contenders(ours, eager, *inputs, compiled=True):
    peers = {"eager": eager, "compiled": torch.compile(eager)} if compiled else {"eager": eager}
    ours = partial(ours, reduction="sum")
    return {name: forward_backward(fn, *inputs) for name, fn in {"ours": ours, **peers}.items()}


def compare_rows(compare, ours, eager, *inputs, compiled=True):
    """Floor: the logits are read and the gradient is written."""
    plain = inputs[0].detach()
    moved = 2 * plain.element_size() * plain.numel()
    compare(**contenders(ours, eager, *inputs, compiled=compiled), floor=lambda: plain + 1, bytes_moved=moved)


@pytest.mark.parametrize("classes", [10, 20, 80])
def test_quality_focal_loss(compare, device, classes):
    compare_rows(compare, quality_focal_loss, torch_quality, *locations(device, classes))


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_quality_focal_loss_power(compare, device, beta):
    ours, eager = partial(quality_focal_loss, beta=beta), partial(torch_quality, beta=beta)
    compare_rows(compare, ours, eager, *locations(device))


def test_quality_focal_loss_half(compare, device):
    logits, labels, scores = locations(device)
    logits = logits.detach().half().requires_grad_()
    compare_rows(compare, quality_focal_loss, torch_quality, logits, labels, scores.half(), compiled=False)


def test_sigmoid_focal_loss(compare, device):
    compare_rows(compare, sigmoid_focal_loss, torch_sigmoid, *locations(device)[:2])


@pytest.mark.parametrize("weighted", [False, True])
def test_distribution_focal_loss(compare, device, weighted):
    """All sides of all locations, and with weights on 1% of them."""
    rng = torch.Generator().manual_seed(0)
    rows = IMAGES * ANCHORS, 4
    logits = torch.randn(*rows, BINS, generator=rng).to(device).requires_grad_()
    target = ((BINS - 1.1) * torch.rand(rows, generator=rng)).to(device)
    weight = (torch.rand(rows, generator=rng) < 0.01).float().to(device) if weighted else None
    ours, eager = (partial(fn, weight=weight) for fn in (distribution_focal_loss, torch_distribution))
    compare_rows(compare, ours, eager, logits, target)
