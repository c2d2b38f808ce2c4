"""What the machine does at best with torch's own calls, which floors and roofs are computed from.

``copy_gb_s`` counts each byte of a large copy twice, read and written. ``latency_us`` is the time of torch's smallest
call, the sum of two numbers. ``operations_gflop_s`` is the rate of ``torch.mm`` in float32, whose products and sums
count each: a roof for arithmetic, which exponentials and divisions do not reach.
"""

from functools import partial

import torch

from pydistill.benchmarks.cache import cache_bytes
from pydistill.benchmarks.timing import Run, gpu_seconds, queue_length, repeat, wall_seconds, warm_up

ROUNDS = 7
CALLS = 1000  # of the smallest call


def probe(device: str) -> dict[str, float]:
    """Measures all three with the present number of threads."""
    on_gpu = device == "cuda"
    numbers = max(256 << 20, 4 * cache_bytes()) // 4
    a, b = torch.ones(numbers, device=device), torch.ones(numbers, device=device)
    copying = seconds(partial(b.copy_, a), on_gpu)
    x = torch.zeros(1, device=device)
    calling = seconds(partial(torch.add, x, x), on_gpu, CALLS)
    n = 8192 if on_gpu else 1024
    c = torch.ones(n, n, device=device)
    computing = seconds(partial(torch.mm, c, c), on_gpu)
    return {
        "copy_gb_s": 2 * 4 * numbers / copying / 1e9,
        "latency_us": calling * 1e6,
        "operations_gflop_s": 2 * n**3 / computing / 1e9,
    }


def seconds(run: Run, on_gpu: bool, calls: int = 1) -> float:
    """The fastest of several rounds of ``calls``, for one call."""
    warm = warm_up(run)
    if on_gpu:
        return min(gpu_seconds(run, queue_length(warm)) for _ in range(ROUNDS))
    return min(wall_seconds(repeat(run, calls)) for _ in range(ROUNDS)) / calls
