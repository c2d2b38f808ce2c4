"""DETRDistill's instance loss: each student query learns class and box of the teacher query it is matched with."""

from typing import NamedTuple

import torch
from torch import Tensor

from pydistill.ops import _check
from pydistill.ops._matched import check_match, check_targets, of_queries
from pydistill.ops.matched_box_loss import matched_box_loss
from pydistill.ops.matched_class_loss import matched_class_loss

_OP = "matched_distillation_loss"
# What positive and negative pairs weigh in the class term, and in the box terms.
_PAIRS = {
    "all": (1.0, 1.0, 1.0, 1.0),
    "positives": (1.0, 0.0, 1.0, 0.0),
    "negatives": (0.0, 1.0, 0.0, 1.0),
    "pos_neg": (1.0, 0.0, 1.0, 1.0),
}


class DistillationTerms(NamedTuple):
    """The three terms of each stage, (...), not weighted against each other."""

    class_loss: Tensor
    l1: Tensor
    giou: Tensor


def matched_distillation_loss(
    student_logits: Tensor,
    student_boxes: Tensor,
    teacher_logits: Tensor,
    teacher_boxes: Tensor,
    target_of_query: Tensor,
    *,
    pairs: str = "all",
    positive: Tensor | None = None,
    class_positive: float | None = None,
    class_negative: float | None = None,
    box_positive: float | None = None,
    box_negative: float | None = None,
    normalizer: float | Tensor | None = None,
    image_sizes: Tensor | None = None,
    clamp_targets: bool = False,
    giou_eps: float = 0.0,
    box_format: str = "cxcywh",
) -> DistillationTerms:
    r"""Soft cross entropy of the classes and L1 and GIoU losses of the boxes, of matched student and teacher queries.

    With j the teacher query that student query i is matched with, for each stage

    .. math:: L_{cls} = \frac{1}{N} \sum_i w^c_j \sum_c \log(1 + e^{x_{ic}}) - x_{ic}\, \sigma(t_{jc}), \qquad
              L_1 = \frac{1}{N} \sum_i w^b_j \lVert b_i - b_j \rVert_1, \qquad
              L_{giou} = \frac{1}{N} \sum_i w^b_j (1 - GIoU(b_i, b_j)).

    The weights are those of positive or of negative pairs, which ``pairs`` sets:

    ============= ========== ========== ======== ========
    pairs         class, +   class, -   box, +   box, -
    ============= ========== ========== ======== ========
    ``all``       1          1          1        1
    ``positives`` 1          0          1        0
    ``negatives`` 0          1          0        1
    ``pos_neg``   1          0          1        1
    ============= ========== ========== ======== ========

    Args:
        student_logits: (..., B, Q, C), with gradient. Leading dimensions are stages.
        student_boxes: (..., B, Q, 4), with gradient.
        teacher_logits: (B, T, C) or (..., B, T, C), T queries. A constant.
        teacher_boxes: (B, T, 4) or (..., B, T, 4). A constant.
        target_of_query: (..., B, Q) int64, as ``hungarian_match`` gives it: the teacher's query, in [0, T); anything
            else is none, and that student query weighs 0.
        pairs: See above. ``all``: as released. ``pos_neg``: the paper, where negatives, always background, teach boxes
            alone.
        positive: (B, T) or (..., B, T) bool, the teacher's queries that are matched with an object. Needed unless
            positives and negatives weigh the same.
        class_positive: In place of the table's number, as the three below.
        class_negative: Class term, negative pairs.
        box_positive: Box terms, positive pairs.
        box_negative: Box terms, negative pairs.
        normalizer: N, a number or a tensor, () or (...), that is read on its device. None: B min(Q, T), the pairs of a
            whole match. A sum of 0 over 0 is 0.
        image_sizes: See :func:`matched_box_loss`, as for what follows.
        clamp_targets: Cut the teacher's boxes at the picture.
        giou_eps: Least area of union and enclosing box.
        box_format: "cxcywh" or "xyxy".

    Returns:
        The three terms, each of the leading shape; DETRDistill weighs them 1, 5 and 2. float64 for float64, else
        float32.

    Raises:
        ValueError: If a shape or an option is not as above.
        TypeError: If a dtype is not as above.

    Reference:
        Chang et al. 2023 (DETRDistill), arXiv:2211.10156, equations 3 and 4. The released code takes all pairs, with
        N = B Q, boxes in pixels cut at the picture and ``giou_eps=1e-6``; where the teacher has fewer queries, it gives
        the others C as their class target.
    """
    check_match(_OP, "student_boxes", student_boxes, "4", target_of_query)
    check_match(_OP, "student_logits", student_logits, "C", target_of_query)
    _check.tensors(_OP, teacher_logits=teacher_logits, teacher_boxes=teacher_boxes)
    _check.optional(_OP, positive=positive, image_sizes=image_sizes)
    _check.numbers(_OP, giou_eps=giou_eps)
    check_targets(_OP, "teacher_boxes", teacher_boxes, student_boxes, 4)
    weights = _weights(pairs, class_positive, class_negative, box_positive, box_negative)
    of_class, of_box = (_row_weight(w, positive, target_of_query, teacher_boxes) for w in (weights[:2], weights[2:]))
    class_loss = matched_class_loss(student_logits, teacher_logits, target_of_query, form="soft_bce", weight=of_class)
    l1, giou = matched_box_loss(
        student_boxes,
        teacher_boxes,
        target_of_query,
        weight=of_box,
        image_sizes=image_sizes,
        clamp_targets=clamp_targets,
        giou_eps=giou_eps,
        box_format=box_format,
    )
    if normalizer is None:
        normalizer = student_boxes.shape[-3] * min(student_boxes.shape[-2], teacher_boxes.shape[-2])
    return DistillationTerms(*(_over(term, normalizer) for term in (class_loss, l1, giou)))


