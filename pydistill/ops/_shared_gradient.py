"""One gradient for all losses of a tensor, in place of one each that autograd adds up."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pydistill.ops._register import direct

_task: Callable[[], int] | None = getattr(torch._C, "_current_graph_task_id", None)


class SharedGradient:
    """The sum of the gradients so far, of one backward pass.

    Autograd runs each gradient on the CUDA stream of its forward, and sees none of those that are added here: the next
    stream waits for the last.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._pass = -1
        self._stream: torch.cuda.Stream | None = None  # that wrote the sum last

    def so_far(self) -> Tensor | None:
        """What losses may add to; None before the first."""
        assert _task is not None
        if self._sum is None or self._pass != _task():  # of a pass that failed halfway nothing is left
            return None
        if self._stream is not None:
            here = torch.cuda.current_stream(self._sum.device)
            if here != self._stream:
                here.wait_stream(self._stream)
                self._sum.record_stream(here)
                self._stream = here
        return self._sum

    def add(self, gradient: Tensor) -> None:
        """Takes ``gradient`` over. It may be ``so_far()`` itself, already added to."""
        assert _task is not None
        before = self.so_far()
        if before is None:
            self._sum, self._pass = gradient, _task()
            self._stream = torch.cuda.current_stream(gradient.device) if gradient.is_cuda else None
        elif gradient is not before:
            before.add_(gradient)

    def take(self) -> Tensor | None:
        found, self._sum = self.so_far(), None
        return found


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: SharedGradient) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.shared = shared
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        total = ctx.shared.take()
        if total is None or grad is None:
            return (grad if total is None else total), None
        return grad + total, None


def share_gradient(x: Tensor) -> Tensor:
    """``x``, for several losses: those that are its direct readers write one gradient together.

    Each would else fill a tensor of the size of ``x``, mostly with zeros where few rows have a weight, and autograd
    would add them up. Where torch traces or transforms, ``x`` itself: nothing changes but the time.
    """
    if _task is None or not (x.requires_grad and torch.is_grad_enabled() and direct((x,))):
        return x
    shared = SharedGradient()
    alias: Tensor = _Collect.apply(x, shared)  # type: ignore[no-untyped-call]
    alias.shared_gradient = shared  # type: ignore[attr-defined]
    return alias
