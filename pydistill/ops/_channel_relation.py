"""The registered operators of ``keypoint_relation_loss(gram="channels")``."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _keypoints
from pydistill.ops._register import Op, differentiable


def _forward(
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    normalizer: Tensor | None,
    swap_xy: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernels, where = _C.on(student)
    at = _keypoints.read(student, teacher, keypoints, valid, swap_xy)
    loss, factor, pull, slope = _empty(student, teacher, keypoints)
    n, _, k, _ = pull.shape
    gram, rows = pull.new_empty(n, 3, k, k, dtype=torch.float64), pull.new_empty(n)
    kernels.keypoint_channel_relation_loss(
        where, at.student, at.teacher, at.cell, at.weight, at.used, normalizer, keypoints.shape[1], at.interleaved,
        eps, gram, rows, loss, factor, pull, slope,
    )  # fmt: skip
    return loss, factor, pull, slope


def _empty(student: Tensor, teacher: Tensor, keypoints: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, boxes, k = keypoints.shape[:3]
    pull, slope = keypoints.new_empty(b * boxes, 4, k, k), keypoints.new_empty(b * boxes, 2, student.shape[1])
    return keypoints.new_empty(()), keypoints.new_empty(()), pull, slope


def _backward(
    grad: Tensor,
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    factor: Tensor,
    pull: Tensor,
    slope: Tensor,
    swap_xy: bool,
) -> Tensor:
    kernels, where = _C.on(student)
    at = _keypoints.read(student, teacher, keypoints, valid, swap_xy)
    dstudent = torch.empty_like(at.student)
    kernels.keypoint_channel_relation_loss_backward(
        where, grad.to(keypoints.dtype), at.student, at.teacher, at.cell, at.weight, *at.owners(), pull, slope, factor,
        keypoints.shape[1], at.interleaved, dstudent,
    )  # fmt: skip
    return dstudent


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    student, teacher, keypoints, valid, _, swap_xy, _ = inputs
    ctx.save_for_backward(student, teacher, keypoints, valid, *output[1:])
    ctx.swap_xy = swap_xy


def _recall(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (grad, *ctx.saved_tensors, ctx.swap_xy)


channel_relation_loss = differentiable(
    Op(
        "keypoint_channel_relation_loss(Tensor student, Tensor teacher, Tensor keypoints, Tensor valid, "
        "Tensor? normalizer, bool swap_xy, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
        _forward,
        _empty,
    ),
    Op(
        "keypoint_channel_relation_loss_backward(Tensor grad, Tensor student, Tensor teacher, Tensor keypoints, "
        "Tensor valid, Tensor factor, Tensor pull, Tensor slope, bool swap_xy) -> Tensor",
        _backward,
        lambda grad, student, *_: _keypoints.empty_like(student),
    ),
    _save,
    _recall,
)
