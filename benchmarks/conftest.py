"""Ours and its peers in one run, taken in turns: the machine's mood falls on all of them alike.

    def test_softmax_kl(compare):
        compare(ours=..., eager=..., compiled=..., floor=..., bytes_moved=...)

pytest-benchmark times ``ours``; before each of its rounds every peer runs once and is timed. Minimum and median of
each, the bytes that must move and the load of the machine go to ``extra_info``.
``python benchmarks/summary.py build/benchmarks.json`` prints the table.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

LOAD = os.getloadavg()[0]  # of others: before this process starts to work
ROUNDS = int(os.environ.get("PYDISTILL_BENCH_ROUNDS", "15"))
Run = Callable[[], Any]


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _one_thread():
    """One thread, unless a benchmark says otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _timed(run: Run) -> float:
    _finish()
    start = time.perf_counter()
    run()
    _finish()
    return time.perf_counter() - start


@pytest.fixture
def compare(benchmark, request):
    """Times ``ours`` against ``peers`` in turns; ``bytes_moved``: each input read once, each output written once."""

    def run(*, ours: Run, bytes_moved: int, iterations: int = 1, rounds: int = ROUNDS, **peers: Run) -> None:
        repeated = {name: _repeat(peer, iterations) for name, peer in {**peers, "ours": ours}.items()}
        for contender in repeated.values():  # compile, fill caches
            contender()
            contender()
        times: dict[str, list[float]] = {name: [] for name in peers}

        def round_of_peers() -> None:
            for name, past in times.items():
                past.append(_timed(repeated[name]))
            _finish()

        benchmark.pedantic(lambda: (repeated["ours"](), _finish()), setup=round_of_peers, rounds=rounds)
        times["ours"] = list(benchmark.stats.stats.data)
        benchmark.extra_info.update(
            bytes_moved=bytes_moved,
            load_before=round(LOAD, 2),
            threads=torch.get_num_threads(),
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            torch=torch.__version__,
            minimum_ms={name: min(past) / iterations * 1e3 for name, past in times.items()},
            median_ms={name: statistics.median(past) / iterations * 1e3 for name, past in times.items()},
        )

    return run


def _repeat(run: Run, iterations: int) -> Run:
    if iterations == 1:
        return run

    def many() -> None:
        for _ in range(iterations):
            run()

    return many


def forward_backward(fn: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Run:
    """``fn``, which returns a scalar, and the gradients of those inputs that require one."""
    learners = [x for x in inputs if x.requires_grad]
    return lambda: torch.autograd.grad(fn(*inputs), learners)
