"""Ours and its peers in one run, taken in turns: the machine's mood falls on all of them alike.

    def test_softmax_kl(compare):
        compare(ours=..., eager=..., compiled=..., floor=..., bytes_moved=...)

pytest-benchmark times ``ours``; before each of its rounds every peer runs once and is timed. Minimum and median of
each, the bytes that must move and the load of the machine go to ``extra_info``.
``python -m pydistill.benchmarks.summary build/benchmarks.json`` prints the table.
"""

import os
import statistics

import pytest
import torch

from pydistill.benchmarks.timing import Run, finish, repeat, timed

LOAD = os.getloadavg()[0]  # of others: before this process starts to work
ROUNDS = int(os.environ.get("PYDISTILL_BENCH_ROUNDS", "15"))


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


@pytest.fixture
def compare(benchmark, request):
    """Times ``ours`` against ``peers`` in turns; ``bytes_moved``: each input read once, each output written once."""

    def run(*, ours: Run, bytes_moved: int, iterations: int = 1, rounds: int = ROUNDS, **peers: Run) -> None:
        repeated = {name: repeat(peer, iterations) for name, peer in {**peers, "ours": ours}.items()}
        for contender in repeated.values():  # compile, fill caches
            contender()
            contender()
        times: dict[str, list[float]] = {name: [] for name in peers}

        def round_of_peers() -> None:
            for name, past in times.items():
                past.append(timed(repeated[name]))
            finish()

        benchmark.pedantic(lambda: (repeated["ours"](), finish()), setup=round_of_peers, rounds=rounds)
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
