"""The terms of ``LDLoss``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.losses.ld.prediction import Parts, by_level, joined
from pydistill.losses.ld.regions import imitation_masks
from pydistill.losses.ld.step import Step
from pydistill.losses.normalizers import divide, joint_mean
from pydistill.losses.once import once
from pydistill.ops import (
    box_to_distance,
    ciou_loss,
    diou_loss,
    distribution_focal_loss,
    fine_grained_region,
    general_instance_region,
    giou_loss,
    inside_region,
    masked_feature_loss,
    pairwise_iou,
    quality_focal_loss,
    sigmoid_focal_loss,
    softmax_kl,
)

_EPS = 1e-6  # of all IoUs, in squared strides, as in mmdetection
_BOX_LOSSES: dict[str, Callable[..., Tensor]] = {
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
    "ciou_released": partial(ciou_loss, alpha="released"),
    "ciou_mmdet": partial(ciou_loss, alpha="mmdet"),
}


class Objective(Step):
    """The terms of one batch under the names of their weights, not weighted yet."""

    def classification(self) -> Tensor:
        """Quality or sigmoid focal loss of all anchors that are not ignored."""
        labels, weight = self.targets.labels, self.targets.ignored.logical_not().to(self.dtype)
        if self.settings.detector.classification == "focal":
            rows = by_level(lambda z, y, w: sigmoid_focal_loss(z, y, weight=w), self.logits, labels, weight)
        else:
            activated = self.scores is not None
            rows = by_level(
                lambda z, y, q, w: quality_focal_loss(z, y, q, weight=w, activated=activated),
                self.logits if self.scores is None else self.scores,
                labels,
                self._quality(),
                weight,
            )
        return divide(rows.sum(), self.divisors["samples"] + self.settings.rules.eps)

    def _quality(self) -> Tensor:
        """(B, A): IoU of the predicted with the annotated box, 0 where not positive."""
        predicted, boxes = self.student_boxes.detach().flatten(0, 1), self.targets.boxes.flatten(0, 1)
        iou = pairwise_iou(predicted, boxes, aligned=True, eps=_EPS).view_as(self.targets.positive)
        return iou.masked_fill(self.targets.positive.logical_not(), 0)

    def centerness(self) -> Tensor:
        """Binary cross entropy at the positives; other logits are not looked at."""
        assert self.student.centerness is not None
        logits, positive = joined(self.student.centerness), self.targets.positive
        logits = logits.to(self.dtype).masked_fill(positive.logical_not(), 0)
        rows = F.binary_cross_entropy_with_logits(logits, self.centerness_target, reduction="none")
        return divide((rows * positive).sum(), self.divisors["samples"] + self.settings.rules.eps)

    def box(self) -> Tensor:
        """GIoU loss, or another one, against the annotated boxes."""
        return self._box_loss(self.targets.boxes)

    def _box_loss(self, target: Tensor) -> Tensor:
        divisor = self.divisors["box"] * (1 + self.settings.rules.eps)
        return _BOX_LOSSES[self.settings.rules.box_loss](
            self.student_boxes, target, weight=self.box_weight, reduction="mean", avg_factor=divisor, eps=_EPS
        )

    def dfl(self) -> Tensor:
        """Distribution focal loss of the annotated sides."""
        target = box_to_distance(self.targets.points, self.targets.boxes, max_distance=self.student.bins - 1)
        rows = by_level(
            lambda z, y, w: distribution_focal_loss(z, y, weight=w),
            self.distributions,
            target,
            self.box_weight.unsqueeze(-1),
        )
        return divide(rows.sum(), self.divisors["box"] * (4 + self.settings.rules.eps))

    @once
    def _side_rows(self) -> Tensor:
        """(B, A): the divergences of an anchor's sides, added up; not read where no term needs them."""
        needed = self._needed("main_ld", "vlr_ld")
        if self.settings.rules.joint_sides:
            return self._divergence(self.student.sides, self.teacher.sides, needed, self.settings.temperature)
        teacher = self.teacher.distributions()
        rows = self._divergence(self.distributions, teacher, needed.unsqueeze(-1), self.settings.temperature)
        return rows.sum(-1)

    @once
    def _class_rows(self) -> Tensor:
        """(B, A): the divergence of the class logits; not read where no term needs it."""
        needed = self._needed("main_kd", "vlr_kd")
        return self._divergence(self.logits, self.teacher.logits, needed, self.settings.kd_temperature)

    def _divergence(self, student: Parts, teacher: Parts, weight: Tensor, temperature: float) -> Tensor:
        options: dict[str, Any] = dict(temperature=temperature, bins=self.settings.rules.bins)
        return by_level(lambda s, t, w: softmax_kl(s, t, weight=w, **options), student, teacher, weight)

    def _needed(self, main: str, vlr: str) -> Tensor:
        """(B, A) bool: the anchors of those of the two terms that are on."""
        masks = [self.targets.positive] if main in self.on else []
        if vlr in self.on:
            masks.append(self.region_weight > 0)
        return masks[0] if len(masks) == 1 else masks[0] | masks[1]

    def main_ld(self) -> Tensor:
        """The sides at the positives."""
        return self._localization(self.main_weight)

    def vlr_ld(self) -> Tensor:
        """The sides in the valuable localization region."""
        return self._localization(self.region_weight)

    def _localization(self, weight: Tensor) -> Tensor:
        rules = self.settings.rules
        total = (self._side_rows * weight).sum() / (4 + rules.eps)
        if rules.ld_normalizer == "sum":
            return total
        return divide(total * rules.images_per_process, self.divisors["images"])

    def main_kd(self) -> Tensor:
        """The classes at the positives."""
        return self._classes(self.targets.positive, "positives")

    def vlr_kd(self) -> Tensor:
        """The classes in the valuable localization region."""
        return self._classes(self.region_weight > 0, "region")

    def _classes(self, mask: Tensor, count: str) -> Tensor:
        rules = self.settings.rules
        rows = self._class_rows * (mask & self.targets.ignored.logical_not())
        if rules.kd_normalizer == "levels":
            return _level_means(rows, mask, self.scene.level_sizes)
        return divide(rows.sum(), self.divisors[count])

    def imitation(self) -> Tensor:
        """Mean squared difference of the features in a region, added up over the levels."""
        scope, sizes = self.settings.rules.imitation_scope, self.scene.level_sizes
        masks = imitation_masks(self._imitated(), sizes, self.features[0])
        counts = {str(level): mask.sum().to(self.dtype) for level, mask in enumerate(masks)}
        if scope == "image":
            counts = joint_mean(counts)
        losses = [
            masked_feature_loss(s, t, mask, normalizer=count)
            for s, t, mask, count in zip(*self.features, masks, counts.values(), strict=True)
        ]
        if scope == "batch":  # the released code leaves out levels without positives
            levels = torch.split(self.targets.positive, sizes, 1)
            losses = [loss * level.any() for loss, level in zip(losses, levels, strict=True)]
        return torch.stack(losses).sum()

    def _imitated(self) -> Tensor:
        """(B, A) bool: the anchors whose features are imitated."""
        scene, name = self.scene, self.settings.imitation_region
        if name == "fine_grained":
            return fine_grained_region(scene.anchors, scene.boxes, scene.counts, valid=scene.valid)
        if name == "inside":
            return inside_region(scene.points, scene.boxes, scene.counts, valid=scene.valid)
        student, teacher = self.scores, self.joint_scores(self.teacher)
        activated = student is not None and teacher is not None
        if student is None or teacher is None:
            student, teacher = joined(self.student.logits), joined(self.teacher.logits)
        return general_instance_region(
            student.detach(),
            teacher.detach(),
            self.student_boxes.detach(),
            self.teacher_boxes,
            scene.level_sizes,
            scope=self.settings.rules.imitation_scope,
            activated=activated,
            valid=scene.valid,
        )

    def pseudo_box(self) -> Tensor:
        """GIoU loss against the teacher's boxes."""
        return self._box_loss(self.teacher_boxes)


def _level_means(rows: Tensor, mask: Tensor, level_sizes: list[int]) -> Tensor:
    """The means of ``rows`` (B, A) over the ``mask`` of each level, added up."""
    levels = zip(torch.split(rows, level_sizes, 1), torch.split(mask, level_sizes, 1), strict=True)
    return torch.stack([divide(x.sum(), m.sum().to(x.dtype)) for x, m in levels]).sum()
