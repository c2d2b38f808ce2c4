"""What a machine with a GPU says about pydistill: one stage a call, each writes its part of one JSON file.

    python tools/gpu_check.py build|test|sanitize|bench|reproduce [--out FILE] [--offline] [--dry-run]

``build`` compiles for the GPU at hand, ``test`` runs the conformance suite, the golden vectors and the graph captures
on it, ``sanitize`` runs every kernel under compute-sanitizer, ``bench`` the benchmarks, ``reproduce`` the demo, larger.
A stage stops after eight minutes; what it had not started by then is written down as not run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGE_SECONDS = 480
TAIL = 4000  # characters of output kept of each step
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
BENCHMARKS = ROOT / "build" / "gpu-benchmarks.json"


@dataclass(frozen=True)
class Step:
    """A command of a stage, with what it adds to the environment."""

    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)


def steps(stage: str, offline: bool = False) -> list[Step]:
    """The commands of ``stage``; ``offline`` for a machine that can install nothing but this package."""
    python = sys.executable
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if stage == "build":
        native = {"PYDISTILL_CUDA": "1", "CMAKE_ARGS": "-DCMAKE_CUDA_ARCHITECTURES=native"}
        install = [python, "-m", "pip", "install", "--no-build-isolation"]
        install += ["--no-deps", "-e", "."] if offline else ["-e", ".[train,dev]"]
        return [
            Step("nvcc", ["nvcc", "--version"]),
            Step("gpu", ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv"]),
            Step("install", install, native),
            Step("info", [python, "-m", "pydistill.info"]),
        ]
    if stage == "test":
        return [Step("pytest", [*pytest, "-k", "cuda or graph", "tests"])]
    if stage == "sanitize":
        # One allocation a tensor, so that an access past its end is seen.
        uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        driver = [python, str(ROOT / "tools" / "gpu_driver.py")]
        return [
            Step(tool, ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *driver], uncached)
            for tool in SANITIZERS
        ]
    if stage == "bench":
        return [Step("benchmarks", [*pytest, "benchmarks", f"--benchmark-json={BENCHMARKS}"])]
    if stage == "reproduce":
        return [
            Step("demo", ["pydistill", "demo", "--accelerator", "cuda", "--minutes", "6", "--output", "build/gpu-demo"])
        ]
    raise ValueError(f"gpu_check: expected a stage of build, test, sanitize, bench, reproduce, got {stage!r}")


def run(step: Step, seconds: float) -> dict[str, Any]:
    """Runs ``step`` for at most ``seconds``: its exit code (124 when stopped), time and the end of its output."""
    begin = time.monotonic()
    try:
        done = subprocess.run(
            step.command,
            cwd=ROOT,
            env={**os.environ, **step.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as stopped:
        code, output = 124, stopped.stdout or b""
    except OSError as error:
        code, output = 127, str(error).encode()
    tail = output.decode(errors="replace")[-TAIL:]
    return {"name": step.name, "code": code, "seconds": round(time.monotonic() - begin, 1), "output": tail}


def run_stage(stage: str, todo: list[Step], seconds: float = STAGE_SECONDS) -> dict[str, Any]:
    """Runs the steps one after the other within ``seconds``; a failed build ends the stage, other failures do not."""
    end = time.monotonic() + seconds
    done: list[dict[str, Any]] = []
    for step in todo:
        left = end - time.monotonic()
        failed_build = stage == "build" and any(result["code"] for result in done)
        if left < 1 or failed_build:
            done.append({"name": step.name, "code": None, "output": "not run"})
        else:
            done.append(run(step, left))
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
    BENCHMARKS.unlink(missing_ok=True)
    result = run_stage(options.stage, todo)
    if options.stage == "bench" and BENCHMARKS.exists():
        result["benchmarks"] = summary(json.loads(BENCHMARKS.read_text()))
    merge(options.out, options.stage, {**result, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
