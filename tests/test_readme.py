"""tools/readme.py: tables and goals from summaries; the committed pages are what the committed summaries say."""

import json
import re
from importlib import import_module

import pytest

from tests.test_docs import ROOT

readme, goals, goals_page, tool = (import_module(n) for n in ("readme", "goals", "goals_page", "summaries"))
KEYS = sorted({key for tables in readme.TABLES.values() for rows in tables.values() for key, _ in rows})
KEYS = sorted({*KEYS, *(key for goal in goals.GOALS for key in goal.rows)})
MACHINE = {"name": "A CPU, 2 cores", "device": "cpu", "date": "2026-11-22", "torch": "2.13.0", "python": "3.11.7"}
MACHINE |= {"valid": True, "copy_gb_s": {"1": 10.0}}
PEERS = {"eager": 100, "compiled": 8.0, "loop": 20, "transformers": 100, "scipy": 20, "mmdet": 40, "released": 90}


def row(ours=2.0, share=0.8, scale=1, **changes):
    times = {"ours": ours, **PEERS, **changes.pop("peers", {}), "floor": ours * share}
    return {"scale": scale, "minimum_ms": times, "floor_ms": ours * share, "share_of_floor": share} | {
        "memory_mb": {"ours": 10.0, "mmdet": 200.0},
        "bytes_moved": 18e6,
        **changes,
    }


def summary(machine=MACHINE, **rows):
    return tool.Summary(machine, {**{key: row() for key in KEYS}, **rows})


def test_pages_are_what_the_summaries_say(capsys):
    status = readme.main(["--check"])
    assert status == 0, capsys.readouterr().out


def test_rows_have_benchmarks():
    """A benchmark that is renamed takes its row of the README along."""
    for key in KEYS:
        suite, case = key.partition("@")[0].split("/")
        file = ROOT / "pydistill" / "benchmarks" / f"test_{suite}.py"
        assert re.search(rf"^def test_{case.partition('[')[0]}\(", file.read_text(), re.MULTILINE), key


def test_measured():
    found = summary(**{"softmax_kl/rows": row(ours=0.0325, share=1.264, peers={"eager": 0.14, "compiled": 0.0333})})
    text = readme.measured("README.md", [found])
    assert text.startswith("A CPU, 2 cores, torch 2.13.0, Python 3.11.7, float32, 2026-11-22. Contenders")
    (line,) = [line for line in text.splitlines() if "106744 x 17" in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1:4] == ["0.0325 ms", "4.3x", "1x"]
    assert "SciPy 620x" in cells[4] and "mmdetection 1200x" in cells[4]
    assert cells[5] == "126%"
    assert "[how it is measured](docs/benchmarks.md)" in text and "on A CPU, 2 cores, " in text.splitlines()[-2]
    assert "](benchmarks.md)" in readme.measured("docs/bev.md", [found])
    del found.rows["softmax_kl/rows"]
    assert "106744 x 17" not in readme.measured("README.md", [found])
    assert readme.faults([found], {"docs/goals.md": ""}) == ["no summary of a CPU has softmax_kl/rows"]


def verdicts(found, part):
    return {
        line[0]: line[-1] for line in goals_page.own_goals(found) + goals_page.common_goals(found) if part in line[0]
    }


@pytest.mark.parametrize(
    ("key", "changed", "said"),
    [
        ("response_loss/heads", row(), []),
        ("response_loss/heads", row(share=0.5), ["missed, 2x the floor: "]),
        ("response_loss/heads", row(peers={"compiled": 1.0}), ["missed, 0.5x `torch.compile`: "]),
        (
            "keypoint_feature_loss/map[nchw-256]",
            row(peers={"eager": 5.0}),
            ["missed, 2.5x eager PyTorch: at the floor"],
        ),
        ("assign_atss/assign_and_region", row(memory_mb={"ours": 20.5}), ["missed, 20.5 MB: NO REASON WRITTEN"]),
        ("ld_step/step", row(memory_mb={"ours": 109.0, "mmdet": 229.0}), []),
        ("ld_step/step", row(memory_mb={"ours": 110.0, "mmdet": 229.0}), ["missed, 110 MB, mmdetection 229: "]),
        ("softmax_kl/call_overhead", row(peers={"eager": 3.0}), ["missed, 1.5x eager PyTorch: what Python"] * 2),
    ],
)
def test_goals(key, changed, said):
    found = [text for text in verdicts(summary(**{key: changed}), f"`{key}`").values() if text != "met"]
    assert [text[: len(start)] for text, start in zip(found, said)] == said
    assert len(found) == len(said)


