"""What a dense detector predicts at every anchor, and whether teacher and student fit each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DensePrediction:
    """The outputs of a detector's head at A anchors, those of all levels one after the other."""

    logits: Tensor
    """``(B, A, C)``: class logits, before the sigmoid."""
    sides: Tensor
    """``(B, A, 4 * n)``: logits of the distances 0, ..., n - 1, in strides of the level, from anchor centre to each
    side: n of left, then of top, right and bottom."""
    centerness: Tensor | None = None
    """``(B, A)``: logits (ATSS, FCOS)."""
    scores: Tensor | None = None
    """``(B, A, C)``: probabilities of class and quality jointly (GFLv2)."""

    @classmethod
    def from_levels(
        cls,
        logits: Sequence[Tensor],
        sides: Sequence[Tensor],
        centerness: Sequence[Tensor] | None = None,
        scores: Sequence[Tensor] | None = None,
        *,
        anchors: int = 1,
    ) -> "DensePrediction":
        """From the maps of each level, (B, anchors * channels, h, w).

        The order of the anchors is row by row, the ``anchors`` of one location together, as mmdetection's generator has
        them.
        """
        at_centers = None if centerness is None else _flatten(centerness, anchors).squeeze(-1)
        at_scores = None if scores is None else _flatten(scores, anchors)
        return cls(_flatten(logits, anchors), _flatten(sides, anchors), at_centers, at_scores)

    @property
    def bins(self) -> int:
        """n, one more than ``reg_max``."""
        return self.sides.shape[-1] // 4

    def distributions(self) -> Tensor:
        """``(B, A, 4, n)``: the bins of each side, a view."""
        return self.sides.reshape(*self.sides.shape[:-1], 4, self.bins)

    def detach(self) -> "DensePrediction":
        """The same numbers as constants: the teacher of self-distillation."""
        optional = (None if x is None else x.detach() for x in (self.centerness, self.scores))
        return DensePrediction(self.logits.detach(), self.sides.detach(), *optional)


def _flatten(levels: Sequence[Tensor], anchors: int) -> Tensor:
    """(B, anchors * c, h, w) of each level as (B, A, c)."""
    rows = []
    for x in levels:
        if x.ndim != 4 or x.shape[1] % anchors:
            raise ValueError(
                f"DensePrediction: expected maps of shape (B, {anchors} * channels, h, w), got {list(x.shape)}"
            )
        rows.append(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1] // anchors))
    return torch.cat(rows, 1)


def check_student(p: DensePrediction, on: set[str], images: int, anchors: int, classification: str) -> None:
    """Raises unless ``p`` has what the terms ``on`` need, of so many images and anchors."""
    if p.logits.ndim != 3 or p.logits.shape[:2] != (images, anchors):
        expected = f"logits of shape ({images}, {anchors}, C), as boxes and anchors have it"
        raise ValueError(f"LDLoss: expected {expected}, got {list(p.logits.shape)}")
    if p.sides.ndim != 3 or p.sides.shape[:2] != (images, anchors) or p.sides.shape[2] % 4 or p.bins < 2:
        expected = f"sides of shape ({images}, {anchors}, 4 * n) with n >= 2 bins"
        raise ValueError(f"LDLoss: expected {expected}, got {list(p.sides.shape)}")
    for name, part, shape, needed in (
        ("centerness", p.centerness, p.logits.shape[:2], "centerness" in on),
        ("scores", p.scores, p.logits.shape, "classification" in on and classification == "quality_of_scores"),
    ):
        if (part is None and needed) or (part is not None and part.shape != shape):
            got = None if part is None else list(part.shape)
            raise ValueError(f"LDLoss: expected the student's {name} of shape {list(shape)}, got {got}")


def check_teacher(student: DensePrediction, teacher: DensePrediction, on: set[str]) -> None:
    """Raises, and says what differs, unless the outputs that the terms ``on`` compare are of the same shape."""
    of_logits, of_sides = on & {"main_kd", "vlr_kd", "imitation"}, on & {"main_ld", "vlr_ld", "pseudo_box", "imitation"}
    for name, used, s, t in (
        ("logits", of_logits, student.logits, teacher.logits),
        ("sides", of_sides, student.sides, teacher.sides),
    ):
        if not used or s.shape == t.shape:
            continue
        if s.shape[:2] != t.shape[:2]:
            raise ValueError(
                f"LDLoss: expected a teacher with the student's images and anchors (the same pictures, strides and "
                f"anchors per location), {name} of shape {list(s.shape)}, got {list(t.shape)}"
            )
        if name == "logits":
            raise ValueError(
                f"LDLoss: expected a teacher of the student's {s.shape[2]} classes, got {t.shape[2]} classes"
            )
        raise ValueError(
            f"LDLoss: expected teacher sides of 4 * {student.bins} bins (reg_max {student.bins - 1}) as the student's, "
            f"got {t.shape[2]} channels (reg_max {t.shape[2] / 4 - 1:g})"
        )


def check_features(
    features: tuple[Sequence[Tensor], Sequence[Tensor]] | None, level_sizes: Sequence[int]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """``features``, of one map for each level and side, of equal channels and sizes."""
    if features is None or len(features[0]) != len(level_sizes) or len(features[1]) != len(level_sizes):
        got = None if features is None else f"{len(features[0])} and {len(features[1])}"
        raise ValueError(f"LDLoss: expected features of {len(level_sizes)} levels of student and teacher, got {got}")
    for level, (s, t, size) in enumerate(zip(*features, level_sizes, strict=True)):
        if s.shape != t.shape:
            raise ValueError(
                f"LDLoss: expected teacher features of the student's shape {list(s.shape)} at level {level}, "
                f"got {list(t.shape)}; an Adapter brings the student's to the teacher's channels"
            )
        if size % max(s.shape[-2] * s.shape[-1], 1):
            raise ValueError(
                f"LDLoss: expected features of a location per anchor, {size} anchors at level {level}, "
                f"got {list(s.shape)}"
            )
    return features
