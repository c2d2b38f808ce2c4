"""The operators that ``LDLoss`` calls; in plain torch those that ``pydistill.ops`` does not have yet."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill import ops
from pydistill.ops._reduction import reduce_reference


def _distance_to_box(points: Tensor, distances: Tensor) -> Tensor:
    low, high = torch.split(distances, 2, -1)
    return torch.cat([points - low, points + high], -1)


def _box_to_distance(points: Tensor, boxes: Tensor, *, max_distance: float, margin: float = 0.1) -> Tensor:
    low, high = torch.split(boxes, 2, -1)
    return torch.cat([points - low, high - points], -1).clamp(0.0, max_distance - margin)


def _giou_loss(p: Tensor, t: Tensor, *, weight: Tensor, reduction: str, avg_factor: Tensor, eps: float) -> Tensor:
    skipped = (weight == 0).unsqueeze(-1)
    p, t = (x.masked_fill(skipped, 0).flatten(0, 1) for x in (p, t))
    rows = 1 - ops.pairwise_iou(p, t, mode="giou", aligned=True, eps=eps).view_as(weight)
    return reduce_reference(rows.masked_fill(weight == 0, 0), weight, reduction, avg_factor)


def _quality_focal_loss(
    x: Tensor, labels: Tensor, scores: Tensor, *, activated: bool, weight: Tensor, reduction: str, avg_factor: Tensor
) -> Tensor:
    x = x.to(scores.dtype).masked_fill((weight == 0).unsqueeze(-1), 0)
    y = torch.where(torch.arange(x.shape[-1], device=x.device) == labels.unsqueeze(-1), scores.unsqueeze(-1), 0.0)
    p = x if activated else x.sigmoid()
    bce = (F.binary_cross_entropy if activated else F.binary_cross_entropy_with_logits)(x, y, reduction="none")
    return reduce_reference((bce * (y - p).square()).sum(-1), weight, reduction, avg_factor)


def _distribution_focal_loss(
    z: Tensor, target: Tensor, *, weight: Tensor, reduction: str, avg_factor: Tensor
) -> Tensor:
    weight = weight.expand_as(target)
    logp = z.to(target.dtype).masked_fill((weight == 0).unsqueeze(-1), 0).log_softmax(-1)
    low = target.floor().long().clamp(0, z.shape[-1] - 2)
    up = (target - low).masked_fill(weight == 0, 0)
    left, right = (logp.gather(-1, i.unsqueeze(-1)).squeeze(-1) for i in (low, low + 1))
    return reduce_reference((up - 1) * left - up * right, weight, reduction, avg_factor)


def _sigmoid_focal_loss(x: Tensor, labels: Tensor, *, weight: Tensor, reduction: str, avg_factor: Tensor) -> Tensor:
    x = x.to(weight.dtype).masked_fill((weight == 0).unsqueeze(-1), 0)
    y = (torch.arange(x.shape[-1], device=x.device) == labels.unsqueeze(-1)).to(x.dtype)
    p = x.sigmoid()
    factor = torch.where(y > 0, 0.25 * (1 - p).square(), 0.75 * p.square())
    rows = (factor * F.binary_cross_entropy_with_logits(x, y, reduction="none")).sum(-1)
    return reduce_reference(rows, weight, reduction, avg_factor)


def _find(name: str, otherwise: Any) -> Any:
    return getattr(ops, name, otherwise)


distance_to_box: Callable[..., Tensor] = _find("distance_to_box", _distance_to_box)
box_to_distance: Callable[..., Tensor] = _find("box_to_distance", _box_to_distance)
giou_loss: Callable[..., Tensor] = _find("giou_loss", _giou_loss)
quality_focal_loss: Callable[..., Tensor] = _find("quality_focal_loss", _quality_focal_loss)
distribution_focal_loss: Callable[..., Tensor] = _find("distribution_focal_loss", _distribution_focal_loss)
sigmoid_focal_loss: Callable[..., Tensor] = _find("sigmoid_focal_loss", _sigmoid_focal_loss)
