"""DETRDistill: distillation of detectors that predict a set of boxes with queries."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from pydistill.losses.detr.objective import Objective
from pydistill.losses.detr.prediction import (
    SetPrediction,
    SetTargets,
    check_features,
    check_group,
    check_prediction,
    check_relation,
    check_targets,
    check_teacher,
)
from pydistill.losses.detr.presets import DETECTORS, REFERENCES, DetectorName, Reference, pair_weights, rules_of
from pydistill.losses.detr.relation import RelationHead
from pydistill.losses.detr.step import Settings
from pydistill.losses.options import Loss, check_not_negative, printed
from pydistill.ops import _check
from pydistill.ops._match_options import PRESETS

FeatureRegion = Literal["quality", "query", "boxes", "none"]

_REGIONS = ("quality", "query", "boxes", "none")
_OWN = ("classification", "l1", "giou")
_INSTANCE = ("instance_class", "instance_l1", "instance_giou")
_GROUP = ("group_classification", "group_l1", "group_giou")


class DETRDistillLoss(Loss):
    r"""A set detector's own objective, and what a teacher's queries know of classes, boxes, features and assignment.

    With x, b the class logits and boxes of the student's queries, :math:`t, b^T` those of the teacher's, and
    :math:`\sigma_k` the matchings of stage k, each term is the sum over the student's L decoder stages of

    ==================== ==========================================================================================
    classification       focal loss of all queries, matched with the annotated boxes, over the number of boxes;
                         varifocal loss of RT-DETR and D-FINE; cross entropy of DETR
    l1, giou             :math:`\lVert b - b_t \rVert_1` and :math:`1 - GIoU` of the matched ones, over the number of
                         boxes
    instance_class       cross entropy with the probabilities of the teacher's query that the student's is matched
                         with, :math:`\sum_c \log(1 + e^{x_c}) - x_c\,\sigma(t_c)`, of positive pairs, over N, the
                         number of pairs; of DETR the KL divergence of its softmax, no object among the classes
    instance_l1,         L1 and GIoU losses of all pairs, over N
    instance_giou
    feature              :math:`\sum_{level} \overline{M^2 (F^T - F^S)^2}`, M the similarity of the teacher's features
                         and queries, these weighted by class score and overlap with the annotated boxes
    relation             InfoNCE between matched queries of student and teacher, in a learned space
    ``group_...``        the detector's own losses of the teacher's queries in the student, with the boxes that the
                         teacher's queries have in the teacher
    ==================== ==========================================================================================

    times their weights. All matchings of a step are one call of :func:`pydistill.ops.hungarian_match_all`. No step
    waits for the device, shapes do not depend on the data, and images without boxes are nothing special.

    With ``reference="paper"`` all terms but relation are those of the joint batch: two processes give the gradients of
    one. ``"released"`` (BIVLab-USTC/DETRDistill, of Deformable DETR) reproduces that code, with ``image_sizes``; the
    documentation lists where they disagree, and :class:`DETRRules` the option of each.

    Args:
        detector: ``"deformable_detr"``, ``"conditional_detr"``, ``"detr"``, ``"rt_detr"``, ``"d_fine"`` or
            ``"adamixer"``: matching costs, class loss and weights follow from it.
        reference: ``"paper"`` or ``"released"``.
        classification, l1, giou: Weights of the detector's own terms. None: 2, 5 and 2 with focal loss, else 1, 5 and
            2. 0, all three: the host has its own loss.
        instance: Weight of the instance terms, times ``instance_weights``, by default 1, 5 and 2.
        feature: Weight of the feature term.
        relation: Weight of the relation term. None: 0 in the paper, 0.2 released.
        group: Weight of the group's terms, times the detector's default weights.
        stages: For each of the student's stages one of the teacher's. None: the k-th of L learns from the one as deep,
            :math:`\operatorname{round}((k + 1) L_T / L) - 1`.
        feature_region: ``"quality"``; ``"query"``, all queries alike; ``"boxes"``, the annotated boxes, if a map covers
            what boxes are measured in; or ``"none"``, everywhere.
        projection: ``(channels of the queries, hidden)`` of the relation's head, whose parameters are this module's and
            want an optimizer; (256, 512) as released. None: the queries themselves are compared.
        options: Fields of :class:`DETRRules` that override what ``reference`` says.

    Raises:
        ValueError: for values outside the above.
        TypeError: for an option that is not a field of :class:`DETRRules`.

    Reference:
        Chang et al., ICCV 2023, arXiv:2211.10156, equations 3 to 10; the detectors' own terms: Zhu et al., ICLR 2021,
        arXiv:2010.04159 (Deformable DETR), Carion et al., ECCV 2020, arXiv:2005.12872 (DETR), Zhao et al., CVPR 2024,
        arXiv:2304.08069 (RT-DETR).
    """

    @printed("detector", "reference")
    def __init__(
        self,
        *,
        detector: DetectorName = "deformable_detr",
        reference: Reference = "paper",
        classification: float | None = None,
        l1: float | None = None,
        giou: float | None = None,
        instance: float = 1.0,
        feature: float = 1.0,
        relation: float | None = None,
        group: float = 1.0,
        stages: Sequence[int] | None = None,
        feature_region: FeatureRegion = "quality",
        projection: tuple[int, int] | None = None,
        **options: Any,
    ):
        super().__init__()
        for name, value, known in (
            ("detector", detector, tuple(DETECTORS)),
            ("reference", reference, REFERENCES),
            ("feature_region", feature_region, _REGIONS),
        ):
            if value not in known:
                raise ValueError(f"DETRDistillLoss: expected {name} in {known}, got {value!r}")
        if relation is None and reference == "released" and projection is None:
            raise ValueError(
                "DETRDistillLoss: expected projection, (256, 512) as released, or relation=0 to leave its term out, "
                "got None"
            )
        chosen, rules = DETECTORS[detector], rules_of(reference, options)
        usual = dict(zip(_OWN, (chosen.classification, chosen.l1, chosen.giou), strict=True))
        own = dict(classification=classification, l1=l1, giou=giou)
        scales = {
            "instance": instance,
            "feature": feature,
            "relation": (0.2 if reference == "released" else 0.0) if relation is None else relation,
            "group": group,
            **{name: usual[name] if weight is None else weight for name, weight in own.items()},
        }
        check_not_negative("DETRDistillLoss", scales)
        of_class, of_box = pair_weights(rules)
        taught = (any(of_class), any(of_box), any(of_box))
        weights = {
            **{name: scales[name] for name in _OWN},
            **{n: instance * w * t for n, w, t in zip(_INSTANCE, rules.instance_weights, taught, strict=True)},
            "feature": feature,
            "relation": scales["relation"],
            **{name: group * weight for name, weight in zip(_GROUP, usual.values(), strict=True)},
        }
        matching = chosen.matching if reference == "paper" else chosen.released_matching
        self.settings = Settings(chosen, rules.matching or matching, rules, weights, feature_region)
        self.stages = None if stages is None else list(stages)
        self.head = RelationHead(*projection) if projection and weights["relation"] else None

    def forward(
        self,
        student: SetPrediction,
        teacher: SetPrediction | None,
        targets: SetTargets,
        *,
        group: SetPrediction | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms.

        Args:
            student: Of B images; float64, float32, float16 or bfloat16.
            teacher: Of the same images, a constant; stages and queries may be more or fewer. None: the detector's own
                terms alone.
            targets: The annotated objects.
            group: What the student makes of the teacher's queries, in their order. Needed where ``group`` has a weight.

        Returns:
            Of each term that is on its 0-dim loss, weighted; float64 for float64, else float32. Their sum is the loss.

        Raises:
            ValueError: if shapes are not as above, if student, teacher and group do not fit one another, or if what a
                term needs is missing; under ``pydistill.checking`` also for labels, boxes and counts out of range.
        """
        distilled = {"feature", "relation", *_INSTANCE, *_GROUP}
        on = {n for n, weight in self.settings.weights.items() if weight and not (teacher is None and n in distilled)}
        self._check(on, student, teacher, targets, group)
        if targets.labels.shape[1] == 0:  # gathering needs something to gather from: a box that does not count
            b = len(targets.labels)
            targets = replace(targets, labels=targets.labels.new_zeros(b, 1), boxes=targets.boxes.new_zeros(b, 1, 4))
        other = student if teacher is None else teacher
        same, paired = self._stages(len(student.logits), len(other.logits))
        step = Objective(
            self.settings, on, student, other.detach(), targets, student if group is None else group, same, paired
        )
        step.head = self.head
        return {name: weight * getattr(step, name)() for name, weight in self.settings.weights.items() if name in on}

    def _stages(self, own: int, theirs: int) -> tuple[list[int], list[int]]:
        """The teacher's stage for each of the student's, and the same for instances and relation."""
        same = self.stages
        if same is None:
            same = [max((2 * (k + 1) * theirs + own) // (2 * own) - 1, 0) for k in range(own)]
        if len(same) != own or not all(0 <= k < theirs for k in same):
            raise ValueError(
                f"DETRDistillLoss: expected stages, {own} numbers below the teacher's {theirs} stages, got {same}"
            )
        return same, [theirs - 1] * own if self.settings.rules.instance_stage == "last" else same

    def _check(
        self,
        on: set[str],
        student: SetPrediction,
        teacher: SetPrediction | None,
        targets: SetTargets,
        group: SetPrediction | None,
    ) -> None:
        rules, background = self.settings.rules, self.settings.detector.background
        check_prediction("student", student)
        check_targets(targets, student.logits.shape[1])
        if (rules.pixels or PRESETS[self.settings.matching].pixels) and targets.image_sizes is None:
            raise ValueError(
                "DETRDistillLoss: expected targets.image_sizes, since the smallest overlap is an area in pixels, "
                "got None"
            )
        if teacher is not None:
            taught = rules.assignment == "teacher" and bool(on & set(_GROUP))
            check_prediction("teacher", teacher)
            check_teacher(student, teacher, classes=taught or bool(on & set(_INSTANCE)))
            if "feature" in on:
                check_features(student, teacher, by_queries=self.settings.region in ("quality", "query"))
            if "relation" in on:
                check_relation(student, teacher, None if self.head is None else self.head.width)
            if on & set(_GROUP):
                check_group(student, group, teacher, paired=rules.assignment == "teacher")
        _check.labels("DETRDistillLoss", targets.labels, student.logits.shape[3] - background, targets.counts)
