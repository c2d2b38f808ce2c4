"""Masks at sampled points, for the mask terms of ``match_cost``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.ops._register import accumulator


def at_points(
    masks: Tensor | None, target_masks: Tensor | None, points: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Masks (..., B, K, h, w) at the points of their image, (..., B, K, P); without points, as they are."""
    if points is None:
        return masks, target_masks
    if masks is None or target_masks is None:
        raise ValueError("match_cost: expected points only with mask_logits and target_masks, got None of these")
    _check_points(points, masks)
    wide = accumulator(masks.dtype)
    return _sample("mask_logits", masks, points, wide), _sample("target_masks", target_masks, points, wide)


def _sample(name: str, maps: Tensor, points: Tensor, dtype: torch.dtype) -> Tensor:
    if maps.ndim < 4 or maps.shape[-4] != points.shape[0] or 0 in maps.shape[-2:]:
        raise ValueError(
            f"match_cost: with points, expected {name} of shape (..., {points.shape[0]}, K, h, w),"
            f" got {list(maps.shape)}"
        )
    if maps.is_complex():
        raise TypeError(f"match_cost: expected real {name}, got {maps.dtype}")
    leading = maps.shape[:-3]
    with torch.autocast(maps.device.type, enabled=False):
        grid = 2 * points.detach().to(dtype) - 1
        grid = grid.expand(*leading, *grid.shape[1:]).flatten(0, -3).unsqueeze(1)
        sampled = F.grid_sample(maps.detach().to(dtype).flatten(0, -4), grid, align_corners=False)
    return sampled.view(*leading, maps.shape[-3], points.shape[1])


def _check_points(points: Tensor, masks: Tensor) -> None:
    if not points.is_floating_point():
        raise TypeError(f"match_cost: expected points of a floating dtype, got {points.dtype}")
    if points.ndim != 3 or points.shape[1] == 0 or points.shape[2] != 2 or points.device != masks.device:
        raise ValueError(
            "match_cost: expected points of shape (B, P, 2), one or more, on the device of the masks,"
            f" got {list(points.shape)} on {points.device}"
        )
