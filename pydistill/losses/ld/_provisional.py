"""The operators that ``LDLoss`` calls; in plain torch those that ``pydistill.ops`` does not have yet."""

from collections.abc import Callable
from typing import Any

import torch
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


def _find(name: str, otherwise: Any) -> Any:
    return getattr(ops, name, otherwise)


distance_to_box: Callable[..., Tensor] = _find("distance_to_box", _distance_to_box)
box_to_distance: Callable[..., Tensor] = _find("box_to_distance", _box_to_distance)
giou_loss: Callable[..., Tensor] = _find("giou_loss", _giou_loss)
