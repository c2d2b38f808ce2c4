"""Where the teacher's features are imitated."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pydistill.losses.detr.prediction import SetPrediction, SetTargets
from pydistill.losses.detr.presets import DETRRules
from pydistill.ops import inside_region, query_feature_mask, query_quality
from pydistill.ops._register import accumulator


def squared_masks(
    region: str, teacher: SetPrediction, targets: SetTargets, rules: DETRRules, background: bool
) -> list[Tensor]:
    """(B, h, w) of each level: the squares of the masks of all stages of ``teacher``, added up."""
    stages = len(teacher.logits)
    if region == "none":
        return [_ones(x) * stages for x in teacher.features]
    if region == "boxes":
        return [_inside(x, targets).to(_ones(x).dtype) * stages for x in teacher.features]
    assert teacher.queries is not None
    index = None
    if region == "query":
        quality = torch.ones_like(teacher.logits.detach().select(-1, 0))
    else:
        scores = teacher.logits.detach()
        if background:
            scores = scores.to(accumulator(scores.dtype)).softmax(-1).narrow(-1, 0, scores.shape[-1] - 1)
        quality, index = query_quality(
            scores,
            teacher.boxes,
            targets.boxes,
            targets.counts,
            gamma=rules.gamma,
            topk=rules.topk,
            form=rules.quality,
            activated=background,
            image_sizes=targets.image_sizes if rules.pixels else None,
        )
    masks: Sequence[Tensor] = query_feature_mask(
        teacher.queries, quality, teacher.features, index=index, floor=rules.floor, normalize=rules.normalize
    )
    return [mask.square().sum(0) for mask in masks]


def _ones(x: Tensor) -> Tensor:
    return torch.ones((x.shape[0], *x.shape[2:]), dtype=accumulator(x.dtype), device=x.device)


def _inside(x: Tensor, targets: SetTargets) -> Tensor:
    """(B, h, w) bool: the pixels of the map ``x`` (B, D, h, w) whose centre is in an annotated box."""
    h, w = x.shape[2:]
    boxes = targets.boxes
    row, column = (
        (torch.arange(n, dtype=boxes.dtype, device=boxes.device) + 0.5) / max(n, 1) for n in (h, w)
    )  # the map covers the image
    points = torch.stack([column.expand(h, w), row.unsqueeze(1).expand(h, w)], -1).reshape(h * w, 2)
    centre, size = torch.split(boxes, 2, -1)
    corners = torch.cat([centre - size / 2, centre + size / 2], -1)
    return inside_region(points, corners, targets.counts).view(-1, h, w)
