"""Ours and its peers in one run, taken in turns: the machine's mood falls on all of them alike.

    def test_softmax_kl(compare, device, scale):
        compare(ours=..., eager=..., compiled=..., floor=..., bytes_moved=..., operations=...)

pytest-benchmark times ``ours``; before each of its rounds every peer runs once and is timed. What a case found goes to
its ``extra_info``, what the machine can do and whether it was idle to ``machine`` in the file that
``--benchmark-json`` names. ``python -m pydistill.benchmarks.summary`` makes a table of such files.
"""

import os
import statistics
import time

import pytest
import torch

from pydistill.benchmarks import timing
from pydistill.benchmarks.idle import Watch, gpu_processes
from pydistill.benchmarks.probe import probe
from pydistill.benchmarks.suites import CONTENDERS, scales, skipped

LOAD = os.getloadavg()[0]  # before this process starts to work
LOOK_SECONDS = 1.0  # at what others do, before the first case
ROUNDS = 15
MACHINE = pytest.StashKey()


def pytest_addoption(parser):
    rounds = int(os.environ.get("PYDISTILL_BENCH_ROUNDS", "0"))
    parser.addoption("--rounds", type=int, default=rounds, help="of every case, whatever it asks for")
    parser.addoption("--scale", default="1", help="times the size of a case, one or several with commas")
    parser.addoption("--threads", type=int, default=1, help="of torch")
    parser.addoption("--skip", default="", help="contenders to leave out, one or several with commas")


def pytest_generate_tests(metafunc):
    """A case that takes ``scale`` runs at each that was asked for; 1 is not part of its name."""
    if "scale" in metafunc.fixturenames:
        found = scales(metafunc.config.getoption("--scale"))
        metafunc.parametrize("scale", found, ids=[pytest.HIDDEN_PARAM if x == 1 else f"x{x:g}" for x in found])


def pytest_benchmark_update_json(config, output_json):
    if MACHINE in config.stash:
        found = config.stash[MACHINE]
        others_on_gpu = max(found["others_on_gpu"], gpu_processes() - 1)  # without this process
        output_json["machine"] = {**found, "load_after": os.getloadavg()[0], "others_on_gpu": others_on_gpu}


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _threads(request):
    """One thread, unless ``--threads`` or a benchmark says otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--threads"))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def machine(device, pytestconfig):
    """What is timed on, what others did there before, and what it can do with each number of threads."""
    others_on_gpu, watch = gpu_processes(), Watch()
    time.sleep(LOOK_SECONDS)
    pytestconfig.stash[MACHINE] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "load_before": LOAD,
        "others_before": watch.cores(),
        "others_on_gpu": others_on_gpu,
        "probes": {},
    }
    return pytestconfig.stash[MACHINE]


@pytest.fixture
def compare(benchmark, request, device, machine):
    """Times ``ours`` and ``peers``, functions without arguments, in turns.

    ``bytes_moved``: each input read once, each output written once. ``operations``: what the formula computes, where
    arithmetic may bound it. ``iterations``: runs between two looks at the clock. ``floor`` among the peers is the least
    that any implementation must do, as a call of torch.
    """

    def run(*, ours, bytes_moved, operations=None, iterations=1, rounds=ROUNDS, **peers):
        left_out = skipped(request.config.getoption("--skip"))
        assert peers.keys() <= {*CONTENDERS}, f"not in suites.CONTENDERS: {peers.keys() - {*CONTENDERS}}"
        contenders = {"ours": ours, **{name: peer for name, peer in peers.items() if name not in left_out}}
        threads = torch.get_num_threads()
        if str(threads) not in machine["probes"]:
            machine["probes"][str(threads)] = probe(device)
        warm = {name: timing.warm_up(contender) for name, contender in contenders.items()}
        memory = {name: timing.peak_memory(contender) for name, contender in contenders.items()}
        repeated = {name: timing.repeat(contender, iterations) for name, contender in contenders.items()}
        wall, on_gpu = ({name: [] for name in contenders} for _ in range(2))

        def round_of_peers():
            for name in contenders:
                if name != "ours":
                    wall[name].append(timing.wall_seconds(repeated[name]) / iterations)
                if device == "cuda":
                    calls = timing.queue_length(warm[name])
                    on_gpu[name].append(timing.gpu_seconds(contenders[name], calls))
            timing.finish()

        watch = Watch()
        rounds = request.config.getoption("--rounds") or rounds
        benchmark.pedantic(lambda: (repeated["ours"](), timing.finish()), setup=round_of_peers, rounds=rounds)
        others = watch.cores()
        wall["ours"] = [seconds / iterations for seconds in benchmark.stats.stats.data]
        times = on_gpu if device == "cuda" else wall
        benchmark.extra_info.update(
            scale=request.node.callspec.params.get("scale", 1) if hasattr(request.node, "callspec") else 1,
            threads=threads,
            bytes_moved=bytes_moved,
            operations=operations,
            minimum_ms=_milliseconds(min, times),
            median_ms=_milliseconds(statistics.median, times),
            wall_ms=_milliseconds(min, wall),
            memory_mb=memory,
            others_cpu=others,
        )

    return run


def _milliseconds(of, times):
    return {name: of(past) * 1e3 for name, past in times.items()}
