"""The costs of matching as one writes them in PyTorch, and the public matchers on the same predictions."""

from importlib.util import find_spec

import torch
from scipy.optimize import linear_sum_assignment as scipy_assignment
from torch.nn import functional


def loop(logits, boxes, labels, target_boxes, preset):
    """What the quicker of the public matchers do: torch costs of one image after the other, SciPy on each."""
    return [
        scipy_assignment(costs(*tensors, preset).cpu().numpy()) for tensors in zip(logits, boxes, labels, target_boxes)
    ]


def costs(logits, boxes, labels, target_boxes, preset):
    """(..., Q, T) of one image or of several at once."""
    if preset == "detr":
        classes = -of_labels(logits.softmax(-1), labels)
    else:
        p = of_labels(logits.sigmoid(), labels)
        classes = 2 * (0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log())
    return classes + 5 * torch.cdist(boxes, target_boxes, p=1) - 2 * giou(corners(boxes), corners(target_boxes))


def of_labels(p, labels):
    return p.gather(-1, labels.unsqueeze(-2).expand(*p.shape[:-1], -1))


def corners(b):
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


def giou(a, b):
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    either = areas[0].unsqueeze(-1) + areas[1].unsqueeze(-2) - both
    return both / either - (hull - either) / hull


def costs_of_masks(logits, labels, masks, targets):
    """The terms as mmdet and transformers write them: two products for the cross entropy, one for Dice."""
    pos, neg = (
        functional.binary_cross_entropy_with_logits(masks, torch.full_like(masks, y), reduction="none")
        for y in (1.0, 0.0)
    )
    p = masks.sigmoid()
    dice = 1 - (2 * p @ targets.mT + 1) / (p.sum(-1, keepdim=True) + targets.sum(-1).unsqueeze(-2) + 1)
    entropy = (pos @ targets.mT + neg @ (1 - targets).mT) / masks.shape[-1]
    return -2 * of_labels(logits.softmax(-1), labels) + 5 * entropy + 5 * dice


def transformers_matcher(preset):
    """transformers' matcher as a function of what ``loop`` takes; None where it is not installed."""
    if not find_spec("transformers"):
        return None
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    weights = dict(bbox_cost=5.0, giou_cost=2.0)
    if preset == "detr":
        matcher = HungarianMatcher(class_cost=1.0, **weights)
    else:
        matcher = DeformableDetrHungarianMatcher(class_cost=2.0, **weights)

    def run(logits, boxes, labels, target_boxes):
        targets = [{"class_labels": c, "boxes": b} for c, b in zip(labels, target_boxes)]
        return matcher({"logits": logits, "pred_boxes": boxes}, targets)

    return run
