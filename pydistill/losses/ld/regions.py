"""Where is distilled what: the valuable localization region, and the region of imitated features."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pydistill.losses.ld.presets import LDRules
from pydistill.losses.ld.targets import Scene, Targets
from pydistill.ops import assign_atss, inside_region, valuable_localization_region


def vlr_weight(scene: Scene, targets: Targets, rules: LDRules, assigner: str, gamma: float) -> Tensor:
    """(B, A): the weight of each anchor in the valuable localization region, 0 outside; 1 unless it is the IoU."""
    dtype = targets.boxes.dtype
    exclude = None if rules.positives_in_vlr else targets.positive
    if not rules.ignored_in_vlr:
        exclude = targets.ignored if exclude is None else exclude | targets.ignored
    if rules.vlr_region == "band":
        return valuable_localization_region(
            scene.anchors,
            scene.boxes,
            scene.counts,
            _threshold(scene, targets, rules, assigner),
            gamma=gamma,
            measure=rules.vlr_measure,
            upper=rules.vlr_upper,
            weight="iou" if rules.vlr_weight == "iou" else "one",
            valid=scene.valid,
            exclude=exclude,
        ).to(dtype)
    if rules.vlr_region == "inside":
        region = inside_region(scene.points, scene.boxes, scene.counts, valid=scene.valid)
    else:
        region = torch.ones_like(targets.positive) if scene.valid is None else scene.valid
    return (region if exclude is None else region & exclude.logical_not()).to(dtype)


def _threshold(scene: Scene, targets: Targets, rules: LDRules, assigner: str) -> Tensor:
    if assigner == "atss" or (rules.vlr_threshold == "assigner" and targets.threshold is not None):
        assert targets.threshold is not None
        return targets.threshold
    return assign_atss(scene.anchors, scene.level_sizes, scene.boxes, scene.counts, valid=scene.valid).threshold


def imitation_masks(region: Tensor, level_sizes: Sequence[int], maps: Sequence[Tensor]) -> list[Tensor]:
    """(B, h, w) bool of each level's feature map: the locations with an anchor in ``region`` (B, A)."""
    levels = zip(torch.split(region, list(level_sizes), 1), maps, strict=True)
    return [part.reshape(len(part), *x.shape[-2:], -1).any(-1) for part, x in levels]
