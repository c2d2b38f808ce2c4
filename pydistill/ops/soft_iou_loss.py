"""Soft intersection over union of segmentation logits and labels, without a one-hot tensor or a softmax in memory."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._register import Op, accumulator, differentiable

FORMS = ("lanes", "port", "port0", "binary", "paper_literal")
_ABSENT = ("skip", "one")
_MOST_CLASSES = 1024


def soft_iou_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    form: str = "lanes",
    absent: str | None = None,
    ignore_index: int = 255,
) -> Tensor:
    r"""One minus the soft IoU of each class in each image, averaged over both.

    With :math:`p` the softmax over the classes, :math:`y` the one-hot label and sums over the pixels i of image n,

    .. math:: I_{nc} = \sum_i p_{ic} y_{ic}, \qquad U_{nc} = \sum_i (p_{ic} + y_{ic} - p_{ic} y_{ic}), \qquad
              \ell = \frac{1}{M} \sum_{nc} \Big(1 - \frac{I_{nc}}{U_{nc}}\Big)

    over the M pairs of an image and a class that count; 0 where none does. A class without a pixel in an image has
    :math:`I = 0` and so the constant loss 1 without gradient, or is skipped: ``absent``.

    Args:
        logits: (N, K, H, W), float64, float32, float16 or bfloat16; class 0 is the background, K at most 1024. Other
            layouts than NCHW are copied.
        labels: (N, H, W), integers in [0, K), or 0 and 1 where K = 1. Any other label is background.
        form: ``"lanes"``: the mean over the classes 1 .. K - 1, K at least 2. ``"port"``: class 1 alone, which is what
            an indexing slip makes of the released port; with K = 1 the softmax of one channel, so that the loss has no
            gradient. ``"port0"``: the port's first version, whose softmax leaves out the background's logit.
            ``"binary"``: K = 1 and a sigmoid. ``"paper_literal"``: ``"lanes"`` with :math:`\sum_i p_{ic}` in place of
            I, as the paper's formula is quoted: it rewards lane pixels anywhere, and is here for comparison.
        absent: ``"skip"`` or ``"one"``, what a class without a pixel counts. None: ``"one"`` for the port's two forms,
            as there, ``"skip"`` for the others.
        ignore_index: Pixels of this label count nowhere, their logits are not used and their gradient is 0.

    Returns:
        The scalar loss, float64 for float64 logits, else float32. A NaN logit makes it NaN, and the gradient of its own
        image. Results repeat bit for bit.

    Raises:
        ValueError: If a shape or an option is not one of the above; under ``pydistill.checking`` also for labels
            that are neither a class nor ``ignore_index``, and for logits that are not finite.
        TypeError: If a dtype is not one of the above.

    Reference:
        Hou et al. 2019 (SAD), arXiv:1908.00821, section 3.2; InhwanBae/ENet-SAD_Pytorch, ``mIoULoss``, for the port:
        ``"port"`` is its last version and ``"port0"`` its first.
    """
    _check.tensors("soft_iou_loss", logits=logits, labels=labels)
    _check.numbers("soft_iou_loss", ignore_index=ignore_index)
    _check_arguments(logits, labels, form, absent)
    classes, known = logits.shape[1], max(logits.shape[1], 2)
    if absent is None:
        absent = "one" if form in ("port", "port0") else "skip"
    soft = int(form == "port0")
    first = int(classes > 1)
    measured = 1 if form == "port" else classes - first
    if labels.dtype != torch.int64:
        labels = labels.long()
    if _check.enabled(logits, labels):
        _check.labels("soft_iou_loss", labels.masked_fill(labels == ignore_index, 0), known)
        _check.finite("soft_iou_loss", "logits", logits, (labels != ignore_index).unsqueeze(1))
    result: Tensor = _soft_iou_loss(
        logits, labels, ignore_index, soft, first, measured, form == "binary", form == "paper_literal", absent == "skip"
    )
    return result


def soft_iou_loss_reference(
    logits: Tensor,
    labels: Tensor,
    *,
    form: str = "lanes",
    absent: str | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    z, labels = logits.to(accumulator(logits.dtype)), labels.long()
    classes = z.shape[1]
    used = (labels != ignore_index).unsqueeze(1)
    z = z.masked_fill(~used, 0)
    if form == "binary":
        p = z.sigmoid()
    elif form == "port0":
        p = z[:, 1:].softmax(1)
    else:
        p = z.softmax(1)[:, int(classes > 1) :]
    if form == "port":
        p = p[:, :1]
    wanted = torch.arange(1, 1 + p.shape[1], device=z.device)
    y = ((labels.unsqueeze(1) == wanted[:, None, None]) & used).to(p.dtype)
    p = p * used
    intersection, union = (p * y).sum((2, 3)), (p + y - p * y).sum((2, 3))
    present = y.sum((2, 3)) > 0
    numerator = p.sum((2, 3)) if form == "paper_literal" else intersection
    terms = torch.where(present, 1 - numerator / union.masked_fill(~present, 1), 1)
    skip = absent == "skip" or (absent is None and form not in ("port", "port0"))
    counted = present if skip else torch.ones_like(present)
    return (terms * counted).sum() / counted.sum().clamp_min(1)


def check_options(op: str, form: str, absent: str | None, prefix: str = "") -> None:
    """Raises where an option is outside its range; ``op`` has a ``prefix`` before their names."""
    if form not in FORMS:
        raise ValueError(f"{op}: expected {prefix}form in {FORMS}, got {form!r}")
    if absent not in (None, *_ABSENT):
        raise ValueError(f"{op}: expected {prefix}absent in {_ABSENT} or None, got {absent!r}")


def _check_arguments(logits: Tensor, labels: Tensor, form: str, absent: str | None) -> None:
    if logits.ndim != 4:
        raise ValueError(f"soft_iou_loss: expected logits of shape (N, K, H, W), got {list(logits.shape)}")
    if not logits.is_floating_point():
        raise TypeError(f"soft_iou_loss: expected logits of a floating point dtype, got {logits.dtype}")
    n, classes, h, w = logits.shape
    if labels.shape != (n, h, w):
        raise ValueError(f"soft_iou_loss: expected labels of shape {[n, h, w]}, got {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"soft_iou_loss: expected labels of an integer dtype, got {labels.dtype}")
    if labels.device != logits.device:
        raise ValueError(f"soft_iou_loss: expected labels on {logits.device}, got {labels.device}")
    check_options("soft_iou_loss", form, absent)
    least, most = {"binary": (1, 1), "port": (1, _MOST_CLASSES)}.get(form, (2, _MOST_CLASSES))
    if not least <= classes <= most:
        raise ValueError(f"soft_iou_loss: expected {least} to {most} classes for form {form!r}, got {classes}")


def _walkable(logits: Tensor) -> Tensor:
    """``logits`` where the pixels of a channel lie side by side, else a contiguous copy."""
    h, w = logits.shape[2:]
    side_by_side = (w <= 1 or logits.stride(3) == 1) and (h <= 1 or logits.stride(2) == w)
    return logits if side_by_side else logits.contiguous()


def _forward(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int,
    soft: int,
    first: int,
    measured: int,
    sigmoid: bool,
    literal: bool,
    skip: bool,
) -> tuple[Tensor, Tensor]:
    kernels, where = _C.on(logits)
    n, _, h, w = logits.shape
    wide = accumulator(logits.dtype)
    partial = logits.new_empty(n, kernels.soft_iou_tiles(h * w), 3, measured, dtype=wide)
    sums = logits.new_empty(n, 3, measured, dtype=wide)
    loss, slopes = logits.new_empty((), dtype=wide), logits.new_empty(n, 2, measured, dtype=wide)
    options = ignore_index, soft, first, measured, sigmoid, literal, skip
    kernels.soft_iou_loss(where, _walkable(logits), labels.contiguous(), *options, partial, sums, loss, slopes)
    return loss, slopes


def _backward(
    grad: Tensor,
    logits: Tensor,
    labels: Tensor,
    slopes: Tensor,
    ignore_index: int,
    soft: int,
    first: int,
    measured: int,
    sigmoid: bool,
) -> Tensor:
    kernels, where = _C.on(logits)
    dlogits = logits.new_empty(logits.shape)
    options = ignore_index, soft, first, measured, sigmoid
    grad = grad.to(accumulator(logits.dtype))
    kernels.soft_iou_loss_backward(where, grad, _walkable(logits), labels.contiguous(), *options, slopes, dlogits)
    return dlogits


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, labels, *options, _literal, _skip = inputs
    ctx.save_for_backward(logits, labels, output[1])
    ctx.options = options


def _recall(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (grad, *ctx.saved_tensors, *ctx.options)


def _fake(logits: Tensor, labels: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    wide = accumulator(logits.dtype)
    return logits.new_empty((), dtype=wide), logits.new_empty((logits.shape[0], 2, options[3]), dtype=wide)


_OPTIONS = "int ignore_index, int soft, int first, int measured, bool sigmoid"
_soft_iou_loss = differentiable(
    Op(
        f"soft_iou_loss(Tensor logits, Tensor labels, {_OPTIONS}, bool literal, bool skip) -> (Tensor, Tensor)",
        _forward,
        _fake,
    ),
    Op(
        f"soft_iou_loss_backward(Tensor grad, Tensor logits, Tensor labels, Tensor slopes, {_OPTIONS}) -> Tensor",
        _backward,
        lambda grad, logits, *_: logits.new_empty(logits.shape),
    ),
    _save,
    _recall,
)