def _weights(pairs: str, *given: float | None) -> tuple[float, ...]:
    if pairs not in _PAIRS:
        raise ValueError(f"{_OP}: expected pairs to be one of {', '.join(_PAIRS)}, got {pairs!r}")
    names = "class_positive", "class_negative", "box_positive", "box_negative"
    weights = [usual if value is None else value for value, usual in zip(given, _PAIRS[pairs])]
    _check.numbers(_OP, **dict(zip(names, weights)))
    return tuple(float(weight) for weight in weights)


def _row_weight(
    weights: tuple[float, ...], positive: Tensor | None, target_of_query: Tensor, teacher_boxes: Tensor
) -> Tensor | None:
    """Of each student query; None where all weigh 1."""
    of_positive, of_negative = weights
    if of_positive == of_negative:
        return None if of_positive == 1 else teacher_boxes.new_full((), of_positive)
    if positive is None:
        raise ValueError(f"{_OP}: expected positive, since positive and negative pairs differ in weight, got None")
    if positive.dtype != torch.bool:
        raise TypeError(f"{_OP}: expected positive of dtype torch.bool, got {positive.dtype}")
    if positive.shape not in (teacher_boxes.shape[:-1], teacher_boxes.shape[-3:-1]):
        shape = list(teacher_boxes.shape[:-1])
        raise ValueError(f"{_OP}: expected positive of shape {shape}, got {list(positive.shape)}")
    is_positive = of_queries(positive, target_of_query, -1)
    wide = torch.float64 if teacher_boxes.dtype == torch.float64 else torch.float32
    return torch.where(is_positive, of_positive, of_negative).to(wide)


def _over(total: Tensor, normalizer: float | Tensor) -> Tensor:
    if not isinstance(normalizer, Tensor):
        _check.numbers(_OP, normalizer=normalizer)
        return total / normalizer if normalizer else total
    if normalizer.ndim > total.ndim or any(a not in (1, b) for a, b in zip(normalizer.shape[::-1], total.shape[::-1])):
        raise ValueError(
            f"{_OP}: expected normalizer that broadcasts to {list(total.shape)}, got {list(normalizer.shape)}"
        )
    normalizer = normalizer.detach().to(total.dtype)
    return torch.where((total == 0) & (normalizer == 0), 0, total / torch.where(normalizer == 0, 1, normalizer))
