"""What the focal losses share: their arguments of one number per row, and the way to their kernels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._reduction import regular, row_buffers, scaled
from pydistill.ops._register import Op, accumulator, differentiable, present


def check_rows(op: str, logits: Tensor, last: str, **others: Tensor) -> None:
    """``logits`` of shape (..., last) and a floating point dtype; ``others`` are tensors."""
    _check.tensors(op, logits=logits, **others)
    if logits.dim() < 1:
        raise ValueError(f"{op}: expected logits of shape (..., {last}), got {list(logits.shape)}")
    if not logits.is_floating_point():
        raise TypeError(f"{op}: expected logits of a floating point dtype, got {logits.dtype}")


def per_row(op: str, name: str, values: Tensor, logits: Tensor) -> Tensor:
    """``values`` of the rows' shape, as constants in the accumulator's dtype."""
    if not values.is_floating_point():
        raise TypeError(f"{op}: expected {name} of a floating point dtype, got {values.dtype}")
    _check_shape(op, name, values, logits)
    wide = accumulator(logits.dtype)
    return values.detach() if values.dtype == wide else values.detach().to(wide)


def row_labels(op: str, labels: Tensor, logits: Tensor) -> Tensor:
    """``labels`` of the rows' shape, as int64."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{op}: expected labels of an integer dtype, got {labels.dtype}")
    _check_shape(op, "labels", labels, logits)
    return labels if labels.dtype == torch.int64 else labels.long()


def row_loss(name: str, targets: str, options: str = "", adds: bool = False) -> Callable[..., Any]:
    """The op ``name`` and its gradient: the loss of each row of ``logits`` (..., n), reduced.

    Its arguments: logits, the tensors of the schema ``targets``, weight, avg_factor, the numbers of the schema
    ``options``, the factor of the sum, whether to sum, and whether to keep the gradient. Of the tensors, those of the
    logits' rank have rows of n, the others one number per row. One that ``adds`` has a kernel that adds its gradient to
    what is there.
    """
    tensors = f"Tensor logits, {targets}, Tensor? weight, Tensor? avg_factor"
    comma = ", " if options else ""
    end = tensors.count("Tensor")  # of the tensors among the arguments

    def forward(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
        *numbers, factor, reduce, keep = others[end - 1 :]
        shape = logits.shape[:-1]
        logits = _walkable(logits, logits.dim())
        rows, partial, total, result = row_buffers(logits, shape, reduce)
        kept = torch.empty_like(logits) if keep else None
        kernels, where = _C.on(logits)
        walkable = (_walkable(t, logits.dim()) for t in others[: end - 1])
        getattr(kernels, name)(where, logits, *walkable, *numbers, factor, rows, partial, total, kept)
        return result, kept

    def backward(
        grad: Tensor, logits: Tensor, *others: Any, consume: bool = False, into: Tensor | None = None
    ) -> Tensor:
        *of_rows, avg_factor, kept = others[:end]
        grad = grad.to(accumulator(logits.dtype))
        if kept is not None:
            dlogits = _of_kept(kept, grad, avg_factor, consume)
            return dlogits if into is None else into.add_(dlogits)
        logits = _walkable(logits, logits.dim())
        dlogits = torch.empty_like(logits) if into is None else into
        numbers = (*others[end:], into is not None) if adds else others[end:]
        kernels, where = _C.on(logits)
        walkable = (_walkable(t, logits.dim()) for t in (*of_rows, avg_factor))
        getattr(kernels, f"{name}_backward")(where, regular(grad), logits, *walkable, *numbers, dlogits)
        return dlogits

    def fake(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
        *_, reduce, keep = others
        loss = logits.new_empty(() if reduce else logits.shape[:-1], dtype=accumulator(logits.dtype))
        return loss, torch.empty_like(_walkable(logits, logits.dim())) if keep else None

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor | None]) -> None:
        ctx.save_for_backward(*inputs[:end], present(output[1]))
        ctx.numbers = inputs[end:-2]

    numbers = f"{options}{comma}float factor"
    return differentiable(
        Op(f"{name}({tensors}, {numbers}, bool reduce, bool keep) -> (Tensor, Tensor)", forward, fake),
        Op(
            f"{name}_backward(Tensor grad, {tensors}, Tensor? kept, {numbers}) -> Tensor",
            backward,
            lambda grad, logits, *_: torch.empty_like(_walkable(logits, logits.dim())),
            consumes=True,
            adds=adds,
        ),
        save,
        lambda ctx, grad: (grad, *ctx.saved_tensors, *ctx.numbers),
    )


def _walkable(t: Any, ndim: int) -> Any:
    """As the kernels take it; None stays None."""
    return t if t is None else regular(t, ndim - 1 if t.dim() == ndim else -1)


def _of_kept(kept: Tensor, grad: Tensor, avg_factor: Tensor | None, consume: bool) -> Tensor:
    """The gradient of the logits, where ``kept`` is that of the rows or of their sum before ``avg_factor``."""
    if avg_factor is not None:
        grad = torch.where(avg_factor == 0, 0, grad / avg_factor)
    return scaled(kept, grad.unsqueeze(-1) if grad.dim() else grad, consume)


def _check_shape(op: str, name: str, values: Tensor, logits: Tensor) -> None:
    shape = logits.shape[:-1]
    if values.shape != shape:
        raise ValueError(f"{op}: expected {name} of shape {list(shape)}, got {list(values.shape)}")
    if values.device != logits.device:
        raise ValueError(f"{op}: expected {name} on {logits.device}, got {values.device}")
