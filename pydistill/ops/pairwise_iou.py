"""Overlap of axis-aligned boxes, every pair of two sets or pair by pair."""

from math import pi
from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import common_dtype
from pydistill.ops._register import Op, accumulator, differentiable

MODES = ("iou", "iof", "giou", "diou", "ciou", "diou_released")


def pairwise_iou(a: Tensor, b: Tensor, *, mode: str = "iou", aligned: bool = False, eps: float = 1e-6) -> Tensor:
    r"""How much boxes overlap, by one of six measures.

    With :math:`I` the area of the intersection, :math:`S` of a box, :math:`U = S_a + S_b - I`, :math:`E` of the
    smallest box around both, :math:`c` its diagonal and :math:`\rho` the distance of the centres:

    ================= ===================================================================================
    ``iou``           :math:`I / \max(U, \epsilon)`
    ``iof``           :math:`I / \max(S_a, \epsilon)`, intersection over the first box
    ``giou``          IoU :math:`- (E - U) / E`, with :math:`U` and :math:`E` not below :math:`\epsilon`
    ``diou``          :math:`I / (U + \epsilon) - \rho^2 / (c^2 + \epsilon)`
    ``ciou``          DIoU :math:`- \alpha v` with :math:`v = 4/\pi^2 (\arctan(w_b/h_b) - \arctan(w_a/h_a))^2` and
                      :math:`\alpha = v / (1 - IoU + v)`, a constant in the gradient
    ``diou_released`` IoF :math:`- \rho^2 / \max(c^2, \epsilon)`
    ================= ===================================================================================

    ``diou_released`` is what the released code of Localization Distillation computes under the name of DIoU: it is not
    below DIoU, and far above it where a small anchor lies in a large object.

    The intersection with an inverted box is empty, so its IoU and IoF are 0. What a box that is not finite gives stays
    in its own row or column.

    Args:
        a: ``(A, 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype.
        b: ``(G, 4)``, with ``aligned`` ``(A, 4)``.
        mode: One of ``MODES``.
        aligned: Compare the i-th box with the i-th instead of each with each.
        eps: Least area, or what is added to it (see the table), in squared units.

    Returns:
        ``(A, G)``, or ``(A,)`` if aligned; float64 for float64 boxes, else float32. Differentiable in both sets; where
        two coordinates are equal the gradient is shared, as torch does, and boxes that touch have that of boxes that
        overlap, as torch's ``clamp`` gave it before 2.14.

    Raises:
        ValueError: if a shape, the mode or eps is not as above.
        TypeError: if the boxes are not floating point.

    Reference:
        GIoU: Rezatofighi et al. 2019, arXiv:1902.09630. DIoU, CIoU: Zheng et al. 2020, arXiv:1911.08287. Where eps
        enters is the convention of mmdetection: a floor when areas are compared, a summand in the DIoU and CIoU losses.
    """
    if mode not in MODES:
        raise ValueError(f"pairwise_iou: expected mode in {MODES}, got {mode!r}")
    _check.tensors("pairwise_iou", a=a, b=b)
    _check.numbers("pairwise_iou", eps=eps)
    dtype = common_dtype("pairwise_iou", a, b)
    result: Tensor = _pairwise_iou(a.to(dtype), b.to(dtype), mode, aligned, eps)
    if _check.enabled():  # here, because the shapes are right by now
        _check.boxes("pairwise_iou", a, name="a")
        _check.boxes("pairwise_iou", b, name="b")
    return result


def pairwise_iou_reference(
    a: Tensor, b: Tensor, *, mode: str = "iou", aligned: bool = False, eps: float = 1e-6
) -> Tensor:
    """The specification of :func:`pairwise_iou`, in plain PyTorch."""
    a, b = (a, b) if aligned else (a[:, None], b[None])
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    area_a = size_a.prod(-1)
    shared = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared, hull = _at_least(shared, 0.0), _at_least(hull, 0.0)
    both, diagonal = shared.prod(-1), hull.square().sum(-1)
    union = area_a + size_b.prod(-1) - both
    distance = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]).square().sum(-1) / 4
    if mode == "iou":
        return both / union.clamp(min=eps)
    if mode == "iof":
        return both / area_a.clamp(min=eps)
    if mode == "giou":
        union, around = union.clamp(min=eps), hull.prod(-1).clamp(min=eps)
        return both / union - (around - union) / around
    if mode == "diou_released":
        return both / area_a.clamp(min=eps) - distance / diagonal.clamp(min=eps)
    iou = both / (union + eps)
    diou = iou - distance / (diagonal + eps)
    if mode == "diou":
        return diou
    angle_a, angle_b = (torch.atan(size[..., 0] / (size[..., 1] + eps)) for size in (size_a, size_b))
    v = 4 / pi**2 * (angle_b - angle_a).square()
    alpha = (v / (1 - iou + v + eps)).detach()
    return diou - alpha * v


def _at_least(x: Tensor, low: float) -> Tensor:
    """``x.clamp(min=low)`` whose gradient at ``low`` is 1 in every torch; from 2.14 on clamp's is 0."""
    return torch.where(x < low, low, x)


def _empty(a: Tensor, b: Tensor, aligned: bool) -> Tensor:
    return a.new_empty(a.shape[:1] if aligned else (*a.shape[:1], *b.shape[:1]), dtype=accumulator(a.dtype))


def _forward(a: Tensor, b: Tensor, mode: str, aligned: bool, eps: float) -> Tensor:
    a, b, out = a.contiguous(), b.contiguous(), _empty(a, b, aligned)
    kernels, where = _C.on(a)
    kernels.pairwise_iou(where, a, b, MODES.index(mode), aligned, eps, out)
    return out


def _backward(grad: Tensor, a: Tensor, b: Tensor, mode: str, aligned: bool, eps: float) -> tuple[Tensor, Tensor]:
    a, b = a.contiguous(), b.contiguous()
    grad, da, db = grad.to(accumulator(a.dtype)).contiguous(), torch.empty_like(a), torch.empty_like(b)
    kernels, where = _C.on(a)
    kernels.pairwise_iou_backward(where, grad, a, b, MODES.index(mode), aligned, eps, da, db)
    return da, db


def _save(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    a, b, ctx.mode, ctx.aligned, ctx.eps = inputs
    ctx.save_for_backward(a, b)


_pairwise_iou = differentiable(
    Op(
        "pairwise_iou(Tensor a, Tensor b, str mode, bool aligned, float eps) -> Tensor",
        _forward,
        fake=lambda a, b, mode, aligned, eps: _empty(a, b, aligned),
    ),
    Op(
        "pairwise_iou_backward(Tensor grad, Tensor a, Tensor b, str mode, bool aligned, float eps) -> (Tensor, Tensor)",
        _backward,
        fake=lambda grad, a, b, *_: tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (a, b)),
    ),
    save=_save,
    recall=lambda ctx, grad: (grad, *ctx.saved_tensors, ctx.mode, ctx.aligned, ctx.eps),
)
