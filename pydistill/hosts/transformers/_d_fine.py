"""D-FINE's local loss: what it asks of the distributions over the offsets of box sides."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill.hosts.transformers._stages import Losses, Matched
from pydistill.hosts.transformers._terms import Divisor, target_corners
from pydistill.losses.detr.prediction import SetTargets
from pydistill.ops import distribution_focal_loss, softmax_kl

TEMPERATURE = 5.0


class Sides(NamedTuple):
    """The distributions of S stages, and the last stage, which teaches them."""

    corners: Tensor
    """(S, B, Q, 4 (n + 1)), logits"""
    references: Tensor
    """(S, B, Q, 4): the boxes whose sides are offset, centre and size"""
    teacher_corners: Tensor
    """(B, Q, 4 (n + 1))"""
    teacher_logits: Tensor
    """(B, Q, C)"""


def local_terms(x: Matched, targets: SetTargets, iou: Tensor, sides: Sides, config: Any, divisor: Divisor) -> Losses:
    """``loss_fgl``: cross entropy with the bins around the target's offset, of matched queries, weighted by their IoU.
    ``loss_ddf``: divergence from the last stage, of all queries.

    Args:
        x: S stages.
        targets: Objects.
        iou: (S, B, Q).
        sides: The distributions.
        config: with ``max_num_bins``, ``reg_scale`` and ``up``.
        divisor: Number of objects.
    """
    logits = sides.corners.reshape(*iou.shape, 4, config.max_num_bins + 1)
    offsets = _offsets(sides.references.detach(), target_corners(x, targets), config)
    weight = iou.unsqueeze(-1).expand(offsets.shape)
    return {
        "loss_fgl": distribution_focal_loss(logits, offsets, weight=weight).sum((1, 2, 3)) / divisor,
        "loss_ddf": _divergence(x, iou, logits, sides),
    }


def _divergence(x: Matched, iou: Tensor, logits: Tensor, sides: Sides) -> Tensor:
    matched = x.target_of_query >= 0
    trust = torch.where(matched, iou, sides.teacher_logits.detach().amax(-1).sigmoid().to(iou.dtype))
    teacher = sides.teacher_corners.detach().view(logits.shape[1:]).expand_as(logits)
    weight = trust.unsqueeze(-1).expand(logits.shape[:-1])
    rows = softmax_kl(logits, teacher, temperature=TEMPERATURE, weight=weight).sum(-1)
    both = matched, matched.logical_not()
    counts = [mask.sum((1, 2)) for mask in both]
    means = [rows.where(mask, 0).sum((1, 2)) / (4 * n).clamp_min(1) for mask, n in zip(both, counts)]
    share = [n.sqrt() for n in counts]  # what both are multiplied by cancels
    return (means[0] * share[0] + means[1] * share[1]) / (share[0] + share[1])


def _offsets(references: Tensor, boxes: Tensor, config: Any) -> Tensor:
    """(S, B, Q, 4): where the sides of ``boxes``, by corners, lie among the bins, as whole bins and a fraction."""
    scale = abs(config.reg_scale)
    (centre, size), (low, high) = torch.split(references, 2, -1), torch.split(boxes, 2, -1)
    unit = size / scale + 1e-16
    sides = torch.cat([(centre - low) / unit, (high - centre) / unit], -1) - 0.5 * scale
    values = bin_values(config, sides.device)
    left = torch.searchsorted(values.to(sides.dtype), sides.contiguous(), right=True) - 1
    inside = left.clamp(0, config.max_num_bins - 1)
    before, after = (sides - values.take(inside)).abs(), (values.take(inside + 1) - sides).abs()
    places: Tensor = inside + before / (before + after)
    return places.where(left >= 0, 0).where(left < config.max_num_bins, config.max_num_bins)


def bin_values(config: Any, device: torch.device) -> Tensor:
    """(n + 1,): the offsets that the bins stand for, dense about 0; the outermost are apart."""
    half, most = config.max_num_bins // 2, abs(config.up) * abs(config.reg_scale)
    place = torch.arange(-half, half + 1, device=device, dtype=torch.float64)
    size = (most + 1) ** (place.abs() / (half - 1)) - 1
    values: Tensor = place.sign() * size.where(place.abs() < half, 2 * most)
    return values.float()
