"""What ptxas makes of each kernel: registers, shared memory, stack and spills, for each architecture.

    python tools/kernels.py [--architectures 90|release] [--only softmax_kl ...] [--spills] [--markdown FILE]
    python tools/kernels.py --log FILE ...       reads what a build printed (-Xptxas=-v, ninja -v -j1), compiles nothing

Compiles every csrc/cuda/*.cu with the module's own flags and warnings as errors. The exit status is 1 where a kernel
spills more than tools/spills.py gives a reason for or has more static shared memory than launches leave it, or where,
of a whole release, no kernel needs such a reason.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spills import SPILLS, Spill

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "kernels"
OPS = sorted(file.stem for file in (ROOT / "csrc" / "cuda").glob("*.cu"))
RELEASE = ("75", "80", "86", "89", "90", "100", "120")
FILE = re.compile(r"-c \S*/csrc/cuda/(\w+)\.cu\b")
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")
TIME = re.compile(r"Compile time = ([\d.]+) ms")
REGISTERS = 65536  # of one multiprocessor, on every architecture so far
THREADS = 256  # of a block: Block::kThreads
STATIC = 2048  # bytes of a block's 48 KB that Cuda::kSharedBytes leaves to static shared memory


@dataclass(frozen=True)
class Kernel:
    """One kernel for one architecture; ``name`` is its body's and how many threads share a row of it."""

    file: str
    name: str
    architecture: str
    registers: int
    shared: int
    stack: int
    stores: int
    loads: int
    seconds: float  # of ptxas

    @property
    def spill(self) -> int:
        """Bytes spilled, the larger of what is stored and what is loaded again."""
        return max(self.stores, self.loads)

    @property
    def blocks(self) -> int:
        """How many blocks the registers of one multiprocessor are enough for."""
        return REGISTERS // (-(-self.registers // 8) * 8 * THREADS)


def short(demangled: str) -> str:
    """``Body<float> [tile 8]`` of ``void pydistill::tile_kernel<8, pydistill::math::Body<float> >(long, ...)``."""
    depth = 0
    for end, letter in enumerate(demangled):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and end:
            demangled = demangled[:end]
            break
    name = re.sub(r"^void |pydistill::|math::", "", demangled)
    for pattern, readable in ((r"\(\w+\)(\d+)", r"\1"), (r"__(half)\b|__nv_(bfloat16)", r"\1\2"), (r" (?=>)", "")):
        name = re.sub(pattern, readable, name)
    if found := re.fullmatch(r"block_kernel<(.*)>", name):
        return f"{found[1].rstrip()} [block]"
    if found := re.fullmatch(r"tile_kernel<(\d+), (.*)>", name):
        return f"{found[2].rstrip()} [tile {found[1]}]"
    return name


def read(log: str) -> list[Kernel]:
    """The kernels of a log: nvcc's commands, each followed by what ptxas said."""
    found: list[dict[str, Any]] = []
    file = ""
    for line in log.splitlines():
        if match := FILE.search(line):
            file = match[1]
        elif match := ENTRY.search(line):
            found.append(
                {"file": file, "name": match[1], "architecture": match[2], "stack": 0, "stores": 0, "loads": 0}
            )
        elif match := FRAME.search(line):  # of the kernel, and of every function that it calls
            for key, value in zip(("stack", "stores", "loads"), match.groups()):
                found[-1][key] = max(found[-1][key], int(value))
        elif match := USED.search(line):
            found[-1].update(registers=int(match[1]), shared=int(match[2] or 0), seconds=0.0)
        elif match := TIME.search(line):
            found[-1].update(seconds=float(match[1]) / 1000)
    names = "\n".join(entry["name"] for entry in found)
    demangled = subprocess.run(["c++filt"], input=names, capture_output=True, text=True, check=True).stdout.split("\n")
    complete = [entry | {"name": short(name)} for entry, name in zip(found, demangled) if "registers" in entry]
    return [Kernel(**entry) for entry in complete]


