"""What the losses of rows share: weight, ``reduction`` and ``avg_factor``, and the buffers of csrc/ops/row_sum.h."""

from typing import NamedTuple

import torch
from torch import Tensor

from pydistill.ops import _check
from pydistill.ops._register import accumulator

HALF = (torch.float16, torch.bfloat16)
_TILE = 4096  # row_sum::kTile


class Reduction(NamedTuple):
    """How row losses become the result: ``factor * sum(weight * rows) / avg_factor``, or the weighted rows."""

    weight: Tensor | None  # the rows' shape, in the accumulator's dtype
    avg_factor: Tensor | None  # (), in the accumulator's dtype; None: 1
    factor: float
    reduce: bool  # to a scalar


def reduction_of(
    op: str,
    like: Tensor,
    shape: torch.Size,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
) -> Reduction:
    """The options of the loss ``op`` whose rows have ``shape``, checked; ``like`` brings dtype and device.

    ``"mean"`` divides by the number of rows, or by ``avg_factor``, which the host does where it is a number. A sum of
    0 over a factor of 0 is 0, and the gradient of a factor of 0 is 0.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'{op}: expected reduction "none", "mean" or "sum", got {reduction!r}')
    if avg_factor is not None and reduction != "mean":
        raise ValueError(f'{op}: expected reduction "mean" with avg_factor, got {reduction!r}')
    if isinstance(avg_factor, Tensor):
        if avg_factor.numel() != 1:
            raise ValueError(f"{op}: expected avg_factor of one element, got {list(avg_factor.shape)}")
    elif avg_factor is not None:
        _check.numbers(op, avg_factor=avg_factor)
    wide = accumulator(like.dtype)
    factor = 1.0
    if reduction == "mean" and not isinstance(avg_factor, Tensor):
        divisor = shape.numel() if avg_factor is None else avg_factor
        factor = 1 / divisor if divisor else 1.0
    if isinstance(avg_factor, Tensor):
        avg_factor = avg_factor.detach().to(wide).reshape(())
    elif avg_factor == 0:
        avg_factor = like.new_zeros((), dtype=wide)
    else:
        avg_factor = None
    weight = row_weight(op, weight, shape, wide)
    return Reduction(weight, avg_factor, factor, reduction != "none")


def reduce_reference(rows: Tensor, weight: Tensor | None, reduction: str, avg_factor: float | Tensor | None) -> Tensor:
    """The same in plain PyTorch, of ``rows`` that hold 0 wherever the weight is 0."""
    if weight is not None:
        rows = rows * weight.detach().to(rows.dtype)
    if reduction == "none":
        return rows
    total = rows.sum()
    if reduction == "sum":
        return total
    divisor = torch.as_tensor(rows.numel() if avg_factor is None else avg_factor, dtype=rows.dtype, device=rows.device)
    return torch.where((total == 0) & (divisor == 0), total, total / divisor)


def row_buffers(like: Tensor, shape: torch.Size, reduce: bool) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """``rows``, ``partial`` and ``total`` of a forward kernel, and the result, which is one of them.

    The kernel writes losses of any ``shape`` as a row. What is returned is no view, which autograd would let nobody
    modify.
    """
    wide = accumulator(like.dtype)
    if not reduce:
        losses = like.new_empty(shape, dtype=wide)
        return losses.view(-1), None, None, losses
    count = shape.numel()
    partial = like.new_empty((count + _TILE - 1) // _TILE, dtype=wide) if count > _TILE else None
    total = like.new_empty((), dtype=wide)
    return like.new_empty(count, dtype=wide), partial, total, total


def keeps_gradient(learner: Tensor) -> bool:
    """Whether forward may keep the unscaled gradient: on a CPU a second pass over exp costs more than its memory does.

    Not in half precision, where it would be rounded before the loss scale arrives.
    """
    return learner.requires_grad and not learner.is_cuda and learner.dtype not in HALF and torch.is_grad_enabled()


def scaled(kept: Tensor, grad: Tensor, consume: bool) -> Tensor:
    """The gradient that forward kept times the upstream one, in the memory of the former if it may be consumed."""
    return kept.mul_(grad) if consume else kept * grad


def regular(x: Tensor, dim: int = -1) -> Tensor:
    """``x`` itself if at most three strides say where its rows are (what the kernels take), else a contiguous copy.

    ``dim`` holds a row; -1: every element is a row.
    """
    if x.dim() <= 3 + (dim >= 0) or x.is_contiguous():
        return x
    levels, size, stride = 0, 1, 0
    for d in range(x.dim() - 1, -1, -1):
        if d == dim or x.shape[d] == 1:
            continue
        if levels and x.stride(d) == size * stride:
            size *= x.shape[d]
        else:
            levels, size, stride = levels + 1, x.shape[d], x.stride(d)
    return x if levels <= 3 else x.contiguous()


def row_weight(op: str, weight: Tensor | None, shape: torch.Size, wide: torch.dtype) -> Tensor | None:
    """``weight``, if any, of one number per row, broadcast to the rows' ``shape``, as constants in ``wide``."""
    if weight is None:
        return None
    _check.tensors(op, weight=weight)
    if weight.requires_grad:
        weight = weight.detach()
    if weight.dtype != wide:
        weight = weight.to(wide)
    if weight.shape == shape:
        return weight
    try:
        return weight.expand(shape)
    except RuntimeError:
        raise ValueError(f"{op}: expected weight that broadcasts to {list(shape)}, got {list(weight.shape)}") from None
