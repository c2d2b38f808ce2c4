"""What a machine with a GPU says about pydistill: one stage a call, each writes its part of one JSON file.

    python tools/gpu_check.py build|test|sanitize|bench|reproduce [--out FILE] [--resume] [--offline] [--dry-run]
    python tools/gpu_check.py summary FILE -o benchmarks/results/<gpu>.gpu-check.json

``build`` compiles for the GPU at hand, ``test`` runs the conformance suite, the golden vectors and the graph captures
on it, ``sanitize`` records the launches of every kernel and repeats them under each tool of compute-sanitizer,
``bench`` runs the benchmarks, ``reproduce`` the demo and the recipes' tables, which a GPU trains larger; a table that
was stopped goes on with the next call. ``summary`` writes what is worth committing; times are in the JSON that the
benchmarks leave in build/gpu-benchmarks, for ``python -m pydistill.benchmarks.summary``.
A stage stops after eight minutes; what it had not started by then is written down as not run, and ``--resume`` runs
that and what failed. Every stage but the build asks first for the GPU and for kernels that run on it, and runs nothing
else where either is missing.
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

from gpu_summary import summary

ROOT = Path(__file__).resolve().parents[1]
STAGE_SECONDS = 470  # under eight minutes, with what it takes to stop and to write
PEER = "torch-linear-assignment==0.1.0"  # timed beside linear_sum_assignment
TAIL = 4000  # characters of output kept of each step
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
BENCHMARKS = ROOT / "build" / "gpu-benchmarks"
LAUNCHES = ROOT / "build" / "gpu-launches"
BUILD = ROOT / "build" / "editable"  # of setup.py
RECIPES = ("lanes", "dense", "detr", "bev")
STAGES = ("build", "test", "sanitize", "bench", "reproduce")
NEEDED = """\
import tomllib
from importlib.metadata import PackageNotFoundError, version
from packaging.requirements import Requirement

def lacking(texts):
    for needed in map(Requirement, texts):
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            yield f"{needed}, got none"
        else:
            if not needed.specifier.contains(found, prereleases=True):
                yield f"{needed}, got {found}"

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
for lack in lacking(project["project"]["optional-dependencies"]["train"]):
    print(f"gpu_check: the recipes and their tests expected {lack}")
if build := [f"gpu_check: the build expected {lack}" for lack in lacking(project["build-system"]["requires"])]:
    raise SystemExit("\\n".join(build))
"""
PROBE = """\
import json, subprocess, torch, pydistill
from pydistill import _C
assert torch.cuda.is_available(), "gpu_check: expected a GPU that torch can use, got none"
x = torch.rand(2, 3, 4, 5, device="cuda")
from pydistill.ops import attention_map
assert abs(attention_map(x).sum().item() - 2) < 1e-5
driver = subprocess.check_output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], text=True)
versions = dict(driver=driver.split()[0], torch=torch.__version__, cuda=_C.cuda.CUDA_VERSION)
versions |= dict(architectures=_C.cuda.ARCHITECTURES, pydistill=pydistill.__version__)
print("machine " + json.dumps(dict(gpu=torch.cuda.get_device_name(), **versions)))
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
            *([Step("needed", [python, "-c", NEEDED], required=True)] if offline else []),
            Step("install", install, native, required=True),
            Step("info", [python, "-m", "pydistill.info"]),
            probe,
            *([] if offline else peer),
        ]
    if stage == "test":
        return [probe, *_tests(pytest)]
    if stage == "sanitize":
        return [probe, *_sanitizers(python)]
    if stage == "bench":
        # one run each, so that a stopped one loses no other
        files = sorted((ROOT / "pydistill" / "benchmarks").glob("test_*.py"))
        reports = [f"--benchmark-json={BENCHMARKS / file.stem}.json" for file in files]
        return [probe, *(Step(f.stem, [*pytest, str(f), report]) for f, report in zip(files, reports))]
    if stage == "reproduce":
        demo = ["demo", "--accelerator", "cuda", "--minutes", "6", "--output", "build/gpu-demo"]
        table = ["--preset", "reproduce", "--accelerator", "cuda", "--output"]
        tables = {recipe: ["train", recipe, *table, f"build/gpu-{recipe}"] for recipe in RECIPES}
        runs = {"demo": demo, **tables}
        return [probe, *(Step(name, [python, "-m", "pydistill", *do]) for name, do in runs.items())]
    raise ValueError(f"gpu_check: expected a stage of {', '.join(STAGES)}, got {stage!r}")


