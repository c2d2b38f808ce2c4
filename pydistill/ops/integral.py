"""The expectation of a softmax over bins: where a box side lies that is given as a distribution."""

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._reduction import regular
from pydistill.ops._register import Op, accumulator, differentiable


def integral(logits: Tensor, bins: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
    r"""The mean of each row's distribution over its bins, such as a box side in units of its level's stride.

    With :math:`p = \mathrm{softmax}(z)` over the n bins of a row and :math:`y_i` what bin i stands for,

    .. math:: d = \sum_i p_i y_i, \qquad \partial d / \partial z_i = p_i (y_i - d).

    Accumulates in float32, in float64 for float64.

    Args:
        logits: z, ``(..., n)``, float64, float32, float16 or bfloat16: for box sides ``(B, A, 4, n)``, in the order
            left, top, right, bottom. Of any strides.
        bins: y, ``(n,)`` floating point values of any unit and order; None: 0, 1, ..., n - 1. A constant.
        mask: bool, broadcasts to ``logits`` without its last dimension; None: all. Rows of False are not read: their
            value and their gradient are 0 whatever their logits are.

    Returns:
        d, ``logits`` without its last dimension, between the least and the largest bin; float64 for float64, else
        float32. A row with a NaN or a logit of infinity is NaN; -inf rules a bin out.

    Raises:
        ValueError: If a shape is not as above.
        TypeError: If the logits or the bins are not floating point, or the mask not bool.

    Reference:
        Li et al. 2020 (Generalized Focal Loss), arXiv:2006.04388, equation 5: "Integral" in its code.
    """
    _check.tensors("integral", logits=logits)
    _check.optional("integral", bins=bins, mask=mask)
    if not logits.is_floating_point():
        raise TypeError(f"integral: expected logits of a floating point dtype, got {logits.dtype}")
    if not logits.dim():
        raise ValueError("integral: expected logits of shape (..., n), got []")
    if bins is not None:
        if not bins.is_floating_point():
            raise TypeError(f"integral: expected bins of a floating point dtype, got {bins.dtype}")
        bins = bins.detach().to(accumulator(logits.dtype)).contiguous()
    if mask is not None:
        mask = _row_mask(mask, logits)
    result: Tensor = _integral(logits, bins, mask)
    if _check.enabled():  # here, because the shapes are right by now
        possible = logits != -torch.inf
        _check.finite("integral", "logits", logits, possible if mask is None else possible & mask[..., None])
    return result


def integral_reference(logits: Tensor, bins: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
    """The specification of :func:`integral`, in plain PyTorch."""
    wide = accumulator(logits.dtype)
    if mask is not None:
        mask = mask.expand(logits.shape[:-1])
        logits = logits.masked_fill(~mask[..., None], 0)
    if bins is None:
        bins = torch.arange(logits.shape[-1], device=logits.device)
    mean = (logits.to(wide).softmax(-1) * bins.to(wide)).sum(-1)
    return mean if mask is None else mean.masked_fill(~mask, 0)


def _row_mask(mask: Tensor, logits: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise TypeError(f"integral: expected mask of dtype bool, got {mask.dtype}")
    shape = logits.shape[:-1]
    if mask.shape == shape:
        return mask
    try:
        return mask.expand(shape)
    except RuntimeError:
        expected = f"mask that broadcasts to {list(shape)}"
        raise ValueError(f"integral: expected {expected}, got {list(mask.shape)}") from None


def _flat(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.reshape(-1).contiguous()


def _forward(logits: Tensor, bins: Tensor | None, mask: Tensor | None) -> Tensor:
    out = logits.new_empty(logits.shape[:-1], dtype=accumulator(logits.dtype))
    kernels, where = _C.on(logits)
    kernels.integral(where, regular(logits, logits.dim() - 1), bins, _flat(mask), out.view(-1))
    return out


def _backward(
    grad: Tensor, logits: Tensor, bins: Tensor | None, mask: Tensor | None, into: Tensor | None = None
) -> Tensor:
    logits = regular(logits, logits.dim() - 1)
    dlogits = torch.empty_like(logits) if into is None else into
    grad = grad.to(accumulator(logits.dtype)).reshape(-1).contiguous()
    kernels, where = _C.on(logits)
    kernels.integral_backward(where, grad, logits, bins, _flat(mask), into is not None, dlogits)
    return dlogits


_integral = differentiable(
    Op(
        "integral(Tensor logits, Tensor? bins, Tensor? mask) -> Tensor",
        _forward,
        fake=lambda logits, *_: logits.new_empty(logits.shape[:-1], dtype=accumulator(logits.dtype)),
    ),
    Op(
        "integral_backward(Tensor grad, Tensor logits, Tensor? bins, Tensor? mask) -> Tensor",
        _backward,
        fake=lambda grad, logits, *_: torch.empty_like(regular(logits, logits.dim() - 1)),
        adds=True,
    ),
    save=lambda ctx, inputs, _: ctx.save_for_backward(*inputs),
    recall=lambda ctx, grad: (grad, *ctx.saved_tensors),
)
