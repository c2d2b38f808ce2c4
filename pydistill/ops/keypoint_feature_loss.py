"""Distance between two feature maps at the key points of boxes."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _keypoints
from pydistill.ops._register import Op, differentiable


def keypoint_feature_loss(
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    *,
    swap_xy: bool = False,
    norm: int = 1,
    normalizer: Tensor | float | None = None,
    eps: float = 1e-4,
) -> Tensor:
    r"""How far the student's features are from the teacher's at the key points of boxes.

    With :math:`s_{bkc}` and :math:`t_{bkc}` the maps at point k of box b, interpolated between four cells,

    .. math:: \ell = \frac{1}{N + \epsilon} \sum_b \frac{1}{K C} \sum_{kc} |s_{bkc} - t_{bkc}|^q

    where N is the number of boxes that count. Beyond the border a map is 0. Nothing of size boxes x points x C is kept.

    Args:
        student: (B, C, H, W), float64, float32, float16 or bfloat16; NCHW or channels last, others are copied.
        teacher: of the same shape, a constant. The student's dtype or float32; others are converted. A teacher in the
            other layout than the student is copied.
        keypoints: (B, M, K, 2) with K <= 1024, as ``box_keypoints`` gives them: u along the columns, v along the rows,
            from the map's corner. A constant.
        valid: (B, M) bool: which boxes there are. One with a point that is not finite does not count either.
        swap_xy: read the map at (v, u), scaled by its sides, as the released code does.
        norm: q, 1 or 2.
        normalizer: in place of N, a number or a tensor of one element, read on its device: for N averaged over
            processes.
        eps: :math:`\epsilon`.

    Returns:
        The scalar loss, float64 for float64 students, else float32; 0 without boxes. A NaN in a cell that a point reads
        makes it NaN, and the gradient of the cells of this point and channel. Where s = t the gradient of norm 1 is 0.
        Results repeat bit for bit.

    Raises:
        ValueError: If a shape, a device or an option is not one of the above; under ``pydistill.checking`` also for
            maps, or points of valid boxes, that are not finite.
        TypeError: If a dtype is not one of the above.

    Reference:
        Zhou et al. 2023 (UniDistill), arXiv:2303.15083, section 3.2; ``FeatureDistillLoss`` of
        megvii-research/CVPR2023-UniDistill, which is ``swap_xy=True``.
    """
    args = _keypoints.checked("keypoint_feature_loss", student, teacher, keypoints, valid, norm, normalizer, eps)
    result: Tensor = _keypoint_feature_loss(*args, swap_xy, norm, eps)
    return result


def keypoint_feature_loss_reference(
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    *,
    swap_xy: bool = False,
    norm: int = 1,
    normalizer: Tensor | float | None = None,
    eps: float = 1e-4,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""

    def costs(s: Tensor, t: Tensor) -> Tensor:
        d = (s - t).abs() if norm == 1 else (s - t).square()
        return d.mean((1, 2)) if d.shape[1] * d.shape[2] else d.sum((1, 2))

    return _keypoints.reference(costs, student, teacher, keypoints, valid, swap_xy, normalizer, eps)


def _forward(
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    normalizer: Tensor | None,
    swap_xy: bool,
    norm: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    kernels, where = _C.on(student)
    at = _keypoints.read(student, teacher, keypoints, valid, swap_xy)
    boxes = keypoints.shape[1]
    partial = keypoints.new_empty(student.shape[0] * at.blocks)
    loss, factor = keypoints.new_empty(()), keypoints.new_empty(())
    kernels.keypoint_feature_loss(
        where, at.student, at.teacher, at.cell, at.weight, at.used, normalizer, boxes, norm, at.interleaved, eps,
        partial, loss, factor,
    )  # fmt: skip
    return loss, factor


def _backward(
    grad: Tensor,
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    factor: Tensor,
    swap_xy: bool,
    norm: int,
) -> Tensor:
    kernels, where = _C.on(student)
    at = _keypoints.read(student, teacher, keypoints, valid, swap_xy)
    dstudent = torch.empty_like(at.student)
    kernels.keypoint_feature_loss_backward(
        where, grad.to(keypoints.dtype), at.student, at.teacher, at.cell, at.weight, *at.owners(), factor,
        keypoints.shape[1], norm, at.interleaved, dstudent,
    )  # fmt: skip
    return dstudent


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    student, teacher, keypoints, valid, _, swap_xy, norm, _ = inputs
    ctx.save_for_backward(student, teacher, keypoints, valid, output[1])
    ctx.options = swap_xy, norm


def _recall(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (grad, *ctx.saved_tensors, *ctx.options)


_keypoint_feature_loss = differentiable(
    Op(
        "keypoint_feature_loss(Tensor student, Tensor teacher, Tensor keypoints, Tensor valid, Tensor? normalizer, "
        "bool swap_xy, int norm, float eps) -> (Tensor, Tensor)",
        _forward,
        lambda student, teacher, keypoints, *_: (keypoints.new_empty(()), keypoints.new_empty(())),
    ),
    Op(
        "keypoint_feature_loss_backward(Tensor grad, Tensor student, Tensor teacher, Tensor keypoints, Tensor valid, "
        "Tensor factor, bool swap_xy, int norm) -> Tensor",
        _backward,
        lambda grad, student, *_: _keypoints.empty_like(student),
    ),
    _save,
    _recall,
)