def _tests(pytest: list[str]) -> list[Step]:
    """What needs the GPU, in parts that each take a few minutes."""
    parallel = ["-n", str(min(8, os.cpu_count() or 1))] if find_spec("xdist") else []
    here = [*pytest, *parallel, "-k", "(cuda or captured) and not fake"]
    ops = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests" / "ops").glob("test_*.py"))
    quarters = [ops[i::4] for i in range(4)]
    rest = ["tests", "--ignore=tests/ops", "--ignore=tests/hosts"]
    return [*(Step(f"ops-{i + 1}", [*here, *files]) for i, files in enumerate(quarters)), Step("rest", [*here, *rest])]


def _sanitizers(python: str) -> list[Step]:
    """Every kernel under every tool, without Python; then once with it, one allocation a tensor."""
    record = [python, str(ROOT / "tools" / "record_launches.py")]
    replay = [str(BUILD / "replay"), str(LAUNCHES)]
    watch = ["compute-sanitizer", "--error-exitcode", "9", "--tool"]
    raw = {"initcheck": ["--uninitialized"]}
    through_python = [*watch, "memcheck", *record, f"{LAUNCHES}-watched", "--calls", "4"]
    return [
        Step("record", [*record, str(LAUNCHES)], required=True),
        Step("runner", ["cmake", "--build", str(BUILD), "--target", "replay"], required=True),
        Step("replay", replay, required=True),
        *(Step(tool, [*watch, tool, *replay, *raw.get(tool, [])]) for tool in SANITIZERS),
        Step("memcheck-python", through_python, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}),
    ]


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


def run_stage(
    stage: str, todo: list[Step], seconds: float = STAGE_SECONDS, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Runs the steps one after the other within ``seconds``; sanitizers share what is left of them equally.

    A required step that fails ends the stage, other failures do not. ``before`` is what an earlier call of the stage
    gave: what is not required and succeeded there is not run again.
    """
    end = time.monotonic() + seconds
    succeeded = {step["name"]: step for step in (before or {}).get("steps", []) if step["code"] == 0}
    done: list[dict[str, Any]] = []
    failed = False
    for i, step in enumerate(todo):
        left = end - time.monotonic()
        if not step.required and step.name in succeeded:
            done.append(succeeded[step.name])
        elif left < 1 or failed:
            done.append({"name": step.name, "code": None, "output": "not run"})
        else:
            share = stage == "sanitize" and not step.required
            done.append(run(step, left / (len(todo) - i) if share else left))
            failed = step.required and done[-1]["code"] != 0
            print(f"{step.name}: exit {done[-1]['code']}, {done[-1]['seconds']} s\n{done[-1]['output']}", flush=True)
    return {"ok": all(result["code"] == 0 for result in done), "steps": done}


def rows(benchmarks: dict[str, Any]) -> dict[str, Any]:
    """Benchmark name to what it noted of itself and its peers, from pytest-benchmark's JSON."""
    return {row["fullname"]: row["extra_info"] for row in benchmarks["benchmarks"]}


def read(file: Path) -> dict[str, Any]:
    """What earlier calls wrote."""
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return content


def merge(file: Path, stage: str, result: dict[str, Any]) -> None:
    """Replaces the part of ``stage`` in ``file`` and leaves the other stages as they are."""
    content = read(file)
    content[stage] = result
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    unfinished.replace(file)


def run_bench(todo: list[Step], before: dict[str, Any] | None) -> dict[str, Any]:
    """Runs the benchmarks; beside the steps, what each benchmark noted."""
    if before is None:
        shutil.rmtree(BENCHMARKS, ignore_errors=True)
    BENCHMARKS.mkdir(parents=True, exist_ok=True)
    result = run_stage("bench", todo, before=before)
    reports = [json.loads(file.read_text()) for file in sorted(BENCHMARKS.glob("*.json")) if file.stat().st_size]
    result["benchmarks"] = {name: row for report in reports for name, row in rows(report).items()}
    return result


def main(arguments: list[str] | None = None) -> int:
    """Runs one stage; the exit status is 0 where every step succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*STAGES, "summary"])
    parser.add_argument("file", type=Path, nargs="?", help="of `summary`: what the stages wrote")
    parser.add_argument("--out", "-o", type=Path, default=ROOT / "build" / "gpu-check.json")
    parser.add_argument("--resume", action="store_true", help="leave out what succeeded in the last call")
    parser.add_argument("--offline", action="store_true", help="install nothing but this package")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    options = parser.parse_args(arguments)
    if options.stage == "summary":
        if options.file is None:
            parser.error("expected the file that the stages wrote")
        options.out.write_text(json.dumps(summary(read(options.file)), indent=1) + "\n")
        return 0
    todo = steps(options.stage, options.offline)
    if options.dry_run:
        for step in todo:
            print(*(f"{name}={value}" for name, value in step.env.items()), *step.command)
        return 0
    before = read(options.out).get(options.stage) if options.resume else None
    if options.stage == "bench":
        result = run_bench(todo, before)
    else:
        result = run_stage(options.stage, todo, before=before)
    merge(options.out, options.stage, {**result, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
