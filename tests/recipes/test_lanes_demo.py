"""The demo and its report."""

import csv
import json
import re
from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from typer.testing import CliRunner

from pydistill import commands
from pydistill.recipes.lanes.demo import Demo, Plan
from pydistill.recipes.lanes.metric import Score, mean_score, score_frame
from pydistill.recipes.lanes.report import verdict, write_picture, write_report
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import Training
from tests.recipes.lanes import TINY, same

pytestmark = pytest.mark.xdist_group("lanes_demo")  # one worker makes the files that they share


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    plan = Plan(6, 3, TINY, seeds=(0, 1))
    return folder, Demo(plan, folder, Fabric(accelerator="cpu", devices=1)).run()


def test_demo_shares_the_steps_before_sad(demo):
    _, result = demo
    for plain, sad in result.pairs:
        early = [[r["segmentation"] for r in net.history if "segmentation" in r][: TINY.start] for net in (plain, sad)]
        assert early[0] == early[1]
        assert not same(plain.student.state_dict(), sad.student.state_dict())


def test_demo_equals_two_separate_trainings(demo):
    """Sharing the first steps is a saving, not a change: SAD from scratch ends in the same weights."""
    folder, result = demo
    data = open_data(TINY, folder / "data", "train", training=True)
    alone = Training(replace(TINY, seed=1, sad=True), data, fabric=Fabric(accelerator="cpu", devices=1))
    alone.run()
    assert same(alone.student.state_dict(), result.pairs[1][1].student.state_dict())


def test_demo_resumes(demo):
    folder, result = demo
    again = Demo(result.plan, folder, Fabric(accelerator="cpu", devices=1), resume=True).run()
    for before, after in zip(result.pairs, again.pairs):
        for a, b in zip(before, after):
            assert same(a.student.state_dict(), b.student.state_dict()) and a.score == b.score


def test_prediction_file_scores_the_same(demo):
    folder, result = demo
    lines = (folder / "seed0-plain" / "predictions.json").read_text().splitlines()
    scores = [
        score_frame(json.loads(p)["lanes"], t.lanes, t.h_samples) for p, t in zip(lines, result.test.dataset.records)
    ]
    assert mean_score(scores) == result.pairs[0][0].score


def test_logs(demo):
    folder, result = demo
    rows = list(csv.DictReader((folder / "seed0-sad" / "metrics.csv").open()))
    logged = [float(row["segmentation"]) for row in rows if row["segmentation"]]
    assert logged == [row["segmentation"] for row in result.pairs[0][1].history if "segmentation" in row]
    assert list((folder / "seed0-sad").glob("events.out.tfevents.*"))


def test_report(demo, tmp_path):
    _, result = demo
    page = write_report(result, tmp_path / "report.html", torch.device("cpu")).read_text()
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv)', page)  # nothing is loaded from elsewhere
    assert page.count("data:image/jpeg") >= 5 * 2 + 3 * 2 * 5 and page.count("<svg") == 3
    for word in ("Empty prediction", "Untrained ENet", "ENet + SAD", "E2 imitates E3", "torch", "processor", "command"):
        assert word in page
    for net in result.pairs[0]:
        assert net.name in page
    mean = sum(100 * pair[1].score.accuracy for pair in result.pairs) / 2
    assert f"{mean:.2f} %" in page and "95% interval" in page


def test_picture(demo, tmp_path):
    write_picture(demo[1], tmp_path / "deep" / "demo.png")
    assert 10_000 < (tmp_path / "deep" / "demo.png").stat().st_size < 300_000


def _with_gains(result, gains):
    pairs = []
    for gain, (plain, sad) in zip(gains, result.pairs * 3):
        scored = [
            replace(net, evaluation=replace(net.evaluation, scores=[Score(0.5 + g, 0, 0)]))
            for net, g in ((plain, 0.0), (sad, gain))
        ]
        pairs.append((scored[0], scored[1]))
    return replace(result, pairs=pairs)


def test_verdict_says_which_way_it_fell(demo):
    result = demo[1]
    assert "raised the accuracy by 2.00 points" in verdict(_with_gains(result, [0.02]))
    assert "lowered the accuracy by 2.00 points" in verdict(_with_gains(result, [-0.02]))
    assert "no evidence" in verdict(_with_gains(result, [0.02]))
    # t(0.975, 2) = 4.302653; gains 1, 2, 3 points: 2 +- 4.302653 / sqrt(3)
    assert "No effect shown at this scale" in verdict(_with_gains(result, [0.01, 0.02, 0.03]))
    assert "[-0.48, +4.48]" in verdict(_with_gains(result, [0.01, 0.02, 0.03]))
    assert "raised the accuracy: +2.00 points" in verdict(_with_gains(result, [0.019, 0.02, 0.021]))


def test_failures(demo):
    result = replace(demo[1], empty=Score(0.4, 0, 0.5), untrained=Score(0, 0, 1))
    assert _with_gains(result, [0.1]).failures() == []
    found = _with_gains(result, [-0.2]).failures()
    assert len(found) == 1 and "ENet + SAD (seed 0) does not beat the empty prediction" in found[0]


def test_plan():
    assert Plan.make(5, seed=4).seeds == (4,) and Plan.make(5, seed=4).config.seed == 4
    assert Plan.make(5).config.steps == 600 and Plan.make(9).config.steps == 1200
    assert Plan.make(9, repeats=4).seeds == (0, 1, 2, 3) and Plan.make(9, repeats=4).config.steps == 300
    assert Plan.make(quick=True).config.steps < Plan.make(5).config.steps
    with pytest.raises(ValueError, match="expected minutes >= 1"):
        Plan.make(0.5)


@pytest.mark.parametrize("floor, code", [(Score(0, 0, 1), 0), (Score(1.1, 0, 0), 1)])
def test_command(monkeypatch, tmp_path, floor, code):
    monkeypatch.setattr(Plan, "make", staticmethod(lambda *_: Plan(6, 3, TINY)))
    real = Demo.run

    def run(self):
        result = real(self)
        good = _with_gains(replace(result, empty=floor, untrained=floor), [0.0])
        return good

    monkeypatch.setattr(Demo, "run", run)
    outcome = CliRunner().invoke(commands.app, ["demo", "--output", str(tmp_path), "--accelerator", "cpu"])
    assert outcome.exit_code == code, outcome.output
    assert "report.html" in outcome.output and (tmp_path / "report.html").exists()
