"""Regression losses of boxes: one minus how much a predicted box overlaps its target."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import common_dtype
from pydistill.ops._reduction import reduce_reference, reduction_of, row_buffers
from pydistill.ops._register import Op, accumulator, differentiable
from pydistill.ops.pairwise_iou import pairwise_iou_reference

_FORMS = ("giou", "diou", "ciou", "ciou_released", "ciou_mmdet")
_ALPHAS = {"constant": "ciou", "released": "ciou_released", "mmdet": "ciou_mmdet"}


def giou_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
    eps: float = 1e-7,
) -> Tensor:
    r"""The generalized IoU loss :math:`w (1 - GIoU)` of each predicted box and its target.

    The measures are those of :func:`~pydistill.ops.pairwise_iou`. Results repeat bit for bit.

    Args:
        prediction: ``(..., 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype; any leading dimensions.
        target: Of the same shape. A constant.
        weight: w, broadcasts to ``prediction`` without its last dimension. A constant. A row of weight 0 is not used;
            its loss and its gradient are 0 whatever its boxes are.
        reduction: ``"none"``: one loss per row. ``"sum"``. ``"mean"``: the sum over the number of rows, or over
            ``avg_factor``.
        avg_factor: What ``"mean"`` divides the sum by, a number or a tensor of one element that is read on its device.
            A constant. A sum of 0 over a factor of 0 is 0; with a factor of 0 the gradient is 0.
        eps: Least area, in squared units of the boxes. mmdetection's loss modules take 1e-6, its functions 1e-7.

    Returns:
        The losses, of ``prediction``'s shape without its last dimension, or their scalar reduction; float64 for float64
        boxes, else float32. A NaN in a box makes its own row NaN; inverted boxes overlap nothing.

    Raises:
        ValueError: If a shape, an option or eps is not as above.
        TypeError: If the boxes are not floating point.

    Reference:
        Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    return _loss("giou_loss", "giou", prediction, target, weight, reduction, avg_factor, eps)


def diou_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
    eps: float = 1e-7,
) -> Tensor:
    r"""The distance IoU loss of each predicted box and its target.

    With I the area of the intersection and U of the union, :math:`\rho` the distance of the centres and c the diagonal
    of the smallest box around both,

    .. math:: \ell = w (1 - DIoU), \qquad DIoU = \frac{I}{U + \epsilon} - \frac{\rho^2}{c^2 + \epsilon}

    Results repeat bit for bit.

    Args:
        prediction: ``(..., 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype; any leading dimensions.
        target: Of the same shape. A constant.
        weight: w, broadcasts to ``prediction`` without its last dimension. A constant. A row of weight 0 is not used;
            its loss and its gradient are 0 whatever its boxes are.
        reduction: ``"none"``: one loss per row. ``"sum"``. ``"mean"``: the sum over the number of rows, or over
            ``avg_factor``.
        avg_factor: What ``"mean"`` divides the sum by, a number or a tensor of one element that is read on its device.
            A constant. A sum of 0 over a factor of 0 is 0; with a factor of 0 the gradient is 0.
        eps: :math:`\epsilon`, in squared units of the boxes. Where it is added is as in mmdetection.

    Returns:
        The losses, of ``prediction``'s shape without its last dimension and, for boxes that are not inverted, in
        [0, 2 w], or their scalar reduction; float64 for float64 boxes, else float32. A NaN in a box makes its own row
        NaN; inverted boxes overlap nothing.

    Raises:
        ValueError: If a shape, an option or eps is not as above; under ``pydistill.checking`` also for boxes that are
            inverted or not finite.
        TypeError: If the boxes are not floating point.

    Reference:
        Zheng et al. 2020, arXiv:1911.08287, equation 7.
    """
    return _loss("diou_loss", "diou", prediction, target, weight, reduction, avg_factor, eps)


