"""How a contender is run and timed: its gradients, inputs beyond the caches, seconds and memory."""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from pydistill.benchmarks.cache import cache_bytes

Run = Callable[[], Any]
MOST_COPIES = 8
MOST_WARM_UPS = 10
QUEUED_SECONDS = 0.005  # of launches between two events
SLEEP_CYCLES = 20_000_000  # of the GPU, about 0.01 s: the launches queue up behind it


def forward_backward(fn: Callable[..., Tensor], *inputs: Any, copies: int | None = None) -> Run:
    """``fn``, which returns a scalar, and the gradients of those inputs that require one and that it uses.

    Inputs are copied as in ``rotate``.
    """
    sets = [(some, [x for x in tensors_in(some) if x.requires_grad]) for some in copies_of(inputs, copies)]
    turns = itertools.cycle(sets)

    def run() -> tuple[Tensor | None, ...]:
        some, learners = next(turns)
        return torch.autograd.grad(fn(*some), learners, allow_unused=True)

    return run


def rotate(fn: Callable[..., Any], *inputs: Any, copies: int | None = None) -> Run:
    """``fn`` of ``inputs``, each call with the next of several copies, so that no call finds its inputs in a cache.

    Args:
        fn: what is timed. What it uses besides its arguments is not copied.
        inputs: tensors, or lists, dictionaries and dataclasses of tensors.
        copies: by default so many as together exceed twice the last cache, at most 8, and none where the inputs
            alone do. 1 for what times the call and not the work.
    """
    turns = itertools.cycle(copies_of(inputs, copies))
    return lambda: fn(*next(turns))


def copies_of(inputs: tuple[Any, ...], copies: int | None = None) -> list[tuple[Any, ...]]:
    """``inputs`` and its copies, which have the same layouts and require the same gradients."""
    if copies is None:
        size = sum(x.numel() * x.element_size() for x in tensors_in(inputs))
        copies = min(MOST_COPIES, math.ceil(2 * cache_bytes() / max(size, 1)))
    return [inputs, *(copy.deepcopy(inputs) for _ in range(copies - 1))]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in([*value.values()])
    elif isinstance(value, (list, tuple)):
        for x in value:
            yield from tensors_in(x)
    elif is_dataclass(value):
        yield from tensors_in([getattr(value, field.name) for field in fields(value)])


def repeat(run: Run, iterations: int) -> Run:
    """``run`` as often as ``iterations`` says, for what is too short for the clock."""
    if iterations == 1:
        return run

    def many() -> None:
        for _ in range(iterations):
            run()

    return many


def finish() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def wall_seconds(run: Run) -> float:
    """Seconds of one ``run``, on an idle device and until it is idle again."""
    finish()
    start = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - start


def gpu_seconds(run: Run, calls: int) -> float:
    """Seconds that the GPU takes for one ``run``: of ``calls`` of them, queued behind a sleep, between two events.

    Where a run waits for the GPU, or is launched more slowly than the GPU works, its waiting counts.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    finish()
    torch.cuda._sleep(SLEEP_CYCLES)  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(calls):
        run()
    end.record()
    finish()
    return float(start.elapsed_time(end)) / 1e3 / calls


def queue_length(seconds: float) -> int:
    """How many runs of ``seconds`` each are queued between two events."""
    return max(1, min(50, int(QUEUED_SECONDS / seconds)))


def warm_up(run: Run) -> float:
    """Runs until it gets no faster: compiled, its memory allocated. Returns the seconds of the last run."""
    past = math.inf
    for _ in range(MOST_WARM_UPS):
        last = wall_seconds(run)
        if past < math.inf and last > 0.8 * past:
            break
        past = last
    return last


def peak_memory(run: Run) -> float:
    """MB (2^20 bytes) allocated at the peak of ``run`` beyond what was before, its results included, by torch alone."""
    if torch.cuda.is_available():
        finish()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # torch.profiler, which wraps this one, imports half of torch for seconds
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    live = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(live, default=0) / 2**20
