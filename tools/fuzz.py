"""Calls every public op and every compiled function with wrong arguments.

    python tools/fuzz.py [--seconds 600] [--seed N] [--case N] [--op NAME] [--only public|compiled]

Each call must return, or raise ValueError or TypeError. A case is a valid call with up to three of its arguments
replaced: tensors by tensors of other shapes, dtypes, strides, devices and layouts, with NaN and infinity, and with
sizes of 2^42; options by anything. Public ops and compiled functions (fuzz_compiled.py, which also watches their
memory) take turns. The calls run in a child; a signal, a hang or another exception is a fault, and is printed with the
case that repeats it. fuzz_cases has the valid calls.
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
from functools import lru_cache, partial
from typing import Any

import fuzz_compiled
import torch
from compiled_calls import in_memory
from fuzz_cases import VALID
from fuzz_cases.strange import strange
from fuzz_cases.values import Arguments

import pydistill.ops
from pydistill import _C

HANG_SECONDS = 30
MEMORY_BYTES = 16 << 30
VALID_EVERY = 5  # cases: one is a valid call
PLAIN_TORCH = ("info_nce_loss",)  # PyTorch's operators alone: they would read 2^42 elements, for days
CALLS_SERVE = 32  # cases: finding out what a public op calls takes longer than calling it


def available() -> list[str]:
    """The ops of the table that this version has."""
    return [name for name in VALID if hasattr(pydistill.ops, name)]


def make_case(seed: int, index: int, names: list[str]) -> tuple[str, Arguments]:
    """Case ``index`` of ``seed``: the op's name and its arguments; one in VALID_EVERY is valid."""
    rng = random.Random(f"{seed} {index}")
    torch.manual_seed(rng.randrange(2**31))
    name = rng.choice(names)
    arguments = VALID[name](rng)
    parameters = inspect.signature(getattr(pydistill.ops, name)).parameters
    if index % VALID_EVERY:
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
    return in_memory(value) or not isinstance(value, torch.Tensor)


def fault_of(error: Exception, valid: bool, ordinary: bool = True) -> str | None:
    """Why ``error`` should not have been raised; None where it is what a user may see."""
    if valid:
        return f"a valid call raised {type(error).__name__}: {error}"
    refused = isinstance(error, (ValueError, TypeError)) or (not ordinary and isinstance(error, RuntimeError))
    too_large = re.search("allocate|Storage size|Stride calculation overflowed", str(error))
    out_of_memory = isinstance(error, (RuntimeError, MemoryError)) and too_large
    return None if refused or out_of_memory else f"{type(error).__name__}: {error}"


def try_public(seed: int, index: int, names: list[str]) -> str | None:
    """Prints and runs a case of the public ops; returns what went wrong."""
    name, arguments = make_case(seed, index, names)
    announce(index, name, arguments)
    if name in PLAIN_TORCH and any(isinstance(x, torch.Tensor) and x.numel() > 2**32 for x in arguments.values()):
        return None
    try:
        call(name, arguments)
    except Exception as error:
        return fault_of(error, index % VALID_EVERY == 0, all(map(plain, arguments.values())))
    return None


def try_compiled(seed: int, index: int, names: list[str]) -> str | None:
    """Prints and runs a case of the compiled functions; returns what went wrong."""
    announce(index, "a valid call", {})
    calls = calls_for(seed, index - index % CALLS_SERVE, tuple(names))
    rng = random.Random(f"{seed} {index} compiled")
    torch.manual_seed(rng.randrange(2**31))
    name, args = fuzz_compiled.make_case(rng, calls, index % VALID_EVERY == 0)
    announce(index, f"_C.{name}", dict(zip([p for p, _ in fuzz_compiled.parameters(name)], args, strict=True)))
    harm, error = fuzz_compiled.damage(getattr(_C.cpu, name), args)
    fault = error and fault_of(error, index % VALID_EVERY == 0, all(map(plain, args)))
    return fault or (None if isinstance(error, MemoryError) else harm)


@lru_cache(maxsize=1)
def calls_for(seed: int, first: int, names: tuple[str, ...]) -> list[fuzz_compiled.Call]:
    """The calls of compiled functions by one public op, which serve the cases from ``first`` on."""
    rng = random.Random(f"{seed} {first} calls")
    torch.manual_seed(rng.randrange(2**31))
    calls: list[fuzz_compiled.Call] = []
    while not calls:  # some ops are Python alone
        op = rng.choice(names)
        calls = fuzz_compiled.calls_of(partial(call, op, VALID[op](rng)))
    return calls


def announce(index: int, name: str, arguments: Arguments) -> None:
    """Prints a case ahead of its call: it may be the last thing that this process does."""
    text = ", ".join(f"{key}={describe(value)}" for key, value in arguments.items())
    print(f"case {index} {name}({text})", flush=True)


def work(seed: int, first: int, only: bool, names: list[str], seconds: float, kinds: list[str]) -> None:
    """The child: runs cases from ``first`` on and prints each before its call."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    end = time.monotonic() + seconds
    for index in itertools.count(first):
        if time.monotonic() > end:
            return
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        fault = KINDS[kinds[index % len(kinds)]](seed, index, names)
        faulthandler.cancel_dump_traceback_later()
        if fault:
            print(f"fault {fault}".replace("\n", " "), flush=True)
        if only:
            return


KINDS = {"public": try_public, "compiled": try_compiled}


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
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--case", type=int, help="run this case alone")
    parser.add_argument("--op", choices=sorted(VALID), help="fuzz this op alone")
    parser.add_argument("--only", choices=sorted(KINDS), help="public ops or compiled functions alone")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [options.op] if options.op else available()
    if options.worker is not None:
        kinds = [options.only] if options.only else list(KINDS)
        work(options.seed, options.worker, options.case is not None, names, options.seconds, kinds)
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
        command += ["--only", options.only] if options.only else []
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