def ciou_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
    eps: float = 1e-7,
    alpha: str = "constant",
) -> Tensor:
    r"""The complete IoU loss of each predicted box and its target.

    With DIoU as in :func:`diou_loss`, and v, which compares the aspect ratios of prediction and target,

    .. math:: \ell = w (1 - DIoU + \alpha v), \qquad
              v = \frac{4}{\pi^2} \Big(\arctan\frac{w_t}{h_t + \epsilon} - \arctan\frac{w_p}{h_p + \epsilon}\Big)^2,
              \qquad \alpha = \frac{v}{1 - IoU + v + \epsilon}

    The codes differ in :math:`\alpha`:

    ============= =====================================================================================
    ``constant``  no gradient, as torchvision has it
    ``released``  with its gradient, as the code released with Localization Distillation
    ``mmdet``     no gradient, and 0 where the IoU is not above 0.5; CIoU is cut to [-1, 1] (mmdetection 3)
    ============= =====================================================================================

    The codes of the last two have no eps in alpha, and NaN for equal boxes whose IoU rounds to 1; here the loss is then
    0. Results repeat bit for bit.

    Args:
        prediction: ``(..., 4)`` corners ``x1, y1, x2, y2``, any unit, any floating dtype; any leading dimensions.
        target: Of the same shape. A constant.
        weight: w, broadcasts to ``prediction`` without its last dimension. A constant. A row of weight 0 is not used;
            its loss and its gradient are 0 whatever its boxes are.
        reduction: ``"none"``: one loss per row. ``"sum"``. ``"mean"``: the sum over the number of rows, or over
            ``avg_factor``.
        avg_factor: What ``"mean"`` divides the sum by, a number or a tensor of one element that is read on its device.
            A constant. A sum of 0 over a factor of 0 is 0; with a factor of 0 the gradient is 0.
        eps: :math:`\epsilon`, in squared units of the boxes; of the heights in units.
        alpha: One of the table.

    Returns:
        The losses, of ``prediction``'s shape without its last dimension and, for boxes that are not inverted, at least
        0, or their scalar reduction; float64 for float64 boxes, else float32. A NaN in a box makes its own row NaN;
        inverted boxes overlap nothing.

    Raises:
        ValueError: If a shape, an option or eps is not as above; under ``pydistill.checking`` also for boxes that are
            inverted or not finite.
        TypeError: If the boxes are not floating point.

    Reference:
        Zheng et al. 2020, arXiv:1911.08287, equations 8 to 11.
    """
    if alpha not in _ALPHAS:
        raise ValueError(f"ciou_loss: expected alpha in {tuple(_ALPHAS)}, got {alpha!r}")
    return _loss("ciou_loss", _ALPHAS[alpha], prediction, target, weight, reduction, avg_factor, eps)


