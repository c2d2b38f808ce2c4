"""What a dense detector predicts at every anchor, and whether teacher and student fit each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Parts = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class DensePrediction:
    """The outputs of a detector's head at A anchors, those of all levels one after the other.

    Each field is one tensor, or a tuple of each level's tensors: nothing is copied only to stand side by side.
    """

    logits: Parts
    """``(B, A, C)``: class logits, before the sigmoid."""
    sides: Parts
    """``(B, A, 4 * n)``: logits of the distances 0, ..., n - 1, in strides of the level, from anchor centre to each
    side: n of left, then of top, right and bottom."""
    centerness: Parts | None = None
    """``(B, A)``: logits (ATSS, FCOS)."""
    scores: Parts | None = None
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
        """From the maps of each level, (B, anchors * channels, h, w); views of them where ``anchors`` is 1.

        The order of the anchors is row by row, the ``anchors`` of one location together, as mmdetection's generator has
        them.
        """
        at_centers = None if centerness is None else tuple(x.squeeze(-1) for x in _rows(centerness, anchors))
        at_scores = None if scores is None else _rows(scores, anchors)
        return cls(_rows(logits, anchors), _rows(sides, anchors), at_centers, at_scores)

    @property
    def dtype(self) -> torch.dtype:
        """Of the class logits."""
        return (self.logits[0] if isinstance(self.logits, tuple) else self.logits).dtype

    @property
    def bins(self) -> int:
        """n, one more than ``reg_max``."""
        return shape_of(self.sides)[-1] // 4

    def distributions(self) -> Parts:
        """``(B, A, 4, n)``: the bins of each side, a view."""
        return each(self.sides, lambda x: x.reshape(*x.shape[:-1], 4, self.bins))

    def detach(self) -> "DensePrediction":
        """The same numbers as constants: the teacher of self-distillation."""
        optional = (None if x is None else each(x, Tensor.detach) for x in (self.centerness, self.scores))
        return DensePrediction(each(self.logits, Tensor.detach), each(self.sides, Tensor.detach), *optional)


def each(parts: Parts, f: Callable[[Tensor], Tensor]) -> Parts:
    """``f`` of each level's part."""
    return tuple(f(x) for x in parts) if isinstance(parts, tuple) else f(parts)


def joined(parts: Parts) -> Tensor:
    """All levels in one tensor."""
    return torch.cat(parts, 1) if isinstance(parts, tuple) else parts


def shape_of(parts: Parts) -> list[int]:
    """The shape that ``joined`` gives, or what hinders it: the shapes of the levels do not fit one another."""
    if not isinstance(parts, tuple):
        return list(parts.shape)
    shapes = [list(x.shape) for x in parts]
    if len({(len(s), *s[:1], *s[2:]) for s in shapes}) != 1 or len(shapes[0]) < 2:
        raise ValueError(f"DensePrediction: expected levels that differ in the number of anchors alone, got {shapes}")
    return [shapes[0][0], sum(s[1] for s in shapes), *shapes[0][2:]]


def by_level(compute: Callable[..., Tensor], *values: Parts) -> Tensor:
    """``compute`` of each level's part of ``values``, joined; of the whole where none comes in levels."""
    sizes = next(([x.shape[1] for x in parts] for parts in values if isinstance(parts, tuple)), None)
    if sizes is None:
        return compute(*values)
    levels = [parts if isinstance(parts, tuple) else torch.split(parts, sizes, 1) for parts in values]
    return torch.cat([compute(*parts) for parts in zip(*levels, strict=True)], 1)


def _rows(levels: Sequence[Tensor], anchors: int) -> tuple[Tensor, ...]:
    """(B, anchors * c, h, w) of each level as (B, anchors of the level, c)."""
    rows = []
    for x in levels:
        if x.ndim != 4 or x.shape[1] % anchors:
            raise ValueError(
                f"DensePrediction: expected maps of shape (B, {anchors} * channels, h, w), got {list(x.shape)}"
            )
        rows.append(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1] // anchors))
    return tuple(rows)


def check_student(p: DensePrediction, on: set[str], images: int, sizes: list[int], classification: str) -> None:
    """Raises unless ``p`` has what the terms ``on`` need, of so many images and of anchors of each level."""
    logits, sides, anchors = shape_of(p.logits), shape_of(p.sides), sum(sizes)
    if len(logits) != 3 or logits[:2] != [images, anchors]:
        expected = f"logits of shape ({images}, {anchors}, C), as boxes and anchors have it"
        raise ValueError(f"LDLoss: expected {expected}, got {logits}")
    if len(sides) != 3 or sides[:2] != [images, anchors] or sides[2] % 4 or p.bins < 2:
        expected = f"sides of shape ({images}, {anchors}, 4 * n) with n >= 2 bins"
        raise ValueError(f"LDLoss: expected {expected}, got {sides}")
    for name, part, shape, needed in (
        ("centerness", p.centerness, logits[:2], "centerness" in on),
        ("scores", p.scores, logits, "classification" in on and classification == "quality_of_scores"),
    ):
        got = None if part is None else shape_of(part)
        if (got is None and needed) or (got is not None and got != shape):
            raise ValueError(f"LDLoss: expected the student's {name} of shape {shape}, got {got}")
    _check_levels(p, sizes)


def _check_levels(p: DensePrediction, sizes: list[int]) -> None:
    for parts in (p.logits, p.sides, p.centerness, p.scores):
        if isinstance(parts, tuple) and (got := [x.shape[1] for x in parts]) != sizes:
            raise ValueError(f"LDLoss: expected levels of {sizes} anchors, got {got}")


def check_teacher(student: DensePrediction, teacher: DensePrediction, on: set[str], sizes: list[int]) -> None:
    """Raises, and says what differs, unless the outputs that the terms ``on`` compare are of the same shape."""
    of_logits, of_sides = on & {"main_kd", "vlr_kd", "imitation"}, on & {"main_ld", "vlr_ld", "pseudo_box", "imitation"}
    for name, used in (("logits", of_logits), ("sides", of_sides)):
        s, t = shape_of(getattr(student, name)), shape_of(getattr(teacher, name))
        if not used or s == t:
            continue
        if s[:2] != t[:2]:
            raise ValueError(
                f"LDLoss: expected a teacher with the student's images and anchors (the same pictures, strides and "
                f"anchors per location), {name} of shape {s}, got {t}"
            )
        if name == "logits":
            raise ValueError(f"LDLoss: expected a teacher of the student's {s[2]} classes, got {t[2]} classes")
        raise ValueError(
            f"LDLoss: expected teacher sides of 4 * {student.bins} bins (reg_max {student.bins - 1}) as the student's, "
            f"got {t[2]} channels (reg_max {t[2] / 4 - 1:g})"
        )
    if of_logits or of_sides:
        _check_levels(teacher, sizes)


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