def compile_all(architectures: str, only: Iterable[str], jobs: int) -> str:
    """Compiles the module's CUDA files and returns the log; raises where one does not compile."""
    BUILD.mkdir(parents=True, exist_ok=True)
    release = architectures == "release"
    chosen = ["-DPYDISTILL_RELEASE=ON"] if release else [f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"]
    options = ["-DPYDISTILL_CUDA=1", "-DPYDISTILL_ISA=v2", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    options += ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DCMAKE_CUDA_FLAGS=-Xptxas=-v"]
    where = BUILD / architectures.replace(";", "-")
    configure = ["cmake", "-S", str(ROOT), "-B", str(where), "-G", "Ninja", *options, *chosen]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    commands = json.loads((where / "compile_commands.json").read_text())
    wanted = [c for c in commands if c["file"].endswith(".cu") and (not only or Path(c["file"]).stem in only)]

    def compile_one(command: dict[str, str]) -> str:
        begin = time.monotonic()
        done = subprocess.run(
            shlex.split(command["command"]), cwd=command["directory"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"kernels: {command['file']} does not compile\n{done.stdout}{done.stderr}")
        print(f"{Path(command['file']).name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        return f"{command['command']}\n{done.stdout}{done.stderr}"

    with ThreadPoolExecutor(jobs) as pool:
        log = "".join(pool.map(compile_one, wanted))
    (where / "ptxas.log").write_text(log)
    return log


def reason(kernel: Kernel, allowed: list[Spill]) -> Spill | None:
    """The narrowest rule that allows what ``kernel`` spills."""
    fitting = [s for s in allowed if re.match(s.pattern, kernel.name) and kernel.spill <= s.most]
    return min(fitting, key=lambda s: s.most, default=None)


def faults(kernels: list[Kernel], allowed: list[Spill] = SPILLS) -> list[str]:
    """Kernels that spill without a reason or leave a launch too little shared memory; of a whole release also reasons
    that no kernel needs.
    """
    spilling = {k: reason(k, allowed) for k in kernels if k.spill}
    wrong = [
        f"{k.file}: {k.name} spills {k.spill} bytes for sm_{k.architecture}, and tools/spills.py does not say why"
        for k, why in spilling.items()
        if why is None
    ]
    wrong += [
        f"{k.file}: {k.name} takes {k.shared} bytes of static shared memory, expected at most {STATIC}"
        for k in kernels
        if k.shared > STATIC
    ]
    if {k.architecture for k in kernels} >= set(RELEASE) and len({k.file for k in kernels}) == len(OPS):
        wrong += [f"tools/spills.py: no kernel needs {s.pattern!r}" for s in allowed if s not in spilling.values()]
    return wrong


def table(kernels: list[Kernel]) -> str:
    """One line a kernel, for a terminal."""
    lines = ["registers  blocks  shared  stack  stores  loads  sm   kernel"]
    for k in sorted(kernels, key=lambda k: (k.file, k.name, int(k.architecture))):
        numbers = f"{k.registers:9}  {k.blocks:6}  {k.shared:6}  {k.stack:5}  {k.stores:6}  {k.loads:5}"
        lines.append(f"{numbers}  {k.architecture:3}  {k.file}: {k.name}")
    return "\n".join(lines)


def slowest(kernels: list[Kernel]) -> str:
    """The five files that keep ptxas longest."""
    seconds = {file: sum(k.seconds for k in kernels if k.file == file) for file in sorted({k.file for k in kernels})}
    first = sorted(seconds, key=lambda file: -seconds[file])[:5]
    return f"ptxas: {sum(seconds.values()):.0f} s; " + ", ".join(f"{file} {seconds[file]:.0f} s" for file in first)


def extent(values: Iterable[int]) -> str:
    """``32 to 80``, or ``32`` where all are alike."""
    low, *_, high = [*sorted(values)] * 2
    return str(low) if low == high else f"{low} to {high}"


def markdown(kernels: list[Kernel], log: str) -> str:
    """The reviewed summary: per architecture, per file, and every spill with its reason."""
    version = re.search(r"PYDISTILL_CUDA_VERSION=\W*([\d.]+)", log)
    nvcc = version[1] if version else "unknown"
    lines = [
        "# Registers and spills",
        "",
        f"nvcc {nvcc}, {datetime.date.today()}, written by `python tools/kernels.py --markdown`. *Blocks*: how many of",
        f"them, {THREADS} threads each, the registers of a multiprocessor hold. *Shared*: bytes of a block, besides",
        "what a launch adds. *Spill*: kernels that do; *bytes*: the most that one stores or loads a thread.",
        "",
        "| architecture | kernels | registers (median) | blocks | shared | spill | bytes |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for architecture in sorted({k.architecture for k in kernels}, key=int):
        own = [k for k in kernels if k.architecture == architecture]
        registers = [k.registers for k in own]
        lines.append(
            f"| sm_{architecture} | {len(own)} | {extent(registers)} ({statistics.median(registers):.0f}) "
            f"| {extent(k.blocks for k in own)} | {extent(k.shared for k in own)} "
            f"| {sum(k.spill > 0 for k in own)} | {max(k.spill for k in own)} |"
        )
    lines += ["", "| file | kernels | registers | spill |", "|---|--:|--:|--:|"]
    for file in sorted({k.file for k in kernels}):
        own = [k for k in kernels if k.file == file]
        names, spilling = {k.name for k in own}, {k.name for k in own if k.spill}
        lines.append(f"| {file} | {len(names)} | {extent(k.registers for k in own)} | {len(spilling)} |")
    for rule in SPILLS:
        own = [k for k in kernels if k.spill and reason(k, SPILLS) == rule]
        if own:
            lines += ["", f"{rule.reason} (at most {rule.most} bytes)", ""]
            lines += [f"- `{name}`: {where}" for name, where in spilled(own).items()]
    return "\n".join(lines) + "\n"


def spilled(kernels: list[Kernel]) -> dict[str, str]:
    """Kernel to the architectures where it spills and the bytes."""
    found: dict[str, list[str]] = {}
    for k in sorted(kernels, key=lambda k: (k.name, int(k.architecture))):
        found.setdefault(k.name, []).append(f"sm_{k.architecture} {k.spill}")
    return {name: ", ".join(dict.fromkeys(where)) for name, where in found.items()}


def main(arguments: list[str] | None = None) -> int:
    """Compiles or reads, prints, checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", default="90", help="as CMAKE_CUDA_ARCHITECTURES, or release; 90")
    parser.add_argument("--log", type=Path, help="read this log and compile nothing")
    parser.add_argument("--only", nargs="+", default=[], choices=OPS, metavar="OP", help="csrc/cuda/OP.cu alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--spills", action="store_true", help="print only kernels that spill")
    parser.add_argument("--markdown", type=Path, help="write the summary to this file")
    options = parser.parse_args(arguments)
    log = options.log.read_text() if options.log else compile_all(options.architectures, options.only, options.jobs)
    kernels = [k for k in read(log) if not options.only or k.file in options.only]
    if not kernels:
        parser.error("expected kernels, got none: was the log written with -Xptxas=-v?")
    print(table([k for k in kernels if k.spill or not options.spills]))
    if options.markdown:
        options.markdown.write_text(markdown(kernels, log))
    print(slowest(kernels))
    wrong = faults(kernels)
    print("\n".join(wrong) or f"{len(kernels)} kernels, no spill without a reason")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
