"""General instances: where teacher and student disagree most about what they see."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import proper
from pydistill.ops._register import Op, accumulator
from pydistill.ops.pairwise_iou import pairwise_iou_reference

_SCOPES = ("image", "batch")


def general_instance_region(
    student_scores: Tensor,
    teacher_scores: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    level_sizes: Sequence[int],
    *,
    top: int = 10,
    iou: float = 0.3,
    scope: str = "image",
    activated: bool = False,
    valid: Tensor | None = None,
) -> Tensor:
    r"""Which anchors of each level differ most between teacher and student, without two of the same object.

    With :math:`p` the probabilities, an anchor's score and box are

    .. math:: s = \max_c |p^t_c - p^s_c|, \qquad
              b = \begin{cases} b^t & p^t_c \ge p^s_c \\ b^s & \text{else} \end{cases}

    at the class c of the maximum. Per level, the anchor of the largest score joins the region and takes out those whose
    box has an IoU above ``iou`` with its own; then the next, until ``top`` have joined. Of equals the first joins. The
    whole search stays on the device, without sorting.

    Args:
        student_scores: ``(B, A, C)`` class logits, float64, float32, float16 or bfloat16.
        teacher_scores: ``(B, A, C)``.
        student_boxes: ``(B, A, 4)`` decoded boxes ``x1, y1, x2, y2``, in pixels or in any unit that a level has.
        teacher_boxes: ``(B, A, 4)``.
        level_sizes: Number of anchors per level, adding up to A; at most 16 levels.
        top: How many join per level, at least 1.
        iou: Above this overlap two boxes are of one object.
        scope: ``"image"``: ``top`` of each level of each image. ``"batch"``, as in the released code: ``top`` of each
            level of the flattened batch, where boxes of different images take each other out.
        activated: Whether the scores are probabilities already, as GFLv2's.
        valid: ``(B, A)`` bool: anchors that take part. None: all.

    Returns:
        ``(B, A)`` bool, on the device. No gradient. An anchor with a NaN score in any class, or whose box b is inverted
        or not finite, takes no part.

    Raises:
        ValueError: if a shape, ``level_sizes`` or an option is not as above.
        TypeError: if scores or boxes are not floating point, or flags not bool.

    Reference:
        Dai et al. 2021, General Instance Distillation for object detection, arXiv:2103.02340, section 3.1: per image;
        LD's released code has it as ``imitation_method='gibox'``, ``scope="batch"``.
    """
    op = "general_instance_region"
    if scope not in _SCOPES:
        raise ValueError(f"{op}: expected scope in {_SCOPES}, got {scope!r}")
    _check.tensors(
        op, student_scores=student_scores, teacher_scores=teacher_scores, student_boxes=student_boxes,
        teacher_boxes=teacher_boxes,
    )  # fmt: skip
    _check.optional(op, valid=valid)
    _check.numbers(op, top=top, iou=iou)
    sizes = _check.levels(op, level_sizes, student_scores.shape[1] if student_scores.ndim == 3 else None)
    dtype = torch.promote_types(student_scores.dtype, teacher_scores.dtype)
    for name, d in (("scores", dtype), ("boxes", torch.promote_types(student_boxes.dtype, teacher_boxes.dtype))):
        if not d.is_floating_point:
            raise TypeError(f"{op}: expected {name} of a floating point dtype, got {d}")
    scores = [x.detach().to(dtype) for x in (student_scores, teacher_scores)]
    boxes = [x.detach().to(accumulator(dtype)) for x in (student_boxes, teacher_boxes)]
    inside: Tensor = _region(*scores, *boxes, sizes, top, iou, activated, scope == "batch", valid)
    if _check.enabled():  # here, because the shapes are right by now
        for side, score, box in zip(("student", "teacher"), scores, boxes):
            _check.finite(op, f"{side}_scores", score, None if valid is None else valid[..., None])
            _check.boxes(op, box, name=f"{side}_boxes")
    return inside


def general_instance_region_reference(
    student_scores: Tensor,
    teacher_scores: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    level_sizes: Sequence[int],
    *,
    top: int = 10,
    iou: float = 0.3,
    scope: str = "image",
    activated: bool = False,
    valid: Tensor | None = None,
) -> Tensor:
    """The specification of :func:`general_instance_region`, in plain PyTorch, group by group."""
    b, a, classes = student_scores.shape
    region = torch.zeros(b, a, dtype=torch.bool, device=student_scores.device)
    if b * a * classes == 0:
        return region
    s, t = student_scores, teacher_scores
    gap = t - s if activated else t.sigmoid() - s.sigmoid()
    score, at = gap.abs().max(-1)
    box = torch.where(gap.gather(-1, at[..., None]) >= 0, teacher_boxes, student_boxes)
    usable = ~gap.isnan().any(-1) & proper(box)
    usable = usable if valid is None else usable & valid
    score = score.where(usable, -torch.inf)
    images = [slice(None)] if scope == "batch" else [slice(i, i + 1) for i in range(b)]
    first = 0
    for size in level_sizes:
        for image in images:
            group = image, slice(first, first + size)
            left, joined = score[group].reshape(-1).clone(), region[group].reshape(-1).clone()
            boxes = box[group].reshape(-1, 4)
            for _ in range(top):
                if left.numel() == 0 or left.max() == -torch.inf:
                    break
                k = left.argmax()
                joined[k] = True
                overlap = pairwise_iou_reference(boxes, boxes[k : k + 1])[:, 0]
                left[(overlap > iou) | (torch.arange(len(left)) == k)] = -torch.inf
            region[group] = joined.view(region[group].shape)
        first += size
    return region


def _empty(student_scores: Tensor, *_: Any) -> Tensor:
    """The mask; of any shape where a shape is wrong, which the kernels then say."""
    return student_scores.new_empty(student_scores.shape[:2], dtype=torch.bool)


def _kernel(
    student_scores: Tensor,
    teacher_scores: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    level_sizes: Sequence[int],
    top: int,
    iou: float,
    activated: bool,
    of_batch: bool,
    valid: Tensor | None,
) -> Tensor:
    inside = _empty(student_scores)
    score, box = torch.empty_like(inside, dtype=student_boxes.dtype), student_boxes.new_empty(student_boxes.shape)
    kernels, where = _C.on(student_scores)
    kernels.general_instance_region(
        where, student_scores.contiguous(), teacher_scores.contiguous(), student_boxes.contiguous(),
        teacher_boxes.contiguous(), level_sizes, top, iou, activated, of_batch,
        None if valid is None else valid.contiguous(), score, box, inside,
    )  # fmt: skip
    return inside


_region = Op(
    "general_instance_region(Tensor student_scores, Tensor teacher_scores, Tensor student_boxes, Tensor teacher_boxes, "
    "int[] level_sizes, int top, float iou, bool activated, bool of_batch, Tensor? valid) -> Tensor",
    _kernel,
    fake=_empty,
)
