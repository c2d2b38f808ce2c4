"""Runs every kernel once on small CUDA tensors, forward and backward: what compute-sanitizer watches.

    compute-sanitizer --tool memcheck python tools/gpu_driver.py

The calls are those of tools/fuzz_cases, ten for each op.
"""

import random
import sys
from typing import Any

import fuzz
import torch
from fuzz_cases import VALID

import pydistill.ops


def on_gpu(value: Any) -> Any:
    """``value`` on the GPU where it is a tensor or a list of them, still asking for its gradient."""
    if isinstance(value, list):
        return [on_gpu(x) for x in value]
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().cuda().requires_grad_(value.requires_grad)


def main() -> int:
    """Calls each op with ten sets of arguments."""
    torch.manual_seed(0)
    for name in fuzz.available():
        for seed in range(10):
            arguments = {key: on_gpu(value) for key, value in VALID[name](random.Random(seed)).items()}
            fuzz.call(name, arguments)
        torch.cuda.synchronize()
        print(f"{name}: ran on {torch.cuda.get_device_name()}, pydistill {pydistill.__version__}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
