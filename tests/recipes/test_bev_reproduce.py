"""The table of comparisons in bird's-eye view: resumable rows, paired gains; and what is committed of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.bev import reproduce
from pydistill.recipes.bev.config import TERMS
from pydistill.recipes.bev.network import MODALITIES
from pydistill.recipes.bev.reproduce import ALONE, OTHERS, ROWS, TEACHER, Plan, Table, baseline, render
from pydistill.recipes.bev.run import committed, load_teacher
from pydistill.recipes.bev.training import build_model, check_pair
from tests.recipes.bev import TINY

pytestmark = pytest.mark.xdist_group("bev_reproduce")  # one worker makes the files that they share

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "bev.json"
SOME = [ALONE, ROWS[1], next(row for row in OTHERS if row.name == "lidar alone"), OTHERS[2]]


def teach(patch):
    def load(modality, path=None):
        torch.manual_seed(7)
        config = replace(TINY, modality=modality)
        return build_model(config).eval(), config

    patch.setattr(reproduce, "load_teacher", load)


def make(folder, plan, rows=SOME, seeds=None):
    fabric = Fabric(accelerator="cpu", devices=1)
    return Table(folder, fabric, plan, rows, seeds, Console(quiet=True))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    plan = Plan(replace(TINY, steps=1, evaluate_every=9), 1, 1, seeds=(0, 1))
    with pytest.MonkeyPatch.context() as patch:
        teach(patch)
        made = make(tmp_path_factory.mktemp("table"), plan)
        return made, made.run()


def test_each_row_and_seed_is_there(table):
    made, text = table
    runs = json.loads(made.path.read_text())["runs"]
    assert [(run["row"], run["seed"]) for run in runs] == [(row.name, s) for s in (0, 1) for row in SOME]
    assert made.path.with_suffix(".md").read_text() == text
    names = [line.split(" | ")[0].strip("| ") for line in text.splitlines()]
    assert names[2:6] == [*(f"{m} teacher" for m in ("lidar", "fusion", "camera")), ALONE.name]
    assert text.count("not run") == len(ROWS) + len(OTHERS) - len(SOME)


def test_a_stopped_table_goes_on(table, monkeypatch):
    made, text = table
    teach(monkeypatch)
    found = json.loads(made.path.read_text())
    made.path.write_text(json.dumps({**found, "runs": found["runs"][:-1]}))
    trained = []
    real = Table.score
    monkeypatch.setattr(
        Table, "score", lambda self, row, seed: trained.append((row.name, seed)) or real(self, row, seed)
    )
    assert make(made.folder, made.plan).run() == text and trained == [(SOME[-1].name, 1)]


def test_rows_are_what_their_names_say():
    """Each differs from the others in its modalities, in the terms that are on, or in what they compare."""
    words = {"feature": "features", "relation": "relations", "response": "responses"}
    seen = set()
    for row in [*ROWS, *OTHERS]:
        changes = {name: value for name, value in row.changes.items() if name != TEACHER}
        config, teacher = replace(Plan().config, **changes), row.changes.get(TEACHER)
        on = tuple(name for name in TERMS if teacher and getattr(config, name) != 0)
        assert config.unidistill == bool(teacher) == bool(on)
        assert all(("all terms" in row.name) or ((name in on) == (words[name] in row.name)) for name in TERMS)
        assert config.adapter == row.name.rpartition("adapter ")[2] or "adapter" not in row.name
        assert ("released" in row.name) == (config.reference == "released")
        if teacher:
            check_pair(config, replace(Plan().config, modality=teacher))
        weights = tuple(getattr(config, name) for name in TERMS)
        seen.add((config.modality, teacher, weights, config.adapter, config.reference))
    assert len(seen) == len(ROWS) + len(OTHERS) == 14
    assert {baseline(row) for row in [*ROWS, *OTHERS]} == {ALONE.name, "lidar alone"}
    assert [row.name for row in OTHERS if baseline(row) != ALONE.name] == [
        row.name for row in OTHERS if row.name.startswith("lidar")
    ]


@pytest.mark.parametrize("modality", MODALITIES)
def test_committed_teachers(modality):
    _, config = load_teacher(modality)
    check_pair(Plan().config, config)
    assert config.modality == modality and committed(modality).stat().st_size <= 2 * 10**6


def test_committed_results_reach_the_floor():
    """The camera alone has mAP 0.10 with each seed, the LiDAR teacher 5 points more than it."""
    runs = json.loads(RESULTS.read_text())["runs"]
    alone = [run for run in runs if run["row"] == ALONE.name]
    assert len(alone) == 3 and all(run["map"] >= 0.10 for run in alone)
    assert all(run["lidar_teacher_map"] >= run["map"] + 0.05 for run in alone)


def test_committed_table_is_that_of_the_results():
    found = json.loads(RESULTS.read_text())
    results = {(run["row"], run["seed"]): run for run in found["runs"]}
    assert set(results) == {(r.name, s) for r in ROWS for s in Plan().seeds} | {(r.name, 0) for r in OTHERS}
    assert RESULTS.with_suffix(".md").read_text() == render([*ROWS, *OTHERS], results, Plan())
    assert found["plan"] == Table(Path(), None, Plan())._stamp()
