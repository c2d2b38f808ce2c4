"""Calls every public op with wrong arguments: each call must return, or raise ValueError or TypeError.

    python tools/fuzz.py [--seconds 60] [--seed N] [--case N] [--op NAME]

A case is a valid call with up to three of its arguments replaced: tensors by tensors of other shapes, dtypes, strides,
devices and layouts, with NaN and infinity, and with sizes of 2^42; options by anything. The calls run in a child; a
signal, a hang or another exception is a fault, and is printed with the case that repeats it. fuzz_cases has the valid
calls.
"""

import argparse
import faulthandler
import inspect
import itertools
import random
import re
import resource
import signal
import subprocess
import sys
import time
from typing import Any

import torch
from fuzz_cases import VALID
from fuzz_cases.values import DTYPES, Arguments, Random

import pydistill.ops

HANG_SECONDS = 30
MEMORY_BYTES = 16 << 30
SCALARS: list[Any] = [0, 1, -1, 2, 3, 255, 2**31, 2**63 - 1, 0.0, -0.5, 1e-300, 1e300, float("nan"), float("inf")]
SCALARS += [True, None, "", "mean", "sum", "none", [], [1], (4, 5), (0, 0), (-1, 3), (2**40, 2), {}, object()]


def available() -> list[str]:
    """The ops of the table that this version has."""
    return [name for name in VALID if hasattr(pydistill.ops, name)]


def strange(rng: Random, value: Any, tensor: bool) -> Any:
    """Something else in the place of ``value``: a tensor where one belongs, anything for anything else."""
    if isinstance(value, list) and value and isinstance(value[0], torch.Tensor) and rng.random() < 0.8:
        changed = rng.randrange(len(value))
        return [strange(rng, x, True) if i == changed else x for i, x in enumerate(value)]
    if not isinstance(value, torch.Tensor):
        return torch.randn(rng.choice([(), (2,), (4,), (2, 3)])) if tensor else rng.choice(SCALARS)
    x = value.detach()
    shape = [rng.choice([0, 1, 2, 3, 17]) for _ in range(rng.randrange(6))]
    kind = rng.randrange(8)
    if kind == 0:
        return torch.randn(shape).to(x.dtype)
    if kind == 1:
        return x.to(rng.choice(DTYPES))
    if kind == 2:
        return x.transpose(0, -1) if x.ndim else x[None]
    if kind == 3 and x.is_floating_point():  # one value that no arithmetic likes
        x = x.clone()
        x.view(-1)[rng.randrange(x.numel())] = rng.choice([float("nan"), float("inf"), -float("inf"), 1e38])
        return x
    if kind == 4:  # a size no buffer has, in no memory of its own
        return x.flatten()[:1].expand(*[rng.choice([2**25, 2**17]) for _ in range(2)], *x.shape[2:])
    if kind == 5 and x.ndim:
        return x[..., :0] if rng.random() < 0.5 else x[:0]
    if kind == 6:
        return torch.stack([x, x], -1)[..., 0].requires_grad_(x.is_floating_point())
    return rng.choice([x.to("meta"), x.to_sparse(), x * 1e30, -x if x.dtype != torch.bool else x, x[None]])


def make_case(seed: int, index: int, names: list[str]) -> tuple[str, Arguments]:
    """Case ``index`` of ``seed``: the op's name and its arguments; every fifth call is a valid one."""
    rng = random.Random(f"{seed} {index}")
    torch.manual_seed(rng.randrange(2**31))
    name = rng.choice(names)
    arguments = VALID[name](rng)
    parameters = inspect.signature(getattr(pydistill.ops, name)).parameters
    if index % 5:
        for key in rng.sample(list(arguments), rng.randint(1, min(3, len(arguments)))):
            arguments[key] = strange(rng, arguments[key], "Tensor" in str(parameters[key].annotation))
    return name, arguments


def describe(value: Any) -> str:
    """A tensor by its shape, dtype and strides, anything else as it prints."""
    if isinstance(value, torch.Tensor):
        strides = value.stride() if value.layout == torch.strided else value.layout
        return f"{value.device.type}{list(value.shape)} {value.dtype} strides {strides}"
    if isinstance(value, list):
        return f"[{', '.join(map(describe, value))}]"[:240]
    return repr(value)[:80]


