"""The table of comparisons of detectors: resumable rows, paired gains; and what is committed of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.dense.reproduce import ALONE, ROWS, Plan, Table, render
from pydistill.recipes.dense.run import COMMITTED, load_teacher
from pydistill.recipes.dense.training import build_model
from tests.recipes.dense import TINY, make_teacher

pytestmark = pytest.mark.xdist_group("dense_reproduce")  # one worker makes the files that they share

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "dense.json"
SOME = [
    ALONE,
    next(row for row in ROWS if row.changes.get("main_ld")),
    next(row for row in ROWS if "dfl" in row.changes),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    plan = Plan(replace(TINY, steps=1, evaluate_every=9), 4, 2, seeds=(0, 1))
    folder, fabric = tmp_path_factory.mktemp("table"), Fabric(accelerator="cpu", devices=1)
    made = Table(folder, fabric, plan, SOME, make_teacher(classes=3), Console(quiet=True))
    return made, made.run()


def test_each_row_and_seed_is_there(table):
    made, text = table
    runs = json.loads(made.path.read_text())["runs"]
    assert [(run["row"], run["seed"]) for run in runs] == [(row.name, s) for s in (0, 1) for row in SOME]
    assert made.path.with_suffix(".md").read_text() == text and "not run" not in text
    assert text.splitlines()[2].startswith("| teacher | ")


def test_a_stopped_table_goes_on(table, monkeypatch):
    made, text = table
    found = json.loads(made.path.read_text())
    made.path.write_text(json.dumps({**found, "runs": found["runs"][:-1]}))
    trained = []
    real = Table.score
    monkeypatch.setattr(
        Table, "score", lambda self, row, seed: trained.append((row.name, seed)) or real(self, row, seed)
    )
    again = Table(made.folder, made.fabric, made.plan, SOME, make_teacher(classes=3), Console(quiet=True))
    assert again.run() == text and trained == [(SOME[-1].name, 1)]


def test_rows_are_what_their_names_say():
    """Each differs from the others in the terms that are on, in gamma, or in DFL."""
    seen = set()
    for row in ROWS:
        settings = replace(Plan().config, **row.changes).loss().settings
        on = tuple(sorted(name for name, weight in settings.weights.items() if weight))
        seen.add((on, settings.gamma, settings.imitation_region))
        assert {"main_ld"} <= set(on) or "Main LD" not in row.name
        assert ("dfl" in on) == ("without DFL" not in row.name)
    assert len(seen) == len(ROWS) == 13


def test_committed_teacher():
    teacher = load_teacher()
    student = build_model(Plan().config, teacher.classes)
    assert COMMITTED.stat().st_size <= 2 * 10**6
    assert (teacher.strides, teacher.reg_max) == (student.strides, student.reg_max)


def committed():
    found = json.loads(RESULTS.read_text())
    return found, {(run["row"], run["seed"]): run for run in found["runs"]}


def test_committed_results_reach_the_floor():
    """The student alone has AP50 0.30 with each seed, the teacher 5 points more AP50 than it."""
    _, results = committed()
    alone = [run for (name, _), run in results.items() if name == ALONE.name]
    assert len(alone) == 3 and all(run["ap50"] >= 0.30 for run in alone)
    assert all(run["teacher_ap50"] >= run["ap50"] + 0.05 for run in alone)


def test_committed_table_is_complete():
    _, results = committed()
    assert set(results) == {(row.name, seed) for row in ROWS for seed in Plan().seeds}


def test_committed_table_is_that_of_the_results():
    found, results = committed()
    assert RESULTS.with_suffix(".md").read_text() == render(ROWS, results, Plan())
    assert found["plan"] == Table(Path(), None, Plan())._stamp()
