"""What the suites time, and how: one run of a contender, repeated or with its gradients."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], Any]


def finish() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(run: Run) -> float:
    """Seconds of one ``run``, on an idle device and until it is idle again."""
    finish()
    start = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - start


def repeat(run: Run, iterations: int) -> Run:
    """``run`` as often as ``iterations`` says, for what is too short for the clock."""
    if iterations == 1:
        return run

    def many() -> None:
        for _ in range(iterations):
            run()

    return many


def forward_backward(fn: Callable[..., Tensor], *inputs: Tensor) -> Run:
    """``fn``, which returns a scalar, and the gradients of those inputs that require one."""
    learners = [x for x in inputs if x.requires_grad]
    return lambda: torch.autograd.grad(fn(*inputs), learners)
