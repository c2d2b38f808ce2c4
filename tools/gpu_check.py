"""What a machine with a GPU says about pydistill: one stage a call, each writes its part of one JSON file.

    python tools/gpu_check.py build|test|sanitize|bench|reproduce [--out FILE] [--offline] [--dry-run]

``build`` compiles for the GPU at hand, ``test`` runs the conformance suite, the golden vectors and the graph captures
on it, ``sanitize`` runs every kernel under compute-sanitizer, ``bench`` the benchmarks, ``reproduce`` the demo and the
recipes' tables, larger; a table that was stopped goes on with the next call.
A stage stops after eight minutes; what it had not started by then is written down as not run. Every stage but the build
asks first for the GPU and for kernels that run on it, and runs nothing else where either is missing.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGE_SECONDS = 470  # under eight minutes, with what it takes to stop and to write
PEER = "torch-linear-assignment==0.1.0"  # timed beside linear_sum_assignment
TAIL = 4000  # characters of output kept of each step
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
BENCHMARKS = ROOT / "build" / "gpu-benchmarks"
PROBE = """\
import torch
from pydistill import _C
assert torch.cuda.is_available(), "gpu_check: expected a GPU that torch can use, got none"
x = torch.rand(2, 3, 4, 5, device="cuda")
print(torch.__version__, torch.cuda.get_device_name(), _C.cuda.CUDA_VERSION, "for", _C.cuda.ARCHITECTURES)
from pydistill.ops import attention_map
assert abs(attention_map(x).sum().item() - 2) < 1e-5
"""


@dataclass(frozen=True)
class Step:
    """A command of a stage, with what it adds to the environment."""

    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    required: bool = False  # the stage ends where this step fails


def steps(stage: str, offline: bool = False) -> list[Step]:
    """The commands of ``stage``; ``offline`` for a machine that can install nothing but this package."""
    python = sys.executable
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    probe = Step("gpu", [python, "-c", PROBE], required=True)
    if stage == "build":
        native = {"PYDISTILL_CUDA": "1", "CMAKE_ARGS": "-DCMAKE_CUDA_ARCHITECTURES=native"}
        install = [python, "-m", "pip", "install", "--no-build-isolation"]
        install += ["--no-deps", "-e", "."] if offline else ["-e", ".[train,dev]"]
        query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv"]
        peer = [Step("peer", [python, "-m", "pip", "install", "--no-deps", PEER])]
        return [
            Step("nvcc", ["nvcc", "--version"], required=True),
            Step("driver", query, required=True),
            Step("install", install, native, required=True),
            Step("info", [python, "-m", "pydistill.info"]),
            probe,
            *([] if offline else peer),
        ]
    if stage == "test":
        parallel = ["-n", "4"] if find_spec("xdist") else []
        return [probe, Step("pytest", [*pytest, *parallel, "-k", "cuda or graph", "tests"])]
    if stage == "sanitize":
        # One allocation a tensor, so that an access past its end is seen.
        uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        driver = [python, str(ROOT / "tools" / "gpu_driver.py")]
        watch = ["compute-sanitizer", "--error-exitcode", "9", "--tool"]
        return [probe, *(Step(tool, [*watch, tool, *driver], uncached) for tool in SANITIZERS)]
    if stage == "bench":
        # one run each, so that a stopped one loses no other
        files = sorted((ROOT / "pydistill" / "benchmarks").glob("test_*.py"))
        reports = [f"--benchmark-json={BENCHMARKS / file.stem}.json" for file in files]
        return [probe, *(Step(f.stem, [*pytest, str(f), report]) for f, report in zip(files, reports))]
    if stage == "reproduce":
        demo = ["demo", "--accelerator", "cuda", "--minutes", "6", "--output", "build/gpu-demo"]
        table = ["--preset", "reproduce", "--accelerator", "cuda", "--output"]
        tables = {recipe: ["train", recipe, *table, f"build/gpu-{recipe}"] for recipe in ("lanes", "dense", "detr")}
        runs = {"demo": demo, **tables}
        return [probe, *(Step(name, [python, "-m", "pydistill", *do]) for name, do in runs.items())]
    raise ValueError(f"gpu_check: expected a stage of build, test, sanitize, bench, reproduce, got {stage!r}")


def run(step: Step, seconds: float) -> dict[str, Any]:
    """Runs ``step`` for at most ``seconds``: its exit code (124 when stopped), time and the end of its output."""
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **step.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children stop with it
        )
    except OSError as error:
        return {"name": step.name, "code": 127, "seconds": 0.0, "output": str(error)}
    try:
        output, _ = process.communicate(timeout=seconds)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        code = 124
    tail = output.decode(errors="replace")[-TAIL:]
    return {"name": step.name, "code": code, "seconds": round(time.monotonic() - begin, 1), "output": tail}


def run_stage(stage: str, todo: list[Step], seconds: float = STAGE_SECONDS) -> dict[str, Any]:
    """Runs the steps one after the other within ``seconds``; sanitizers share what is left of them equally.

    A required step that fails ends the stage, other failures do not.
    """
    end = time.monotonic() + seconds
    done: list[dict[str, Any]] = []
    failed = False
    for i, step in enumerate(todo):
        left = end - time.monotonic()
        if left < 1 or failed:
            done.append({"name": step.name, "code": None, "output": "not run"})
        else:
            done.append(run(step, left / (len(todo) - i) if stage == "sanitize" else left))
            failed = step.required and done[-1]["code"] != 0
            print(f"{step.name}: exit {done[-1]['code']}, {done[-1]['seconds']} s\n{done[-1]['output']}", flush=True)
    return {"ok": all(result["code"] == 0 for result in done), "steps": done}


def summary(benchmarks: dict[str, Any]) -> dict[str, Any]:
    """Benchmark name to what it noted of itself and its peers, from pytest-benchmark's JSON."""
    return {row["fullname"]: row["extra_info"] for row in benchmarks["benchmarks"]}


def merge(file: Path, stage: str, result: dict[str, Any]) -> None:
    """Replaces the part of ``stage`` in ``file`` and leaves the other stages as they are."""
    content = json.loads(file.read_text()) if file.exists() else {}
    content[stage] = result
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    unfinished.replace(file)


def main(arguments: list[str] | None = None) -> int:
    """Runs one stage; the exit status is 0 where every step succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["build", "test", "sanitize", "bench", "reproduce"])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check.json")
    parser.add_argument("--offline", action="store_true", help="install nothing but this package")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    options = parser.parse_args(arguments)
    todo = steps(options.stage, options.offline)
    if options.dry_run:
        for step in todo:
            print(*(f"{name}={value}" for name, value in step.env.items()), *step.command)
        return 0
    if options.stage == "bench":
        shutil.rmtree(BENCHMARKS, ignore_errors=True)
        BENCHMARKS.mkdir(parents=True)
    result = run_stage(options.stage, todo)
    if options.stage == "bench":
        reports = [json.loads(file.read_text()) for file in sorted(BENCHMARKS.glob("*.json")) if file.stat().st_size]
        result["benchmarks"] = {name: row for report in reports for name, row in summary(report).items()}
    merge(options.out, options.stage, {**result, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
