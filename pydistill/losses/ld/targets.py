"""Which anchor learns which box, for every anchor of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pydistill.ops import assign_atss, assign_max_iou, assign_points
from pydistill.ops.assign_atss import BACKGROUND, IGNORED


@dataclass(frozen=True)
class Scene:
    """Anchors and objects of a batch, as ``LDLoss.forward`` gets them."""

    anchors: Tensor  # (A, 4) pixels, or (A, 2) points
    level_sizes: list[int]
    strides: Sequence[float]
    boxes: Tensor  # (B, G, 4) pixels
    labels: Tensor  # (B, G)
    counts: Tensor  # (B,)
    valid: Tensor | None  # (B, A) bool
    ignore_boxes: Tensor | None
    ignore_counts: Tensor | None
    ignore_threshold: float

    @property
    def points(self) -> Tensor:
        """(A, 2) pixels: the anchors' centres."""
        if self.anchors.shape[1] == 2:
            return self.anchors
        low, high = torch.split(self.anchors, 2, 1)
        return (low + high) / 2

    def stride(self) -> Tensor:
        """(A, 1): of each anchor's level."""
        # filled, not copied from the host, so that a graph may be captured
        new = self.anchors.new_empty
        return torch.cat([new(n, 1).fill_(s) for n, s in zip(self.level_sizes, self.strides, strict=True)])


@dataclass(frozen=True)
class Targets:
    """What the detector learns at each anchor."""

    positive: Tensor  # (B, A) bool
    ignored: Tensor  # (B, A) bool
    labels: Tensor  # (B, A) int64, -1 background
    points: Tensor  # (A, 2) in strides
    boxes: Tensor  # (B, A, 4) in strides; of no meaning where not positive
    threshold: Tensor | None  # (B, G) of the assigner, if it has any

    def centerness(self) -> Tensor:
        """(B, A): how central the anchor is in its box, 0 where not positive."""
        low, high = torch.split(self.boxes, 2, -1)
        near, far = self.points - low, high - self.points
        ratio = torch.minimum(near, far) / torch.maximum(near, far)
        return ratio.prod(-1).masked_fill(self.positive.logical_not(), 0).sqrt()


def _assign(scene: Scene, assigner: str) -> tuple[Tensor, Tensor | None]:
    """(B, A) index of a box, -1 background, -2 ignored; and the assigner's thresholds (B, G) if it has any."""
    if assigner == "points":
        # FCOS' ranges, for any strides: a level's largest distance is 8 of its strides
        ends = [-1.0, *(8 * s for s in scene.strides[:-1]), torch.inf]
        ranges = list(zip(ends, ends[1:]))
        points, sizes, strides = scene.points, scene.level_sizes, scene.strides
        return assign_points(
            points, strides, sizes, scene.boxes, scene.counts, regress_ranges=ranges, valid=scene.valid
        ).gt_index, None
    ignore: dict[str, Any] = dict(
        ignore_boxes=scene.ignore_boxes, ignore_counts=scene.ignore_counts, ignore_threshold=scene.ignore_threshold
    )
    if assigner == "max_iou":
        found = assign_max_iou(scene.anchors, scene.boxes, scene.counts, valid=scene.valid, **ignore)
    else:
        found = assign_atss(scene.anchors, scene.level_sizes, scene.boxes, scene.counts, valid=scene.valid, **ignore)
    return found.gt_index, found.threshold


def targets_of(scene: Scene, assigner: str, classes: int, dtype: torch.dtype) -> Targets:
    """The targets of a batch, whose boxes are given in ``dtype``."""
    found, threshold = _assign(scene, assigner)
    index = found.clamp(min=0)
    labels = scene.labels.gather(1, index)
    # a label outside the classes is background
    positive = (found >= 0) & (labels >= 0) & (labels < classes)
    stride = scene.stride().to(dtype)
    boxes = scene.boxes.to(dtype).gather(1, index.unsqueeze(-1).expand(-1, -1, 4)) / stride
    return Targets(
        positive,
        found == IGNORED,
        labels.masked_fill(positive.logical_not(), BACKGROUND),
        scene.points.to(dtype) / stride,
        boxes,
        threshold,
    )
