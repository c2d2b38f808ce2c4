"""The class losses of set detectors, against annotated boxes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.losses.detr.prediction import SetPrediction, SetTargets
from pydistill.ops import matched_class_loss, matched_labels, pairwise_iou
from pydistill.ops._matched import matched, of_queries
from pydistill.ops._register import accumulator


def focal(prediction: SetPrediction, targets: SetTargets, match: Tensor) -> Tensor:
    """(L,): sigmoid focal loss of all queries, those without a box as background."""
    return matched_class_loss(prediction.logits, targets.labels, match)


def varifocal(
    prediction: SetPrediction, targets: SetTargets, match: Tensor, *, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    r"""(L,): varifocal loss, as RT-DETR has it.

    The target y of a matched query's class is the IoU of its box; each cross entropy weighs y there and
    :math:`\alpha p^\gamma` elsewhere, where the target is 0, with p as a constant.
    """
    wide = accumulator(prediction.logits.dtype)
    logits, classes = prediction.logits.to(wide), prediction.logits.shape[-1]
    own = prediction.boxes.detach().to(wide)
    theirs = of_queries(targets.boxes.to(wide), match, -2)
    iou = pairwise_iou(_corners(own).flatten(0, 2), _corners(theirs).flatten(0, 2), aligned=True, eps=1e-12)
    iou = iou.view_as(match).masked_fill(matched(match, targets.labels.shape[-1]).logical_not(), 0)
    label = matched_labels(targets.labels, match, classes)
    of_class = logits.gather(-1, label.clamp(0, classes - 1).unsqueeze(-1)).squeeze(-1)
    at_label = iou * (F.softplus(of_class) - iou * of_class) - _background(of_class, alpha, gamma)
    known = (label >= 0) & (label < classes)
    return _background(logits, alpha, gamma).sum((1, 2, 3)) + at_label.where(known, 0).sum((1, 2))


def _background(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    p = logits.detach().sigmoid()
    return F.softplus(logits) * (p.square_() if gamma == 2 else p.pow_(gamma)).mul_(alpha)


def cross_entropy(
    prediction: SetPrediction, targets: SetTargets, match: Tensor, eos_weight: float
) -> tuple[Tensor, Tensor]:
    """(L,) and (L,): cross entropy of all queries, those without a box of the last class; and the sum of weights."""
    wide, last = accumulator(prediction.logits.dtype), prediction.logits.shape[-1] - 1
    label = matched_labels(targets.labels, match, last)
    weight = torch.ones_like(label, dtype=wide).masked_fill(label == last, eos_weight)
    rows = -prediction.logits.to(wide).log_softmax(-1).gather(-1, label.clamp(0, last).unsqueeze(-1)).squeeze(-1)
    return (rows * weight).sum((1, 2)), weight.sum((1, 2))


def _corners(boxes: Tensor) -> Tensor:
    centre, size = torch.split(boxes, 2, -1)
    return torch.cat([centre - size / 2, centre + size / 2], -1)
