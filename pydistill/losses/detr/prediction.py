"""What a set detector predicts, what it should have, and whether student, teacher and targets fit one another."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SetPrediction:
    """The outputs of a detector with L decoder stages and Q queries, for B images; the last stage is the detector's."""

    logits: Tensor
    """``(L, B, Q, C)``: class logits; of softmax detectors C + 1, the last of no object."""
    boxes: Tensor
    """``(L, B, Q, 4)``: centre x, centre y, width and height, 0 to 1 over the image."""
    queries: Tensor | None = None
    """``(L, B, Q, D)``: what the decoder stages put out, before the heads."""
    features: Sequence[Tensor] = ()
    """Maps ``(B, D', h, w)``, one a level; no mask of queries without D' = D."""

    def detach(self) -> "SetPrediction":
        """The same numbers as constants."""
        queries = None if self.queries is None else self.queries.detach()
        return SetPrediction(self.logits.detach(), self.boxes.detach(), queries, [x.detach() for x in self.features])


@dataclass(frozen=True)
class SetTargets:
    """The annotated objects of B images, padded to T."""

    labels: Tensor
    """``(B, T)`` int64, in [0, C)."""
    boxes: Tensor
    """``(B, T, 4)``: centre x, centre y, width and height, 0 to 1 over the image."""
    counts: Tensor
    """``(B,)`` int64: how many objects of each image are real."""
    image_sizes: Tensor | None = None
    """``(B, 2)``: height and width in pixels, for overlaps with a smallest area in pixels."""


def check_targets(targets: SetTargets, images: int) -> None:
    """Raises unless ``targets`` are those of so many images."""
    labels, boxes, sizes = list(targets.labels.shape), list(targets.boxes.shape), targets.image_sizes
    if len(labels) != 2 or labels[0] != images:
        raise ValueError(f"DETRDistillLoss: expected targets.labels of shape ({images}, T), got {labels}")
    if boxes != [*labels, 4]:
        raise ValueError(f"DETRDistillLoss: expected targets.boxes of shape {[*labels, 4]}, got {boxes}")
    if list(targets.counts.shape) != [images]:
        raise ValueError(
            f"DETRDistillLoss: expected targets.counts of shape {[images]}, got {list(targets.counts.shape)}"
        )
    if sizes is not None and list(sizes.shape) != [images, 2]:
        raise ValueError(
            f"DETRDistillLoss: expected targets.image_sizes of shape {[images, 2]}, got {list(sizes.shape)}"
        )


def check_prediction(whose: str, prediction: SetPrediction) -> None:
    """Raises unless the fields of one prediction fit one another."""
    logits, boxes, queries = list(prediction.logits.shape), list(prediction.boxes.shape), prediction.queries
    if len(logits) != 4 or not logits[0]:
        raise ValueError(
            f"DETRDistillLoss: expected the {whose}'s logits of shape (L, B, Q, C) with L >= 1, got {logits}"
        )
    if boxes != [*logits[:3], 4]:
        raise ValueError(f"DETRDistillLoss: expected the {whose}'s boxes of shape {[*logits[:3], 4]}, got {boxes}")
    if queries is not None and (queries.ndim != 4 or list(queries.shape[:3]) != logits[:3]):
        expected = f"({', '.join(map(str, logits[:3]))}, D)"
        raise ValueError(
            f"DETRDistillLoss: expected the {whose}'s queries of shape {expected}, got {list(queries.shape)}"
        )
    for level, x in enumerate(prediction.features):
        if x.ndim != 4 or x.shape[0] != logits[1]:
            raise ValueError(
                f"DETRDistillLoss: expected the {whose}'s features of shape ({logits[1]}, D, h, w) at level {level}, "
                f"got {list(x.shape)}"
            )


def check_teacher(student: SetPrediction, teacher: SetPrediction, *, classes: bool) -> None:
    """Raises unless the teacher saw the student's images and, where ``classes`` are compared, knows the same."""
    s, t = student.logits.shape, teacher.logits.shape
    if s[1] != t[1]:
        raise ValueError(f"DETRDistillLoss: expected a teacher of the student's {s[1]} images, got {t[1]}")
    if classes and s[3] != t[3]:
        raise ValueError(f"DETRDistillLoss: expected a teacher of the student's {s[3]} class logits, got {t[3]}")


def check_features(student: SetPrediction, teacher: SetPrediction, *, by_queries: bool) -> None:
    """Raises unless the maps can be compared, and the teacher's queries with its maps where they make the mask."""
    s, t = student.features, teacher.features
    if not s or len(s) != len(t):
        raise ValueError(
            f"DETRDistillLoss: expected features of as many levels of student and teacher, at least one, or feature=0 "
            f"to leave the term out, got {len(s)} and {len(t)}"
        )
    for level, (x, y) in enumerate(zip(s, t, strict=True)):
        if x.shape != y.shape:
            raise ValueError(
                f"DETRDistillLoss: expected teacher features of the student's shape {list(x.shape)} at level {level}, "
                f"got {list(y.shape)}; an Adapter brings the student's to the teacher's channels"
            )
        if by_queries and teacher.queries is not None and teacher.queries.shape[-1] != y.shape[1]:
            raise ValueError(
                f"DETRDistillLoss: expected teacher features of the {teacher.queries.shape[-1]} channels of its "
                f"queries at level {level}, got {y.shape[1]}; feature_region 'boxes' and 'none' need no queries"
            )
    if by_queries and teacher.queries is None:
        raise ValueError("DETRDistillLoss: expected the teacher's queries for the mask of its features, got None")


def check_relation(student: SetPrediction, teacher: SetPrediction, width: int | None) -> None:
    """Raises unless the queries can be compared: by a head for ``width`` channels, or as they are."""
    s, t = (None if p.queries is None else p.queries.shape[-1] for p in (student, teacher))
    if s is None or t is None or s != (width or s) or t != (width or s):
        channels = f"{width or s or t} channels"
        raise ValueError(
            f"DETRDistillLoss: expected queries of student and teacher of {channels} for the term relation, "
            f"got {s} and {t}"
        )


def check_group(student: SetPrediction, group: SetPrediction | None, teacher: SetPrediction, *, paired: bool) -> None:
    """Raises unless ``group`` is the student's, and where ``paired`` one query for each of the teacher's."""
    if group is None:
        raise ValueError(
            "DETRDistillLoss: expected group, the student's prediction with the teacher's queries, or the weight "
            "group=0 to leave its terms out, got None"
        )
    check_prediction("group", group)
    s, g = student.logits.shape, group.logits.shape
    if (s[0], s[1], s[3]) != (g[0], g[1], g[3]):
        raise ValueError(
            f"DETRDistillLoss: expected group logits of the student's stages, images and classes, "
            f"shape ({s[0]}, {s[1]}, Q, {s[3]}), got {list(g)}"
        )
    if paired and teacher.logits.shape[2] != g[2]:
        raise ValueError(
            f"DETRDistillLoss: expected a group of the teacher's {teacher.logits.shape[2]} queries, got {g[2]}; "
            f"assignment='rematch' takes any number"
        )