def box_iou_loss_reference(
    prediction: Tensor,
    target: Tensor,
    *,
    form: str,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """The specification of the losses, in plain PyTorch."""
    shape = prediction.shape[:-1]
    own, other = prediction.reshape(-1, 4), target.detach().reshape(-1, 4)
    if weight is not None:
        weight = weight.expand(shape)
        skipped = (weight == 0).reshape(-1, 1)
        own, other = own.masked_fill(skipped, 0), other.masked_fill(skipped, 0)
    if form in ("ciou_released", "ciou_mmdet"):
        overlap = _ciou_of_the_codes(own, other, form, eps)
    else:
        overlap = pairwise_iou_reference(own, other, mode=form, aligned=True, eps=eps)
    return reduce_reference((1 - overlap).reshape(shape), weight, reduction, avg_factor)


def _ciou_of_the_codes(a: Tensor, b: Tensor, form: str, eps: float) -> Tensor:
    diou = pairwise_iou_reference(a, b, mode="diou", aligned=True, eps=eps)
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
    sides = [x[:, 2:] - x[:, :2] for x in (a, b)]
    iou = shared / (sides[0].prod(-1) + sides[1].prod(-1) - shared + eps)
    angles = [torch.atan(x[:, 0] / (x[:, 1] + eps)) for x in sides]
    v = 4 / torch.pi**2 * (angles[1] - angles[0]).square()
    alpha = v / (1 - iou + v + eps)
    if form == "ciou_released":
        return diou - alpha * v
    return (diou - (alpha * (iou > 0.5)).detach() * v).clamp(-1, 1)


def _loss(
    op: str,
    form: str,
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    eps: float,
) -> Tensor:
    _check.tensors(op, prediction=prediction, target=target)
    _check.numbers(op, eps=eps)
    dtype = common_dtype(op, prediction, target)
    if not prediction.dim() or prediction.shape[-1] != 4:
        raise ValueError(f"{op}: expected prediction of shape (..., 4), got {list(prediction.shape)}")
    if target.shape != prediction.shape:
        raise ValueError(f"{op}: expected target of shape {list(prediction.shape)}, got {list(target.shape)}")
    prediction, target = prediction.to(dtype), target.detach().to(dtype)
    of = reduction_of(op, prediction, prediction.shape[:-1], weight, reduction, avg_factor)
    result: Tensor = _box_iou_loss(prediction, target, of.weight, of.avg_factor, form, eps, of.factor, of.reduce)
    if _check.enabled():  # here, because the shapes are right by now
        for name, boxes in (("prediction", prediction), ("target", target)):
            if of.weight is not None:
                boxes = boxes.masked_fill((of.weight == 0)[..., None], 0)
            _check.boxes(op, boxes, name=name)
    return result


def _flat(prediction: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    rows = prediction.numel() // 4
    boxes = prediction.reshape(rows, 4).contiguous(), target.reshape(rows, 4).contiguous()
    return *boxes, None if weight is None else weight.reshape(rows).contiguous()


def _forward(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None,
    avg_factor: Tensor | None,
    form: str,
    eps: float,
    factor: float,
    reduce: bool,
) -> Tensor:
    rows, partial, total, result = row_buffers(prediction, prediction.shape[:-1], reduce)
    kernels, where = _C.on(prediction)
    boxes = _flat(prediction, target, weight)
    kernels.box_iou_loss(where, *boxes, avg_factor, _FORMS.index(form), eps, factor, rows, partial, total)
    return result


def _backward(
    grad: Tensor,
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None,
    avg_factor: Tensor | None,
    form: str,
    eps: float,
    factor: float,
    reduce: bool,
) -> Tensor:
    grad = grad.to(accumulator(prediction.dtype))
    grad = grad if reduce else grad.reshape(-1).contiguous()
    down = torch.empty_like(prediction, memory_format=torch.contiguous_format)
    kernels, where = _C.on(prediction)
    boxes = _flat(prediction, target, weight)
    kernels.box_iou_loss_backward(
        where, grad, *boxes, avg_factor, _FORMS.index(form), eps, factor, down.view(boxes[0].shape)
    )
    return down


def _save(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _fake(prediction: Tensor, *options: Any) -> Tensor:
    shape = () if options[-1] else prediction.shape[:-1]
    return prediction.new_empty(shape, dtype=accumulator(prediction.dtype))


_box_iou_loss = differentiable(
    Op(
        "box_iou_loss(Tensor prediction, Tensor target, Tensor? weight, Tensor? avg_factor, str form, float eps, "
        "float factor, bool reduce) -> Tensor",
        _forward,
        fake=_fake,
    ),
    Op(
        "box_iou_loss_backward(Tensor grad, Tensor prediction, Tensor target, Tensor? weight, Tensor? avg_factor, "
        "str form, float eps, float factor, bool reduce) -> Tensor",
        _backward,
        fake=lambda grad, prediction, *_: torch.empty_like(prediction, memory_format=torch.contiguous_format),
    ),
    save=_save,
    recall=lambda ctx, grad: (grad, *ctx.saved_tensors, *ctx.options),
)
