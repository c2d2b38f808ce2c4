"""The objective of ENet-SAD as one writes it in PyTorch, with the released codes' arithmetic."""

import torch
import torch.nn.functional as F


def attention(feature, size):
    """A feature's energy, brought to ``size``, and the softmax of all its pixels."""
    energy = F.interpolate(feature.square().sum(1, keepdim=True), size, mode="bilinear")
    return energy.flatten(1).softmax(1)


def distillation(features):
    """Each stage learns from the next."""
    total = 0.0
    for shallow, deep in zip(features, features[1:]):
        size = shallow.shape[2:]
        total = total + (attention(shallow, size) - attention(deep.detach(), size)).square().sum() / len(shallow)
    return total


def soft_iou(logits, labels):
    """A softmax, in float32 as autocast has it, and a one-hot tensor; every lane counts."""
    p = logits.softmax(1, dtype=torch.float32)[:, 1:]
    y = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(p.dtype)
    both = (p * y).sum((2, 3))
    return 1 - (both / (p + y - p * y).sum((2, 3))).mean()


def lanes(logits, existence, labels, exists):
    """Segmentation with a weight on the background, a tenth of the IoU and a tenth of the existence."""
    weight = logits.new_ones(logits.shape[1])
    weight[0] = 0.4
    total = F.cross_entropy(logits, labels, weight) + 0.1 * soft_iou(logits, labels)
    return total + 0.1 * F.binary_cross_entropy_with_logits(existence, exists)


def step(features, logits, existence, labels, exists):
    return lanes(logits, existence, labels, exists) + 0.1 * distillation(features)
