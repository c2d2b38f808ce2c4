"""The terms of transformers' detection losses, for stacked stages: each a sum or a mean per stage, (S,)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.hosts.transformers._stages import Losses, Matched
from pydistill.losses.detr.classification import cross_entropy, varifocal
from pydistill.losses.detr.prediction import SetTargets
from pydistill.ops import (
    matched_box_loss,
    matched_labels,
    pairwise_iou,
    sigmoid_focal_loss,
)
from pydistill.ops._matched import of_queries

Divisor = float | Tensor


def box_terms(x: Matched, targets: SetTargets, divisor: Divisor) -> Losses:
    """L1 distance and GIoU."""
    losses = matched_box_loss(x.boxes, targets.boxes, x.target_of_query)
    return {"loss_bbox": losses.l1 / divisor, "loss_giou": losses.giou / divisor}


def softmax_term(x: Matched, targets: SetTargets, background: float) -> Losses:
    """Cross entropy, the last class being that of no object, which weighs ``background``; a weighted mean."""
    stages, weights = cross_entropy(x.prediction, targets, x.target_of_query, background)
    return {"loss_ce": stages / weights}


def focal_term(x: Matched, targets: SetTargets, alpha: float, divisor: Divisor) -> Losses:
    """Sigmoid focal loss of all queries."""
    labels = matched_labels(targets.labels, x.target_of_query, x.logits.shape[-1])
    return {"loss_ce": sigmoid_focal_loss(x.logits, labels, alpha=alpha, gamma=2.0).sum((1, 2)) / divisor}


@torch.no_grad()
def cardinality(x: Matched, targets: SetTargets, softmax: bool) -> Losses:
    """How far the number of predicted objects is from that of the real ones; for logs, without gradient."""
    if softmax:
        predicted = x.logits.argmax(-1) != x.logits.shape[-1] - 1
    else:
        predicted = x.logits.amax(-1).sigmoid() > 0.5
    return {"cardinality_error": (predicted.sum(2) - targets.counts).abs().float().mean(1)}


@torch.no_grad()
def matched_iou(x: Matched, targets: SetTargets) -> Tensor:
    """(S, B, Q): the IoU of each query's box and its target, 0 without a target; a constant."""
    own, other = corners(x.boxes), target_corners(x, targets)
    iou = pairwise_iou(own.flatten(0, -2), other.flatten(0, -2), aligned=True, eps=1e-30)
    return iou.view(x.target_of_query.shape).where(x.target_of_query >= 0, 0)


def varifocal_term(x: Matched, targets: SetTargets, alpha: float, gamma: float, divisor: Divisor) -> Losses:
    """Varifocal loss."""
    return {"loss_vfl": varifocal(x.prediction, targets, x.target_of_query, alpha=alpha, gamma=gamma) / divisor}


def quality_term(x: Matched, targets: SetTargets, iou: Tensor, alpha: float, divisor: Divisor) -> Losses:
    r"""LW-DETR's: binary cross entropy with :math:`p^\alpha IoU^{1 - \alpha} \ge 0.01`, a constant, at the label of a
    matched query, and focal loss with 0 elsewhere.
    """
    matched, logits = _at_labels(x, targets)
    p = logits.detach().sigmoid()
    quality = (p.pow(alpha) * iou.to(p.dtype).pow(1 - alpha)).clamp_min(0.01)
    nobody = torch.full_like(x.target_of_query, -1)
    rows = sigmoid_focal_loss(x.logits, nobody, alpha=-1.0, gamma=2.0)
    focal = logits.sigmoid().square() * F.softplus(logits)
    of_label = F.softplus(logits) - quality * logits - focal
    return {"loss_ce": (rows + of_label.where(matched, 0)).sum((1, 2)) / divisor}


def _at_labels(x: Matched, targets: SetTargets) -> tuple[Tensor, Tensor]:
    """Which queries have a target, and their logits of its class, (S, B, Q); of the others any."""
    labels, classes = matched_labels(targets.labels, x.target_of_query, -1), x.logits.shape[-1]
    logits = x.logits.gather(-1, labels.clamp(0, classes - 1).unsqueeze(-1)).squeeze(-1)
    return (labels >= 0) & (labels < classes), logits


def corners(b: Tensor) -> Tensor:
    """Boxes (..., 4), centre and size, by their corners."""
    centre, size = torch.split(b, 2, -1)
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], -1)


def target_corners(x: Matched, targets: SetTargets) -> Tensor:
    """(S, B, Q, 4): the corners of each query's target, of a query without one any."""
    return corners(of_queries(targets.boxes.to(x.boxes.dtype), x.target_of_query, -2))
