"""The table of comparisons: resumable rows, paired gains; and what is committed of it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.lanes.evaluation import evaluate
from pydistill.recipes.lanes.reproduce import ROWS, Plan, Table, render
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import Training
from pydistill.recipes.table import Row, describe_gain
from tests.recipes.lanes import TINY

pytestmark = pytest.mark.xdist_group("lanes_reproduce")  # one worker makes the files that they share

COMMITTED = Path(__file__).parents[2] / "docs" / "results" / "lanes.json"
SOME = [
    row for row in ROWS if row.name in ("ENet", "ENet + SAD: E2 from E3, E3 from E4", "ENet + SAD from the first step")
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    plan = Plan(replace(TINY, save_every=100), 6, 3, seeds=(0, 1))
    console = Console(record=True, width=200)
    made = Table(folder, Fabric(accelerator="cpu", devices=1), plan, SOME, console)
    return made, made.run(), console.export_text()


def test_each_row_and_seed_is_there(table):
    made, text, shown = table
    runs = json.loads(made.path.read_text())["runs"]
    assert [(run["row"], run["seed"]) for run in runs] == [(row.name, s) for s in (0, 1) for row in SOME]
    assert made.path.with_suffix(".md").read_text() == text and "not run" not in text
    assert re.search(r"enet: [\d.]+ minutes a run, 6 to go", shown) and "all: " in shown


def test_rows_equal_separate_trainings(table):
    """Sharing the plain steps between rows is a saving, not a change."""
    made, _, _ = table
    runs = json.loads(made.path.read_text())["runs"]
    for row, run in zip(SOME, runs):
        config = replace(made.plan.config, seed=0, **row.changes)
        train, test = (open_data(config, made.folder / "data", s, training=s == "train") for s in ("train", "test"))
        training = Training(config, train, fabric=made.fabric)
        training.run()
        assert evaluate(training.student, test, config).numbers["f1"] == run["f1"]


def test_a_stopped_table_goes_on(table, monkeypatch):
    made, text, _ = table
    runs = json.loads(made.path.read_text())
    made.path.write_text(json.dumps({**runs, "runs": runs["runs"][:-1]}))
    trained = []
    real = Table._run
    monkeypatch.setattr(
        Table, "_run", lambda self, row, seed, *data: (trained.append((row.name, seed)), real(self, row, seed, *data))
    )
    assert Table(made.folder, made.fabric, made.plan, SOME, Console(quiet=True)).run() == text
    assert trained == [(SOME[-1].name, 1)]


def test_results_of_another_plan_are_refused(table):
    made, _, _ = table
    other = replace(made.plan, config=replace(made.plan.config, lr=0.5))
    with pytest.raises(ValueError, match="expected results of the same plan in .*lanes.json, got another one's"):
        Table(made.folder, made.fabric, other, SOME, Console(quiet=True)).run()


def test_gains():
    # t(0.975, 2) = 4.302653; gains 1, 2, 3 points: 2 +- 4.302653 / sqrt(3)
    assert describe_gain([1, 2, 3]) == "+2.00 [-0.48, +4.48]; no effect shown at this scale"
    assert describe_gain([1.9, 2, 2.1]) == "+2.00 [+1.75, +2.25]"
    assert describe_gain([-1]) == "-1.00, one run" and describe_gain([]) == ""


def test_render_pairs_by_seed():
    rows = [
        Row("a", {"model": "enet"}, "1"),
        Row("b", {"model": "enet", "sad": True}, "2"),
        Row("c", {"model": "resnet18"}),
    ]
    runs = {("a", 0): 0.5, ("a", 1): 0.6, ("b", 1): 0.63}
    results = {key: {"seed": key[1], "accuracy": value, "f1": value} for key, value in runs.items()}
    lines = render(rows, results, Plan(TINY, 1, 1, (0, 1))).splitlines()
    assert lines[2:] == [
        "| a | 55.00 | 0.550 | 2 |  | 1 |",
        "| b | 63.00 | 0.630 | 1 | +3.00, one run | 2 |",
        "| c | not run | | 0 | | not in the sources at hand |",
    ]


def test_committed_results_reach_the_floor():
    """Every network with the plain loss finds lanes: TuSimple accuracy 0.80, F1 0.5, for each seed."""
    runs = json.loads(COMMITTED.read_text())["runs"]
    for model in ("ENet", "ResNet-18", "ResNet-34"):
        mine = [run for run in runs if run["row"] == model]
        assert mine and all(run["accuracy"] >= 0.80 and run["f1"] >= 0.5 for run in mine), model


def test_committed_table_is_that_of_the_results():
    found = json.loads(COMMITTED.read_text())
    results = {(run["row"], run["seed"]): run for run in found["runs"]}
    assert COMMITTED.with_suffix(".md").read_text() == render(ROWS, results, Plan())
    assert found["plan"] == Table(Path(), None, Plan())._stamp()
