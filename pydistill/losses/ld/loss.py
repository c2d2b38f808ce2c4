"""Localization distillation (LD) of dense detectors."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from torch import Tensor

from pydistill.losses.ld.objective import Objective
from pydistill.losses.ld.prediction import DensePrediction, check_features, check_student, check_teacher, shape_of
from pydistill.losses.ld.presets import DETECTORS, REFERENCES, Preset, Reference, rules_of, weights_of
from pydistill.losses.ld.step import Settings
from pydistill.losses.ld.targets import Scene
from pydistill.losses.options import Loss, check_not_negative, check_positive, printed
from pydistill.ops import _check

ImitationRegion = Literal["general_instance", "fine_grained", "inside"]
Features = tuple[Sequence[Tensor], Sequence[Tensor]]

_REGIONS = ("general_instance", "fine_grained", "inside")
_DISTILLED = ("main_ld", "vlr_ld", "main_kd", "vlr_kd", "imitation", "pseudo_box")


class LDLoss(Loss):
    r"""A dense detector's own objective, and the teacher's knowledge of where the boxes are and what is in them.

    With z, t the logits of student and teacher, :math:`w_a` the student's largest class probability at anchor a (a
    constant) and the divergence of rows of n logits :math:`\ell = \frac{T^2}{n} KL(p^T_t \| p^T_z)`, the terms are

    ================== ============================================================================================
    classification     quality focal loss (GFL) or sigmoid focal loss over all anchors that are not ignored, over the
                       number of positives
    centerness         binary cross entropy of ATSS and FCOS at the positives, over their number
    box                :math:`\sum w_a (1 - GIoU_a) / \sum w_a` over the positives; ATSS and FCOS weigh with the
                       centerness, RetinaNet with 1; ``box_loss`` takes DIoU or CIoU
    dfl                distribution focal loss of GFL, mean of the four sides, weighed as the box
    main_ld            :math:`\frac{2}{B} \sum_{pos} w_a \frac14 \sum_{side} \ell`
    vlr_ld             :math:`\frac{2}{B} \sum_{VLR} v_a \frac14 \sum_{side} \ell`, with :math:`v_a` of the valuable
                       localization region
    main_kd, vlr_kd    mean of :math:`\ell` of the class logits over the positives, over the region
    imitation          mean squared difference of the features in a region, added up over the levels
    pseudo_box         box loss against the teacher's box instead of the annotated one: what LD is compared with
    ================== ============================================================================================

    times their weights. Everything is computed densely and on the device, with weights of 0 for what does not take
    part: no step waits for the device, shapes do not depend on the data, and images without boxes are nothing special.

    With ``reference="paper"`` no term depends on the batch size: two processes with half a batch each give the
    gradients of one with the whole batch. ``"released"`` (HikariTJU/LD) and ``"mmdet"`` (mmdetection 3.3) reproduce
    those codes; the documentation lists where they disagree, and :class:`LDRules` the option of each.

    Args:
        strides: Pixels per location of each level, at least one.
        preset: The detector: ``"gfl"``, ``"gflv2"``, ``"atss"``, ``"fcos"`` or ``"retina"``. Assigner, own terms,
            weights and regions follow from it.
        reference: ``"paper"``, ``"released"`` or, with "gfl", ``"mmdet"``, which has no distillation but main LD.
        classification, centerness, box, dfl, main_ld, vlr_ld, main_kd, vlr_kd, imitation, pseudo_box: Weights. None: as
            preset and reference have it. A term of weight 0 is not computed. Those of LD are of an anchor's mean over
            its four sides: the released ``loss_ld_vlr``, 0.25 over 16, is 0.0625 here.
        gamma: Lower end of the region's band as a part of the upper, in [0, 1].
        temperature: Of main and VLR LD, > 0.
        kd_temperature: Of main and VLR KD, > 0. None: 2, for RetinaNet 8.
        imitation_region: ``"general_instance"``, ``"fine_grained"`` or ``"inside"``.
        ignore_threshold: Anchors with a larger share of their area in an ignored region learn nothing. Not positive:
            off.
        options: Fields of :class:`LDRules` that override what ``reference`` says.

    Raises:
        ValueError: for values outside the above.
        TypeError: for an option that is not a field of :class:`LDRules`.

    Reference:
        Zheng et al., CVPR 2022, arXiv:2102.12252, sections 3 and 4; Li et al., NeurIPS 2020, arXiv:2006.04388 (GFL).
    """

    @printed("strides", "preset", "reference")
    def __init__(
        self,
        strides: Sequence[float],
        *,
        preset: Preset = "gfl",
        reference: Reference = "paper",
        classification: float | None = None,
        centerness: float | None = None,
        box: float | None = None,
        dfl: float | None = None,
        main_ld: float | None = None,
        vlr_ld: float | None = None,
        main_kd: float | None = None,
        vlr_kd: float | None = None,
        imitation: float | None = None,
        pseudo_box: float | None = None,
        gamma: float = 0.25,
        temperature: float = 10.0,
        kd_temperature: float | None = None,
        imitation_region: ImitationRegion = "general_instance",
        ignore_threshold: float = -1.0,
        **options: Any,
    ):
        super().__init__()
        for name, value, known in (
            ("preset", preset, tuple(DETECTORS)),
            ("reference", reference, REFERENCES),
            ("imitation_region", imitation_region, _REGIONS),
        ):
            if value not in known:
                raise ValueError(f"LDLoss: expected {name} in {known}, got {value!r}")
        if reference == "mmdet" and preset != "gfl":
            raise ValueError(f"LDLoss: expected preset 'gfl' of reference 'mmdet', got {preset!r}")
        given = dict(
            classification=classification, centerness=centerness, box=box, dfl=dfl, main_ld=main_ld, vlr_ld=vlr_ld,
            main_kd=main_kd, vlr_kd=vlr_kd, imitation=imitation, pseudo_box=pseudo_box,
        )  # fmt: skip
        weights: dict[str, float] = asdict(weights_of(preset, reference, given))
        check_not_negative("LDLoss", weights)
        detector = DETECTORS[preset]
        kd_temperature = detector.kd_temperature if kd_temperature is None else kd_temperature
        check_positive("LDLoss", dict(temperature=temperature, kd_temperature=kd_temperature))
        if not 0 <= gamma <= 1:
            raise ValueError(f"LDLoss: expected gamma in [0, 1], got {gamma}")
        self.strides = [float(s) for s in strides]
        if not self.strides:
            raise ValueError("LDLoss: expected at least one stride, got []")
        check_positive("LDLoss", {f"stride of level {i}": stride for i, stride in enumerate(self.strides)})
        self.ignore_threshold = ignore_threshold
        self.settings = Settings(
            detector=detector,
            rules=rules_of(preset, reference, options),
            weights=weights,
            gamma=gamma,
            temperature=temperature,
            kd_temperature=kd_temperature,
            imitation_region=imitation_region,
        )

    def forward(
        self,
        student: DensePrediction,
        teacher: DensePrediction | None,
        anchors: Tensor,
        level_sizes: Sequence[int],
        boxes: Tensor,
        labels: Tensor,
        counts: Tensor,
        *,
        valid: Tensor | None = None,
        features: Features | None = None,
        ignore_boxes: Tensor | None = None,
        ignore_counts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms.

        Args:
            student: Of B images and A anchors; float64, float32, float16 or bfloat16.
            teacher: Of the same anchors, classes and bins, a constant. None: the detector's own terms alone.
            anchors: ``(A, 4)`` corners in pixels, level by level, the same for all images; for FCOS ``(A, 2)`` points
                will do.
            level_sizes: Number of anchors per level, adding up to A.
            boxes: ``(B, G, 4)`` corners of the annotated boxes in pixels, padded; G may be 0.
            labels: ``(B, G)`` int64 in [0, C); a box of another label is background.
            counts: ``(B,)`` int64, how many boxes of each image are real.
            valid: ``(B, A)`` bool: anchors that take part. None: all.
            features: Student's and teacher's feature maps, ``(B, c, h, w)`` per level, for ``imitation``.
            ignore_boxes: ``(B, M, 4)`` regions that nobody annotated, padded; not with preset "fcos".
            ignore_counts: ``(B,)`` int64, how many of them are real.

        Returns:
            Of each term that is on its 0-dim loss, weighted; float64 for float64, else float32. Their sum is the loss.

        Raises:
            ValueError: if shapes are not as above, or student and teacher do not fit each other; under
                ``pydistill.checking`` also for labels, boxes and counts out of range.
        """
        on = {
            name
            for name, weight in self.settings.weights.items()
            if weight and not (teacher is None and name in _DISTILLED)
        }
        level_sizes = list(level_sizes)
        self._check_scene(anchors, level_sizes, boxes, labels, counts)
        check_student(student, on, len(boxes), level_sizes, self.settings.detector.classification)
        if teacher is not None:
            check_teacher(student, teacher, on, level_sizes)
        _check.labels("LDLoss", labels, shape_of(student.logits)[2], counts)
        features = check_features(features, level_sizes) if "imitation" in on else ([], [])
        if boxes.shape[1] == 0:  # gathering needs something to gather from: a box that does not count
            boxes, labels = boxes.new_zeros(len(boxes), 1, 4), labels.new_zeros(len(boxes), 1)
        scene = Scene(
            anchors.detach(), level_sizes, self.strides, boxes.detach(), labels, counts, valid,
            ignore_boxes, ignore_counts, self.ignore_threshold,
        )  # fmt: skip
        step = Objective(self.settings, on, student, student if teacher is None else teacher, scene, features)
        # Backward runs in the opposite order: what holds most memory, the gradient of classification, is freed first.
        names = [name for name in self.settings.weights if name in on]
        terms = {name: self.settings.weights[name] * getattr(step, name)() for name in reversed(names)}
        return {name: terms[name] for name in names}

    def _check_scene(
        self, anchors: Tensor, level_sizes: list[int], boxes: Tensor, labels: Tensor, counts: Tensor
    ) -> None:
        columns = (2, 4) if self.settings.detector.assigner == "points" else (4,)
        if anchors.ndim != 2 or anchors.shape[1] not in columns or len(anchors) != sum(level_sizes):
            raise ValueError(
                f"LDLoss: expected anchors of shape ({sum(level_sizes)}, {columns[-1]}) for levels of {level_sizes}, "
                f"got {list(anchors.shape)}"
            )
        if len(level_sizes) != len(self.strides):
            raise ValueError(f"LDLoss: expected {len(self.strides)} level_sizes, one a stride, got {level_sizes}")
        if boxes.ndim != 3 or boxes.shape[2] != 4:
            raise ValueError(f"LDLoss: expected boxes of shape (B, G, 4), got {list(boxes.shape)}")
        if labels.shape != boxes.shape[:2]:
            raise ValueError(f"LDLoss: expected labels of shape {list(boxes.shape[:2])}, got {list(labels.shape)}")
        if counts.shape != boxes.shape[:1]:
            raise ValueError(f"LDLoss: expected counts of shape {list(boxes.shape[:1])}, got {list(counts.shape)}")
