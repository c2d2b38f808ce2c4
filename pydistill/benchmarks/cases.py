"""What the suites share: contenders that agree before they are timed, and sizes by scale.

Operations are counted so: each of + - * / and a comparison is one, and so is each exp, log, arctan and square root.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from pydistill.benchmarks.timing import Run, forward_backward, rotate, tensors_in


def contenders(
    ours: Callable[..., Any],
    eager: Callable[..., Any],
    *inputs: Any,
    compiled: bool = True,
    tolerance: float = 1e-4,
    copies: int | None = None,
    **peers: Callable[..., Any],
) -> dict[str, Run]:
    """Runs of ``ours``, ``eager``, that compiled and ``peers``, once all agree with ``eager``.

    Where an input requires a gradient, functions return a scalar and runs compute the gradients too. Other arguments
    are those of ``agree`` and ``rotate``.
    """
    functions = {"ours": ours, "eager": eager, **peers}
    want = outcome(eager, inputs)
    for name, fn in functions.items():
        if fn is not eager:
            agree(name, outcome(fn, inputs), want, tolerance)
    if compiled:
        functions["compiled"] = compiled_when_called(eager)
    learns = any(x.requires_grad for x in tensors_in(inputs))
    return {
        name: (forward_backward if learns else rotate)(fn, *inputs, copies=copies) for name, fn in functions.items()
    }


def compiled_when_called(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` under torch.compile, which takes seconds to import: a run that leaves this contender out does not wait."""

    @cache
    def compiled() -> Callable[..., Any]:
        torch.compiler.reset()  # or what was compiled for other sizes makes these dynamic
        return torch.compile(fn, dynamic=False)

    return lambda *inputs: compiled()(*inputs)


def outcome(fn: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    """What ``fn`` returns and, where an input requires it, the gradients."""
    learners = [x for x in tensors_in(inputs) if x.requires_grad]
    out = fn(*inputs)
    return (out, torch.autograd.grad(out, learners, allow_unused=True, materialize_grads=True)) if learners else out


def agree(name: str, got: Any, want: Any, tolerance: float = 1e-4) -> None:
    """Raises where numbers differ by more than ``tolerance``, relative, or integers and truths at all."""
    pairs = list(zip(tensors_in(got), tensors_in(want), strict=True))
    for i, (a, b) in enumerate(pairs):
        where = f"{name}, output {i} of {len(pairs)}"
        if not b.is_floating_point():
            wrong = int((a != b).sum())
            assert wrong == 0, f"{where}: {wrong} of {b.numel()} differ"
            continue
        a, b = a.detach().double(), b.detach().double()
        error = float((a - b).norm() / b.norm().clamp(min=1e-300))
        assert error < tolerance, f"{where}: relative error {error:.3g}, expected less than {tolerance}"


def sides(scale: float, *lengths: int) -> tuple[int, ...]:
    """The sides of what has ``scale`` times the area."""
    return tuple(max(1, round(length * scale**0.5)) for length in lengths)


def times(scale: float, count: int) -> int:
    """``scale`` times as many, at least one."""
    return max(1, round(count * scale))
