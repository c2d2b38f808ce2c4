"""The table of comparisons of detectors by queries: resumable rows, paired gains; and what is committed of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.detr import reproduce
from pydistill.recipes.detr.reproduce import ALONE, OTHERS, ROWS, SELF, Plan, Table, baseline, render
from pydistill.recipes.detr.run import COMMITTED, load_teacher
from pydistill.recipes.detr.training import check_pair, load_student
from tests.recipes.detr import TINY, make_teacher
from tests.recipes.lanes import same

pytestmark = pytest.mark.xdist_group("detr_reproduce")  # one worker makes the files that they share

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "detr.json"
SOME = [ALONE, SELF, OTHERS[0], OTHERS[1]]


def make(folder, plan):
    fabric = Fabric(accelerator="cpu", devices=1)
    return Table(folder, fabric, plan, SOME, teacher=make_teacher(), console=Console(quiet=True))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    plan = Plan(replace(TINY, steps=1, evaluate_every=9), 4, 2, seeds=(0, 1))
    taught = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "_OWN_TEACHER", {"width": 0.25})
        real = Table._teacher
        patch.setattr(Table, "_teacher", lambda *a: taught.append((a[1].name, real(*a))) or taught[-1][1])
        made = make(tmp_path_factory.mktemp("table"), plan)
        return made, made.run(), taught


def test_each_row_and_seed_is_there(table):
    made, text, _ = table
    runs = json.loads(made.path.read_text())["runs"]
    assert [(run["row"], run["seed"]) for run in runs] == [(row.name, s) for s in (0, 1) for row in SOME]
    assert made.path.with_suffix(".md").read_text() == text
    lines = [line.split(" | ")[0].strip("| ") for line in text.splitlines()]
    assert lines[2:4] == ["teacher", ALONE.name] and lines.count("Deformable DETR: teacher") == 1


def test_who_teaches(table):
    """A student itself as trained alone, another detector one of its kind, trained once; each before its row."""
    made, _, taught = table
    teachers = dict(taught)
    alone, _, _ = load_student(made.folder / "alone" / "1.pt")
    assert same(alone.state_dict(), teachers[SELF.name].state_dict())
    _, config, _ = load_student(made.folder / "teachers" / "deformable_detr.pt")
    assert (config.detector, config.width, config.seed) == ("deformable_detr", 0.25, 0)


def test_a_stopped_table_goes_on(table, monkeypatch):
    made, text, _ = table
    found = json.loads(made.path.read_text())
    made.path.write_text(json.dumps({**found, "runs": found["runs"][:-1]}))
    trained = []
    real = Table.score
    monkeypatch.setattr(
        Table, "score", lambda self, row, seed: trained.append((row.name, seed)) or real(self, row, seed)
    )
    assert make(made.folder, made.plan).run() == text and trained == [(SOME[-1].name, 1)]


def test_rows_are_what_their_names_say():
    """Each differs from the others in the terms that are on, in what they compare, or in the networks."""
    seen = set()
    for row in ROWS:
        config = replace(Plan().config, **row.changes)
        settings = config.loss().settings
        on = tuple(sorted(name for name, weight in settings.weights.items() if weight))
        options = [getattr(settings.rules, name) for name in (
            "instance_stage", "instance_class_pairs", "instance_box_pairs", "assignment", "pairs",
        )]  # fmt: skip
        seen.add((on, *options, settings.region, config.width, row == SELF))
        assert ("relation" in on) == ("relation" in row.name or "as released" in row.name)
        assert ("instance_class" in on) or "classes" not in row.name
        assert baseline(row) in {other.name for other in ROWS}
    assert len(seen) == len(ROWS) == 22
    assert {baseline(row) for row in OTHERS} == {row.name for row in OTHERS if not row.changes.get("detrdistill")}
    assert baseline(ROWS[1]) == ALONE.name and baseline(ROWS[-2]) == "lighter backbone: alone"


def test_committed_teacher():
    _, config = load_teacher()
    check_pair(Plan().config, config)
    assert COMMITTED.stat().st_size <= 2 * 10**6


def test_committed_results_reach_the_floor():
    """The student alone has AP50 0.20 with each seed, the teacher 5 points more AP50 than it."""
    runs = json.loads(RESULTS.read_text())["runs"]
    alone = [run for run in runs if run["row"] == ALONE.name]
    assert len(alone) == 3 and all(run["ap50"] >= 0.20 for run in alone)
    assert all(run["teacher_ap50"] >= run["ap50"] + 0.05 for run in alone)


def test_committed_table_is_that_of_the_results():
    found = json.loads(RESULTS.read_text())
    results = {(run["row"], run["seed"]): run for run in found["runs"]}
    assert set(results) == {(r.name, s) for r in ROWS for s in Plan().seeds} | {(r.name, 0) for r in OTHERS}
    assert RESULTS.with_suffix(".md").read_text() == render([*ROWS, *OTHERS], results, Plan())
    assert found["plan"] == Table(Path(), None, Plan())._stamp()
