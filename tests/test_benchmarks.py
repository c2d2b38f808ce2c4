"""How contenders are run and others are watched, and ``pydistill bench`` from end to end."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pydistill import _extra, ops
from pydistill.benchmarks import cache, idle, suites, timing

pytest.importorskip("pytest_benchmark", reason="needs pip install 'pydistill[bench]'")
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("cache_bytes, expected", [(100, 1), (1200, 2), (1201, 3), (10**9, 8)])
def test_copies_exceed_twice_the_cache(monkeypatch, cache_bytes, expected):
    monkeypatch.setattr(timing, "cache_bytes", lambda: cache_bytes)
    x = torch.rand(2, 3, 5, 5).to(memory_format=torch.channels_last).requires_grad_()  # 600 bytes
    pair = torch.rand(2, 75)[:, ::2][:, :25], torch.rand(20, 5).t()  # 200 and 400 bytes: views with their strides
    sets = timing.copies_of(([x], {"pair": pair}))
    assert len(sets) == expected
    tensors = [[*timing.tensors_in(some)] for some in sets]
    assert len({y.data_ptr() for some in tensors for y in some}) == 3 * expected
    for some in tensors:
        for copied, original in zip(some, tensors[0]):
            assert torch.equal(copied, original)
            assert (copied.stride(), copied.requires_grad) == (original.stride(), original.requires_grad)
    assert len(timing.copies_of((x,), copies=1)) == 1


def test_runs_take_turns(monkeypatch):
    monkeypatch.setattr(timing, "cache_bytes", lambda: 24)

    @dataclass
    class Pair:
        a: torch.Tensor
        b: torch.Tensor

    pair = Pair(torch.ones(2, requires_grad=True), torch.full((2,), 3.0))
    seen = []

    def product(pair):
        seen.append(pair.a.data_ptr())
        return (pair.a * pair.b).sum()

    run = timing.forward_backward(product, pair)
    for _ in range(6):
        (gradient,) = run()
        assert gradient.tolist() == [3.0, 3.0]
    assert seen[:3] == seen[3:] and len(set(seen)) == 3
    seen.clear()
    values = [timing.rotate(product, pair, copies=2)() for _ in range(2)]
    assert [v.item() for v in values] == [6.0, 6.0]


def test_warm_up_ends_when_it_gets_no_faster(monkeypatch):
    for times, runs in (([9.0, 0.3, 0.1, 0.09, 0.01], 4), ([1.0, 1.1], 2), ([1 / 2**i for i in range(20)], 10)):
        left = iter(times)
        monkeypatch.setattr(timing, "wall_seconds", lambda run, left=left: next(left))
        assert timing.warm_up(lambda: None) == times[runs - 1]
        assert len([*left]) == len(times) - runs


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts what a CPU allocates")
def test_peak_memory_counts_what_lives_at_once():
    def run():
        first = torch.empty(3 << 20, dtype=torch.uint8)
        del first
        kept = torch.empty(2 << 20, dtype=torch.uint8)
        return kept, torch.empty(2 << 20, dtype=torch.uint8)

    assert timing.peak_memory(run) == pytest.approx(4, abs=0.01)
    assert timing.peak_memory(lambda: None) == 0


def test_gpu_seconds_are_between_two_events(monkeypatch):
    """Without a GPU: what is called in which order, and the division."""
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            said.append("event")

        def elapsed_time(self, end):
            return 12.0  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: said.append("sleep"), raising=False)
    monkeypatch.setattr(timing, "finish", lambda: said.append("finish"))
    assert timing.gpu_seconds(lambda: said.append("run"), 3) == pytest.approx(0.004)
    assert said == ["finish", "sleep", "event", "run", "run", "run", "event", "finish"]


def test_queue_of_launches():
    assert [timing.queue_length(s) for s in (1e-6, 1e-3, 1.0)] == [50, 5, 1]


def test_cache_is_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cache, "CACHES", tmp_path)
    assert cache.cache_bytes() == 32 << 20
    for i, size in enumerate(("32K\n", "512K\n", "16M\n")):
        (tmp_path / f"index{i}").mkdir()
        (tmp_path / f"index{i}" / "size").write_text(size)
    assert cache.cache_bytes() == 16 << 20


def ticks(folder, total, **processes):
    """A /proc: CPU ticks of all, and (parent, own ticks, ticks of children that have ended) of some processes."""
    (folder / "stat").write_text(f"cpu {total - 30} 5 5 1000000 50 5 5 10 0 0\ncpu0 1 2 3\n")
    for name, (parent, own, ended) in processes.items():
        file = folder / name.removeprefix("p") / "stat"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{name} (a) b) S {parent} {'0 ' * 9}{own} 0 {ended} 0 0 0")


def test_watch_counts_others_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(idle, "PROC", tmp_path)
    monkeypatch.setattr(idle.os, "getpid", lambda: 7)
    monkeypatch.setattr(idle.os, "cpu_count", lambda: 2)
    now = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(idle.time, "monotonic", lambda: next(now))
    processes = dict(p1=(0, 100, 0), p7=(1, 40, 10), p8=(7, 5, 0), p9=(8, 5, 0))
    ticks(tmp_path, 1000, **processes)
    watch = idle.Watch()
    # 900 ticks in 10 s: 500 of ours, a child that ended, a grandchild that lives; 400 of others
    ticks(tmp_path, 1900, p1=(0, 300, 0), p7=(1, 240, 110), p8=(7, 5, 0), p9=(8, 205, 0))
    second = idle.TICK * 100
    assert watch.cores() == pytest.approx((400 * second / 100 - 3 * idle.TICK) / 10)
    ticks(tmp_path, 1000, **processes)
    assert watch.cores() == 0  # nothing at all, less what clock ticks cannot tell


def test_processes_on_the_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert idle.gpu_processes() == 0
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n[ $1 = --query-compute-apps=pid ] && echo 12 && echo 345\n")
    tool.chmod(0o755)
    assert idle.gpu_processes() == 2


def test_names_that_can_be_asked_for():
    assert [file.name for file in suites.chosen(["softmax_kl", "softmax_kl"])] == ["test_softmax_kl.py"]
    assert [file.name for file in suites.chosen(["diou_loss", "giou_loss"])] == ["test_box_iou_loss.py"]
    assert suites.chosen([]) == sorted(suites.suites().values())
    assert suites.subjects().keys() - suites.suites().keys() <= set(ops.__all__)
    assert suites.scales("0.5,1,4") == [0.5, 1, 4]
    assert suites.skipped("compiled,floor") == ["compiled", "floor"] and suites.skipped("") == []


def test_every_contender_can_be_left_out():
    """Those of the reviewed runs; what a suite adds, it is told when it runs."""
    found = [json.loads(file.read_text())["rows"] for file in (ROOT / "benchmarks" / "results").glob("*.json")]
    assert found
    names = {name for rows in found for row in rows.values() for name in row["minimum_ms"]}
    assert names - {"ours"} <= {*suites.CONTENDERS}


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["softmaxkl"], "got softmaxkl; near it: softmax_kl"),
        (["--scale", "1,x"], "expected a scale of positive numbers with commas between, got '1,x'"),
        (["--scale", "0"], "expected a scale of positive numbers with commas between, got '0'"),
        (["--threads", "0"], "bench: expected --threads >= 1, got 0"),
        (["--rounds", "-1"], "bench: expected --rounds >= 0, got -1"),
        (["--skip", "compiled,foo"], "transformers to skip, got foo"),
        (["--skip", "ours"], "transformers to skip, got ours"),
        (["--plot", "kl.doc"], "expected a plot that ends in .svg, .png, .pdf, got kl.doc"),
    ],
)
def test_wrong_options_are_refused_at_once(arguments, said):
    testing = pytest.importorskip("typer.testing", reason="needs pip install 'pydistill[bench]'")
    from pydistill.commands import app

    result = testing.CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 1
    assert said in str(result.exception.code if isinstance(result.exception, SystemExit) else "") + result.output


def test_list_says_what_is_timed():
    testing = pytest.importorskip("typer.testing", reason="needs pip install 'pydistill[bench]'")
    from pydistill.commands import app

    lines = testing.CliRunner().invoke(app, ["bench", "--list"]).output.splitlines()
    assert len(lines) == len(suites.subjects()) and lines == sorted(lines)
    assert any(line.startswith("giou_loss ") and "one kernel" in line for line in lines)


def test_missing_extra(monkeypatch):
    monkeypatch.setattr(_extra, "find_spec", lambda name: None if name == "pytest_benchmark" else object())
    with pytest.raises(ImportError, match=r"pytest_benchmark, not installed here; pip install 'pydistill\[bench\]'"):
        _extra.require_bench("bench")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """``pydistill bench softmax_kl`` on little data, from a folder whose pytest is configured otherwise."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    command = [sys.executable, "-m", "pydistill", "bench", "softmax_kl", "--rounds", "1", "--scale", "0.01"]
    command += ["--skip", "compiled", "--plot", "a/plot.svg", "--json", "a/rows.json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment["PYTHONPATH"] = str(ROOT)
    return folder, subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_bench_writes_numbers(bench):
    folder, process = bench
    assert process.returncode == 0, process.stderr
    found = json.loads((folder / "a" / "rows.json").read_text())
    assert all(rate > 0 for rate in found["machine"]["copy_gb_s"].values())
    for name, row in found["rows"].items():
        assert {"ours", "eager"} <= set(row["minimum_ms"]) and "compiled" not in row["minimum_ms"]
        assert all(0 < t < math.inf for t in row["minimum_ms"].values())
        assert row["memory_mb"]["eager"] > row["memory_mb"]["ours"] > 0
        assert row["op"] == "softmax_kl" and name.startswith("softmax_kl/")
    assert found["machine"]["valid"] == (not found["machine"]["reasons"])


def test_bench_prints_a_table_alone(bench):
    _, process = bench
    lines = process.stdout.splitlines()
    assert lines[0].startswith("case ") and lines[1].startswith("softmax_kl/")
    assert "The machine was idle." in lines[-1] or "DO NOT QUOTE" in lines[-1]
    assert process.stderr == ""


def test_bench_draws(bench):
    plot = (bench[0] / "a" / "plot.svg").read_text()
    assert "bandwidth" in plot and "roofline" in plot and "ours" in plot and "eager" in plot
