"""The arithmetic of a summary, on made-up times and a made-up machine: floors, validity, pieces, comparison."""

import json

import pytest

from pydistill.benchmarks import summary, table

PROBE = {"copy_gb_s": 10.0, "latency_us": 2.0, "operations_gflop_s": 50.0}


def case(name="rows", suite="kl", **info):
    """One case of pytest-benchmark's JSON: ours 2 ms, eager 8 ms, 10 MB, nothing counted."""
    times = info.pop("times", {"ours": 2.0, "eager": 8.0})
    found = dict(
        scale=1, threads=1, bytes_moved=10_000_000, operations=None, others_cpu=0.0,
        minimum_ms=times, median_ms=times, wall_ms=times, memory_mb={"ours": 1.0, "eager": 3.0},
    )  # fmt: skip
    return {"fullname": f"a/b/test_{suite}.py::test_{name}", "name": f"test_{name}", "extra_info": {**found, **info}}


def run_of(*cases, **machine):
    found = dict(
        device="cpu", torch="2.13.0", cores=2, load_before=0.1, load_after=1.0, others_before=0.01, others_on_gpu=0,
        probes={"1": PROBE},
    )  # fmt: skip
    info = {"cpu": {"brand_raw": "Some CPU"}, "machine": "x86_64", "python_version": "3.11.7"}
    return {
        "machine": {**found, **machine},
        "machine_info": info,
        "datetime": "2026-11-22T01:02:03",
        "benchmarks": [*cases],
    }


@pytest.mark.parametrize(
    "info, floor",
    [
        ({"times": {"ours": 2.0, "floor": 0.5}}, 0.5),  # its own, even where copying takes longer
        ({}, 1.0),  # 10 MB at 10 GB/s
        ({"operations": 100_000_000}, 2.0),  # 0.1 Gop at 50 Gop/s
        ({"operations": 1_000_000}, 1.0),
        ({"bytes_moved": 100}, 0.002),  # a call
    ],
)
def test_floor_and_its_share(info, floor):
    row = summary.summarise([run_of(case(**info))])["rows"]["kl/rows"]
    assert row["floor_ms"] == floor
    assert row["share_of_floor"] == floor / 2


def test_floor_is_that_of_the_number_of_threads():
    run = run_of(case(threads=2), probes={"1": PROBE, "2": {**PROBE, "copy_gb_s": 20.0}})
    assert summary.summarise([run])["rows"]["kl/rows@2"]["floor_ms"] == 0.5


def test_wall_time_is_told_on_a_gpu():
    of_gpu = summary.summarise([run_of(case(wall_ms={"ours": 3.0}), device="H200")])
    assert of_gpu["machine"]["name"] == "H200"
    assert of_gpu["rows"]["kl/rows"]["wall_ms"] == {"ours": 3.0}
    assert table.cells(of_gpu)[0][1] == "2 (wall 3)"
    assert "wall_ms" not in summary.summarise([run_of(case())])["rows"]["kl/rows"]


@pytest.mark.parametrize(
    "run, reasons",
    [
        (run_of(case(others_cpu=0.09)), []),  # of two cores a tenth is quiet
        (run_of(case(others_cpu=0.11)), ["others used 0.11 cores during kl/rows"]),
        (run_of(case(others_cpu=0.11), cores=16), []),
        (run_of(case(), others_before=1.5), ["others used 1.5 cores before the first case"]),
        (run_of(case(), load_before=3.0), []),  # of what has ended
        (run_of(case(), others_on_gpu=2), ["2 other processes were on the GPU"]),
    ],
)
def test_validity(run, reasons):
    quiet = run_of(case("others"), cores=run["machine"]["cores"])
    for runs in ([run], [quiet, run], [run, quiet]):  # each piece counts
        machine = summary.summarise(runs)["machine"]
        assert machine["reasons"] == reasons
        assert machine["valid"] == (not reasons)
        assert ("DO NOT QUOTE" in table.validity(machine)) == bool(reasons)


def test_many_reasons_are_counted():
    machine = summary.summarise([run_of(*(case(f"c{i}", others_cpu=1.0) for i in range(5)))])["machine"]
    assert table.validity(machine).endswith("others used 1 cores during kl/c2; and 2 more.")


def test_pieces_merge():
    faster = {"1": {"copy_gb_s": 12.0, "latency_us": 1.0, "operations_gflop_s": 40.0}}
    again = case(times={"ours": 1.0, "eager": 8.0})
    merged = summary.summarise([run_of(case(), case("b")), run_of(again, case("c"), probes=faster), run_of()], "mine")
    machine = merged["machine"]
    assert list(merged["rows"]) == ["kl/rows", "kl/b", "kl/c"]
    assert merged["rows"]["kl/rows"]["minimum_ms"]["ours"] == 1.0
    assert (machine["copy_gb_s"], machine["latency_us"]) == ({"1": 12.0}, 1.0)
    assert machine["operations_gflop_s"] == {"1": 50.0}
    assert machine["name"] == "mine"
    with pytest.raises(ValueError, match="expected runs with one torch, got .'2.13.0', '2.6.0'."):
        summary.summarise([run_of(case()), run_of(case(), torch="2.6.0")])
    with pytest.raises(ValueError, match="expected runs with a case, got none"):
        summary.summarise([run_of()])


def test_summary_is_written_with_its_table(tmp_path):
    for i, name in enumerate(("a", "b")):
        (tmp_path / f"{i}.json").write_text(json.dumps(run_of(case(name))))
    output = tmp_path / "results" / "epyc.json"
    summary.main([str(tmp_path / "0.json"), str(tmp_path / "1.json"), "--name", "AMD", "-o", str(output)])
    assert list(json.loads(output.read_text())["rows"]) == ["kl/a", "kl/b"]
    page = output.with_suffix(".md").read_text()
    assert page.startswith("# AMD\n\n2026-11-22, torch 2.13.0, Python 3.11.7. 1 thread: copies 10 GB/s")
    assert "The machine was idle." in page
    assert "| kl/b | 2 | eager 8 (4.00x) | 1 | 50% | 5 | 1, 3 |" in page


def test_compare_names_what_moved(tmp_path, capsys):
    old = summary.summarise([run_of(case("a"), case("b"), case("gone"))])
    new = [case("a", times={"ours": 2.1, "eager": 8.0}), case("b", times={"ours": 1.0, "eager": 8.0}), case("fresh")]
    assert summary.compare(old, old) == []
    said = ["kl/gone: only in the old", "kl/fresh: only in the new", "kl/b: eager over ours was 4.00, is 8.00"]
    assert summary.compare(old, summary.summarise([run_of(*new)])) == said
    disturbed = summary.summarise([run_of(*new, others_before=1.0)])
    for name, content in (("old", old), ("new", disturbed)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    summary.main(["compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")])
    assert capsys.readouterr().out.splitlines() == ["the new run does not count", *said]