def test_goals_of_every_operator():
    """Far from the floor is enough where torch.compile is slower, and an absent peer decides nothing."""
    case = {"an_op/case": row(share=0.1), "an_op/slow": row(share=0.1, peers={"compiled": 1.0})}
    case["an_op/alone"] = row()
    for peer in PEERS:
        del case["an_op/alone"]["minimum_ms"][peer]
    found = verdicts(summary(**case), "an_op")
    assert found == {
        "`an_op/case`": "met",
        "`an_op/slow`": "missed, 10x the floor, 0.5x `torch.compile`: NO REASON WRITTEN",
    }
    text = goals_page.page([summary(**case)])
    assert "not measured yet: no GPU so far" in text
    assert len(readme.faults([summary()], {"docs/goals.md": text})) == 1


def test_goals_on_a_gpu():
    machine = {**MACHINE, "device": "NVIDIA H200", "name": "H200", "copy_gb_s": {"1": 10.0}}
    large = {"op/rows[x4]": row(ours=2.0, scale=4), "op/more[x4]": row(ours=2.4, scale=4)}
    slow = {"op/wall": row(wall_ms={"ours": 30.0, "eager": 100, "compiled": 90})}
    found = tool.Summary(machine, {**large, **slow})
    assert [line[-1] for line in goals_page.gpu_goals(found)] == [
        "met",
        "missed, 75% of the copy bandwidth: NO REASON WRITTEN",
        "missed, 3.3x eager PyTorch (wall): NO REASON WRITTEN",
    ]
    assert "H200, torch 2.13.0, 2026-11-22: 1 of 3 rows are met" in goals_page.page([summary(), found])


def test_ran():
    assert readme.ran([]).count("not run yet") == 6
    stages = {"test": {"ok": True, "passed": 7, "failed": 0, "skipped": 2}, "sanitize": {"ok": False, "calls": 40}}
    text = readme.ran([{"gpu": "H200", "date": "2026-12-01", "driver": "580.1", "stages": stages}])
    assert "| H200 (2026-12-01, driver 580.1) |" in text
    assert "golden vectors | yes, levels v3 and v4 | yes, 7 passed, 0 failed, 2 skipped |" in text
    assert "synccheck | does not apply | FAILED, 40 calls |" in text


def test_blocks():
    text = "a\n<!-- ran:begin, made -->\nold\n<!-- ran:end -->\nb\n"
    assert readme.replaced(text, "ran", r"new \1") == text.replace("old", r"new \1")
    with pytest.raises(SystemExit, match="expected one block measured, got 0"):
        readme.replaced(text, "measured", "")


def test_files(tmp_path):
    gpu = {"machine": {**MACHINE, "device": "H200"}, "rows": {}}
    (tmp_path / "a.json").write_text(json.dumps(gpu))
    (tmp_path / "b.json").write_text(json.dumps({"machine": MACHINE, "rows": {}}))
    (tmp_path / "h200.gpu-check.json").write_text(json.dumps({"gpu": "H200"}))
    assert [s.gpu for s in tool.summaries(tmp_path)] == [False, True]
    assert tool.gpu_checks(tmp_path) == [{"gpu": "H200"}]
    (tmp_path / "c.json").write_text(json.dumps({"machine": {**MACHINE, "valid": False}, "rows": {}}))
    with pytest.raises(SystemExit, match="expected a run on an idle machine"):
        tool.summaries(tmp_path)
