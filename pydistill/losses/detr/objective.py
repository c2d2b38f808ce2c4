"""The terms of ``DETRDistillLoss``."""

import torch
from torch import Tensor

from pydistill.losses.detr import classification
from pydistill.losses.detr.features import squared_masks
from pydistill.losses.detr.prediction import SetPrediction
from pydistill.losses.detr.relation import RelationHead
from pydistill.losses.detr.step import Step
from pydistill.losses.normalizers import divide, joint_mean
from pydistill.losses.once import once
from pydistill.ops import (
    BoxLosses,
    DistillationTerms,
    info_nce_loss,
    masked_feature_loss,
    matched_box_loss,
    matched_distillation_loss,
    softmax_kl,
)
from pydistill.ops._matched import matched, of_queries


class Objective(Step):
    """The terms of one batch, not weighted yet, each the sum of its stages."""

    head: RelationHead | None = None

    def classification(self) -> Tensor:
        """Of the student's queries against the annotated labels."""
        return self._classification(self.student, self.student_match)

    def l1(self) -> Tensor:
        """Of the student's boxes against the annotated ones."""
        return self._over_boxes(self._student_boxes.l1)

    def giou(self) -> Tensor:
        """The same, one minus the generalized IoU."""
        return self._over_boxes(self._student_boxes.giou)

    def group_classification(self) -> Tensor:
        """Of the teacher's queries in the student."""
        return self._classification(self.group, self.group_match)

    def group_l1(self) -> Tensor:
        """Of their boxes."""
        return self._over_boxes(self._group_boxes.l1)

    def group_giou(self) -> Tensor:
        """The same, one minus the generalized IoU."""
        return self._over_boxes(self._group_boxes.giou)

    @once
    def _student_boxes(self) -> BoxLosses:
        return self._boxes(self.student, self.student_match)

    @once
    def _group_boxes(self) -> BoxLosses:
        return self._boxes(self.group, self.group_match)

    def _boxes(self, prediction: SetPrediction, match: Tensor) -> BoxLosses:
        return matched_box_loss(
            prediction.boxes,
            self.targets.boxes,
            match,
            giou_eps=self.settings.rules.giou_eps,
            image_sizes=self.image_sizes,
            l1_format=self.settings.detector.l1_format,
        )

    def _over_boxes(self, stages: Tensor) -> Tensor:
        return stages.sum() / (self.divisor("boxes") + self.settings.rules.eps)

    def _classification(self, prediction: SetPrediction, match: Tensor) -> Tensor:
        form, rules = self.settings.detector.form, self.settings.rules
        if form == "softmax":
            stages, weights = classification.cross_entropy(prediction, self.targets, match, rules.eos_weight)
            if rules.scope == "joint":
                weights = joint_mean({"weights": weights})["weights"]
            return divide(stages, weights + rules.eps).sum()
        of_stages = classification.focal if form == "focal" else classification.varifocal
        return self._over_boxes(of_stages(prediction, self.targets, match))

    def instance_class(self) -> Tensor:
        """Classes of the student's queries against those of the teacher's that they are matched with."""
        stages = self._softmax_class() if self.settings.detector.background else self._instances.class_loss
        return self._over_pairs(stages, self.settings.rules.scope)

    def instance_l1(self) -> Tensor:
        """Their boxes."""
        return self._over_pairs(self._instances.l1, "joint")

    def instance_giou(self) -> Tensor:
        """The same, one minus the generalized IoU."""
        return self._over_pairs(self._instances.giou, "joint")

    def _over_pairs(self, stages: Tensor, scope: str) -> Tensor:
        return divide(stages, self.divisor("pairs", scope) + self.settings.rules.eps).sum()

    @once
    def _instances(self) -> DistillationTerms:
        """Sums over the pairs of each stage."""
        rules, teacher = self.settings.rules, self.paired_teacher
        of_class, of_box = self.pair_weights
        if self.settings.detector.background or "instance_class" not in self.on:
            of_class = 0.0, 0.0  # not read
        return matched_distillation_loss(
            self.student.logits,
            self.student.boxes,
            teacher.logits,
            teacher.boxes,
            self.pairs,
            positive=self.positive,
            class_positive=of_class[0],
            class_negative=of_class[1],
            box_positive=of_box[0],
            box_negative=of_box[1],
            normalizer=1.0,
            image_sizes=self.image_sizes,
            clamp_targets=rules.clamp_teacher,
            giou_eps=rules.giou_eps,
        )

    def _softmax_class(self) -> Tensor:
        """(L,): KL divergence of the classes, no object among them."""
        teacher = self.paired_teacher.logits
        used = matched(self.pairs, teacher.shape[2]).to(self.dtype)
        of_positive, of_negative = self.pair_weights[0]
        if of_positive != of_negative:
            used = used * torch.where(self.positive_pairs, of_positive, of_negative)
        else:
            used = used * of_positive
        theirs = of_queries(teacher, self.pairs, -2)
        return softmax_kl(self.student.logits, theirs, weight=used, reduction="none").sum((1, 2))

    def feature(self) -> Tensor:
        """Squared difference of the features under the masks."""
        s, rules = self.settings, self.settings.rules
        masks = squared_masks(s.region, self.teacher, self.targets, rules, s.detector.background)
        images = self.divisor("images", rules.scope)
        losses = [
            masked_feature_loss(x, y, mask, normalizer=images * (x.shape[2] * x.shape[3]))
            for x, y, mask in zip(self.student.features, self.teacher.features, masks, strict=True)
        ]
        return torch.stack(losses).sum()

    def relation(self) -> Tensor:
        """InfoNCE between the queries of student and teacher, stage by stage."""
        own, theirs = self.student.queries, self.paired_teacher.queries
        assert own is not None and theirs is not None
        valid = matched(self.pairs, theirs.shape[2])
        losses = []
        for x, y, match, used in zip(own.unbind(0), theirs.unbind(0), self.pairs.unbind(0), valid.unbind(0)):
            images, queries, _ = y.shape
            x, z = x.flatten(0, 1), y.flatten(0, 1)
            if self.head is not None:
                x, z = self.head(x, z)
            z = of_queries(z.view(images, queries, -1), match, -2).flatten(0, 1)
            temperature = self.settings.rules.temperature
            losses.append(info_nce_loss(x, z, temperature=temperature, detach_target=False, valid=used.flatten()))
        return torch.stack(losses).sum()
