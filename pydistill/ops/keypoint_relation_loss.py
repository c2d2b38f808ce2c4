"""Distance between the relations that two feature maps see among the key points of a box."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _keypoints
from pydistill.ops._channel_relation import channel_relation_loss
from pydistill.ops._register import Op, differentiable

_GRAMS = ("cosine", "rows", "channels")


def keypoint_relation_loss(
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    *,
    swap_xy: bool = False,
    norm: int = 1,
    normalizer: Tensor | float | None = None,
    eps: float = 1e-4,
    gram: str = "cosine",
) -> Tensor:
    r"""How much the points of a box, or the channels at them, resemble each other to the student as to the teacher.

    With :math:`P_b` (K, C) a map at the points of box b and :math:`Q = P P^\top`,

    .. math:: \ell = \frac{1}{N + \epsilon} \sum_b \frac{1}{K^2} \sum_{kl} |R^s_{bkl} - R^t_{bkl}|^q

    where N is the number of boxes that count, and the relations are
    :math:`R_{kl} = Q_{kl} / ((\lVert p_k \rVert + \epsilon) (\lVert p_l \rVert + \epsilon))` for ``"cosine"`` and
    :math:`R_{kl} = Q_{kl} / \lVert Q_k \rVert` for ``"rows"``. With ``"channels"`` they are those of the channels,
    :math:`R_{ij} = G_{ij} / \lVert G_i \rVert` of :math:`G = P^\top P`, and the mean is over C x C pairs. Nothing of
    size boxes x points x C or C x C is kept: one K x K matrix a box, with ``"channels"`` four and two numbers a
    channel. There the loss of maps that are alike is a small difference of large sums: these are float64 for every
    dtype. Of float32 maps a thousandth apart it is right to 1e-5, its gradient to 1e-4.

    Args:
        student: (B, C, H, W), float64, float32, float16 or bfloat16; NCHW or channels last, others are copied.
        teacher: of the same shape, a constant. The student's dtype or float32; others are converted. A teacher in the
            other layout than the student is copied.
        keypoints: (B, M, K, 2) with K <= 1024, as ``box_keypoints`` gives them. A constant.
        valid: (B, M) bool: which boxes there are. One with a point that is not finite does not count either.
        swap_xy: read the map at (v, u), scaled by its sides, as the released code does.
        norm: q, 1 or 2; 2 with ``"channels"``.
        normalizer: in place of N, a number or a tensor of one element, read on its device: for N averaged over
            processes.
        eps: :math:`\epsilon`, of the number of boxes and of the lengths.
        gram: ``"cosine"`` or, with ``norm=2`` the forms of TiG-BEV, ``"rows"`` and ``"channels"``.

    Returns:
        The scalar loss, float64 for float64 students, else float32; 0 without boxes. A NaN in a cell that a point reads
        makes it NaN. Points off the map are 0, and so are their relations; with ``"rows"`` they have no gradient, and
        with ``"channels"`` a channel that is 0 at all points has none. Results repeat bit for bit.

    Raises:
        ValueError: If a shape, a device or an option is not one of the above; under ``pydistill.checking`` also for
            maps, or points of valid boxes, that are not finite.
        TypeError: If a dtype is not one of the above.

    Reference:
        Zhou et al. 2023 (UniDistill), arXiv:2303.15083, section 3.3; ``BEVDistillLoss`` of
        megvii-research/CVPR2023-UniDistill, which is ``swap_xy=True``. ``"rows"`` and ``"channels"``: the
        inter-keypoint and inter-channel distillation of TiG-BEV, arXiv:2212.13979.
    """
    args = _keypoints.checked("keypoint_relation_loss", student, teacher, keypoints, valid, norm, normalizer, eps)
    if gram not in _GRAMS:
        raise ValueError(f"keypoint_relation_loss: expected gram in {_GRAMS}, got {gram!r}")
    if gram == "channels":
        if norm != 2:
            raise ValueError(f'keypoint_relation_loss: expected norm=2 with gram="channels", got {norm}')
        among: Tensor = channel_relation_loss(*args, swap_xy, eps)
        return among
    result: Tensor = _keypoint_relation_loss(*args, swap_xy, norm, eps, gram == "cosine")
    return result


def keypoint_relation_loss_reference(
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    *,
    swap_xy: bool = False,
    norm: int = 1,
    normalizer: Tensor | float | None = None,
    eps: float = 1e-4,
    gram: str = "cosine",
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""

    def relations(points: Tensor) -> Tensor:
        if gram == "cosine":
            length = points.norm(dim=-1, keepdim=True) + eps
            points = points / length.where(length != 0, 1)
            return points @ points.mT
        rows = points.mT if gram == "channels" else points
        products = rows @ rows.mT
        length = products.norm(dim=-1, keepdim=True)
        return products * torch.where(length == 0, 0, 1 / length.where(length != 0, 1))

    def costs(s: Tensor, t: Tensor) -> Tensor:
        d = relations(s) - relations(t)
        d = d.abs() if norm == 1 else d.square()
        return d.mean((1, 2)) if d.shape[1] else d.sum((1, 2))

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
    cosine: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    kernels, where = _C.on(student)
    at = _keypoints.read(student, teacher, keypoints, valid, swap_xy)
    b, boxes, k, _ = keypoints.shape
    gram, rows = keypoints.new_empty(b * boxes, 2, k, k), keypoints.new_empty(b * boxes)
    loss, factor = keypoints.new_empty(()), keypoints.new_empty(())
    pull = keypoints.new_empty(b * boxes, k, k)
    kernels.keypoint_relation_loss(
        where, at.student, at.teacher, at.cell, at.weight, at.used, normalizer, boxes, norm, cosine, at.interleaved,
        eps, gram, rows, loss, factor, pull,
    )  # fmt: skip
    return loss, factor, pull


def _empty(student: Tensor, teacher: Tensor, keypoints: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    b, boxes, k = keypoints.shape[:3]
    return keypoints.new_empty(()), keypoints.new_empty(()), keypoints.new_empty(b * boxes, k, k)


def _backward(
    grad: Tensor, student: Tensor, keypoints: Tensor, valid: Tensor, factor: Tensor, pull: Tensor, swap_xy: bool
) -> Tensor:
    kernels, where = _C.on(student)
    at = _keypoints.read(student, student, keypoints, valid, swap_xy)
    dstudent = torch.empty_like(at.student)
    kernels.keypoint_relation_loss_backward(
        where, grad.to(keypoints.dtype), at.student, at.cell, at.weight, *at.owners(), pull, factor,
        keypoints.shape[1], at.interleaved, dstudent,
    )  # fmt: skip
    return dstudent


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    student, _, keypoints, valid, _, swap_xy, _, _, _ = inputs
    ctx.save_for_backward(student, keypoints, valid, *output[1:])
    ctx.swap_xy = swap_xy


def _recall(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (grad, *ctx.saved_tensors, ctx.swap_xy)


_keypoint_relation_loss = differentiable(
    Op(
        "keypoint_relation_loss(Tensor student, Tensor teacher, Tensor keypoints, Tensor valid, Tensor? normalizer, "
        "bool swap_xy, int norm, float eps, bool cosine) -> (Tensor, Tensor, Tensor)",
        _forward,
        _empty,
    ),
    Op(
        "keypoint_relation_loss_backward(Tensor grad, Tensor student, Tensor keypoints, Tensor valid, Tensor factor, "
        "Tensor pull, bool swap_xy) -> Tensor",
        _backward,
        lambda grad, student, *_: _keypoints.empty_like(student),
    ),
    _save,
    _recall,
)
