"""tools/gpu_check.py without a GPU: its commands, what it does with failures and time, and what it writes."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import gpu_check
import pytest
import torch
from gpu_summary import summary

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("offline", [False, True])
def test_commands(offline):
    build = {step.name: step for step in gpu_check.steps("build", offline)}
    assert build["install"].env["PYDISTILL_CUDA"] == "1"
    assert "native" in build["install"].env["CMAKE_ARGS"]
    assert ("--no-deps" in build["install"].command) == offline
    assert ("peer" in build) != offline
    assert [step.name for step in gpu_check.steps("reproduce")] == ["gpu", "demo", "lanes", "dense", "detr", "bev"]
    for stage in gpu_check.STAGES:
        for step in gpu_check.steps(stage, offline):
            named = [part for part in step.command if part.startswith((str(ROOT), "tests"))]
            assert all((ROOT / part).exists() for part in named if not part.startswith(f"{ROOT}/build")), step
    with pytest.raises(ValueError, match="expected a stage of build, test"):
        gpu_check.steps("everything")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs tomllib")
def test_offline_names_what_is_not_installed(tmp_path):
    (needed,) = [step for step in gpu_check.steps("build", offline=True) if step.name == "needed"]
    assert needed.required
    assert subprocess.run(needed.command, cwd=ROOT, check=False).returncode == 0
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["no-such-package>=2", "torch>=1000", "numpy"]\n'
        '[project.optional-dependencies]\ntrain = ["no-such-recipe", "numpy"]\n'
    )
    done = subprocess.run(needed.command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "gpu_check: the recipes and their tests expected no-such-recipe, got none\n"
    assert done.stderr.splitlines() == [
        "gpu_check: the build expected no-such-package>=2, got none",
        f"gpu_check: the build expected torch>=1000, got {torch.__version__}",
    ]


def test_merges_its_stages(tmp_path):
    file = tmp_path / "folder" / "check.json"
    gpu_check.merge(file, "build", {"ok": False})
    gpu_check.merge(file, "test", {"ok": True})
    gpu_check.merge(file, "build", {"ok": True, "steps": []})
    assert json.loads(file.read_text()) == {"build": {"ok": True, "steps": []}, "test": {"ok": True}}
    assert list(file.parent.iterdir()) == [file]


def test_stage_notes_failures_and_time():
    python = [sys.executable, "-c"]
    good = gpu_check.Step("good", [*python, "import os; print(os.environ['PD_SAID'])"], {"PD_SAID": "here"})
    bad = gpu_check.Step("bad", [*python, "raise SystemExit(3)"])
    slow = gpu_check.Step("slow", [*python, "import time; print('begun'); time.sleep(60)"])
    absent = gpu_check.Step("absent", ["no-such-command-anywhere"])

    result = gpu_check.run_stage("test", [good, bad, absent, good])
    assert [step["code"] for step in result["steps"]] == [0, 3, 127, 0]
    assert not result["ok"]
    assert result["steps"][0]["output"] == "here\n"
    assert gpu_check.run_stage("test", [good])["ok"]
    needed = dataclasses.replace(bad, required=True)
    assert [step["code"] for step in gpu_check.run_stage("build", [needed, good])["steps"]] == [3, None]
    stopped = gpu_check.run_stage("test", [slow, good], seconds=3)["steps"]
    assert [step["code"] for step in stopped] == [124, None]
    assert stopped[0]["output"] == "begun\n"
    shared = gpu_check.run_stage("sanitize", [slow, good], seconds=6)["steps"]
    assert [step["code"] for step in shared] == [124, 0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_fails_and_says_so():
    first = [gpu_check.steps(stage)[0] for stage in gpu_check.STAGES if stage != "build"]
    assert all(step == first[0] and step.required for step in first)
    result = gpu_check.run_stage("reproduce", gpu_check.steps("reproduce"))
    assert not result["ok"]
    assert "expected a GPU that torch can use, got none" in result["steps"][0]["output"]
    assert [step["code"] for step in result["steps"]] == [1] + [None] * (len(result["steps"]) - 1)


def test_rows_of_the_benchmarks():
    row = {"fullname": "benchmarks/test_kl.py::ours", "extra_info": {"minimum_ms": {"ours": 1.5}}, "stats": {}}
    expected = {"benchmarks/test_kl.py::ours": {"minimum_ms": {"ours": 1.5}}}
    assert gpu_check.rows({"benchmarks": [row]}) == expected


def test_sanitizers_watch_the_program_without_python():
    gpu, record, runner, replay, *watched = gpu_check.steps("sanitize")
    assert all(step.required for step in (gpu, record, runner, replay))
    assert record.command[1:] == [str(ROOT / "tools" / "record_launches.py"), str(gpu_check.LAUNCHES)]
    assert replay.command == [str(gpu_check.BUILD / "replay"), str(gpu_check.LAUNCHES)]
    names = ["memcheck", "racecheck", "initcheck", "synccheck", "memcheck-python"]
    assert [step.name for step in watched] == names
    for step in watched:
        tool = step.name.partition("-")[0]
        assert step.command[:5] == ["compute-sanitizer", "--error-exitcode", "9", "--tool", tool]
        assert ("--uninitialized" in step.command) == (tool == "initcheck")
    assert all(step.command[5:7] == replay.command for step in watched[:4])
    assert watched[4].env == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def test_each_test_file_of_an_op_is_in_one_step():
    files = [part for step in gpu_check.steps("test") for part in step.command if part.startswith("tests/ops/")]
    assert sorted(files) == sorted(f"tests/ops/{file.name}" for file in (ROOT / "tests" / "ops").glob("test_*.py"))


def test_a_resumed_stage_runs_what_failed_and_what_is_required():
    step = gpu_check.Step("count", [sys.executable, "-c", "print('again')"])
    needed = dataclasses.replace(step, name="needed", required=True)
    before = {"steps": [{"name": name, "code": 0, "seconds": 1.0, "output": "then"} for name in ("count", "needed")]}
    result = gpu_check.run_stage("test", [needed, step, dataclasses.replace(step, name="new")], before=before)
    assert [done["output"] for done in result["steps"]] == ["again\n", "then", "again\n"]
    before["steps"][0]["code"] = 124
    assert gpu_check.run_stage("test", [step], before=before)["steps"][0]["output"] == "again\n"


MACHINE = {"gpu": "NVIDIA H200", "driver": "580.65.06", "torch": "2.13.0", "cuda": "13.0.88"}


def stage(ok, *steps, machine=MACHINE):
    steps = [("gpu", 0, f"warning\nmachine {json.dumps(machine)}\n"), *steps]
    steps = [{"name": name, "code": code, "output": output} for name, code, output in steps]
    return {"ok": ok, "finished": "2026-11-22T01:02:03Z", "steps": steps}


def test_summary(tmp_path):
    stages = {
        "test": stage(
            False, ("ops-1", 0, "...\n7 passed in 2.0s\n"), ("rest", 1, "1 failed, 2 passed, 3 skipped, 1 error")
        ),
        "sanitize": stage(
            True,
            ("replay", 0, "319 calls of 55 functions, 0 with other results\n"),
            ("memcheck", 0, "no errors"),
            ("memcheck-python", None, "not run"),
        ),
        "reproduce": stage(True, ("demo", 0, ""), ("bev", 124, "")),
    }
    file, out = tmp_path / "check.json", tmp_path / "summary.json"
    file.write_text(json.dumps(stages))
    assert gpu_check.main(["summary", str(file), "-o", str(out)]) == 0
    date = "2026-11-22"
    assert json.loads(out.read_text()) == {
        **MACHINE,
        "date": date,
        "stages": {
            "test": {"ok": False, "date": date, "passed": 9, "failed": 2, "skipped": 3},
            "sanitize": {
                "ok": True,
                "date": date,
                "calls": 319,
                "functions": 55,
                "tools": {"memcheck": True, "memcheck-python": False},
            },
            "reproduce": {"ok": True, "date": date, "steps": {"demo": True, "bev": False}},
        },
    }


def test_stages_of_two_machines_are_not_one_summary():
    with pytest.raises(ValueError, match="expected stages that ran on one GPU"):
        summary({"test": stage(True), "bench": stage(True, machine={**MACHINE, "gpu": "another"})})
    with pytest.raises(ValueError, match="expected stages that ran on one GPU"):
        summary({})