def call(name: str, arguments: Arguments) -> None:
    """Calls the op, and its gradients where it has some."""
    result = getattr(pydistill.ops, name)(**arguments)
    outputs = result if isinstance(result, (list, tuple)) else [result]
    sums = [x.sum() for x in outputs if isinstance(x, torch.Tensor) and x.requires_grad]
    torch.autograd.backward(sums)


def plain(value: Any) -> bool:
    """Whether ``value`` is a tensor in memory, or none at all: others may fail inside torch, as they do elsewhere."""
    if isinstance(value, list):
        return all(map(plain, value))
    return not isinstance(value, torch.Tensor) or (value.layout == torch.strided and not value.is_meta)


def fault_of(error: Exception, valid: bool, ordinary: bool = True) -> str | None:
    """Why ``error`` should not have been raised; None where it is what a user may see."""
    if valid:
        return f"a valid call raised {type(error).__name__}: {error}"
    refused = isinstance(error, (ValueError, TypeError)) or (not ordinary and isinstance(error, RuntimeError))
    too_large = re.search("allocate|Storage size|Stride calculation overflowed", str(error))
    out_of_memory = isinstance(error, (RuntimeError, MemoryError)) and too_large
    return None if refused or out_of_memory else f"{type(error).__name__}: {error}"


def work(seed: int, first: int, only: bool, names: list[str], seconds: float) -> None:
    """The child: runs cases from ``first`` on and prints each number before its call."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    end = time.monotonic() + seconds
    for index in itertools.count(first):
        if time.monotonic() > end:
            return
        name, arguments = make_case(seed, index, names)
        text = f"{name}({', '.join(f'{key}={describe(value)}' for key, value in arguments.items())})"
        print(f"case {index} {text}", flush=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            call(name, arguments)
        except Exception as error:
            ordinary = all(map(plain, arguments.values()))
            if fault := fault_of(error, index % 5 == 0, ordinary):
                print(f"fault {fault}".replace("\n", " "), flush=True)
        faulthandler.cancel_dump_traceback_later()
        if only:
            return


def op_of(case: str) -> str:
    """The op's name in ``case 7 name(...)``."""
    return case.partition("(")[0].rpartition(" ")[2]


def watch(command: list[str]) -> tuple[int, dict[str, str]]:
    """Runs one child to its end: the number of its last case, and what it did wrong, with the first case of each."""
    last = ""
    faults: dict[str, str] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            if line.startswith("case "):
                last = line.strip()
            elif line.startswith("fault "):
                faults.setdefault(f"{op_of(last)}: {line.strip()}", last)
    if child.returncode:
        ended = signal.Signals(-child.returncode).name if child.returncode < 0 else "a hang, or an exception: see above"
        faults[f"{op_of(last)}: ended by {ended}"] = last
    return int(last.split()[1]) if last else -1, faults


def main() -> int:
    """Fuzzes for a time; the exit status is 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--case", type=int, help="run this case alone")
    parser.add_argument("--op", choices=sorted(VALID), help="fuzz this op alone")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [options.op] if options.op else available()
    if options.worker is not None:
        work(options.seed, options.worker, options.case is not None, names, options.seconds)
        return 0
    print(f"seed {options.seed}: {', '.join(names)}", flush=True)
    faults: dict[str, str] = {}
    end, index = time.monotonic() + options.seconds, options.case or 0
    while (left := end - time.monotonic()) > 0:
        command = [
            sys.executable,
            __file__,
            "--seed",
            str(options.seed),
            "--worker",
            str(index),
            "--seconds",
            str(left),
        ]
        command += ["--op", options.op] if options.op else []
        command += ["--case", str(index)] if options.case is not None else []
        last, found = watch(command)
        faults = {**found, **faults}
        index = last + 1
        if options.case is not None or last < 0:
            break
    for fault, case in faults.items():
        print(f"{fault}\n  first in {case}")
    print(f"{index} cases of seed {options.seed}, {len(faults)} kinds of faults")
    return 1 if faults or not index else 0


if __name__ == "__main__":
    sys.exit(main())
