"""Training, checkpoints, the demo and its report."""

import csv
import re
from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from typer.testing import CliRunner

from pydistill import commands
from pydistill.recipes.lanes.augment import PRESETS
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.datasets import TuSimple
from pydistill.recipes.lanes.demo import Demo, Plan
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.metric import Score, mean_score, score_frame
from pydistill.recipes.lanes.recipe import LaneConfig, Training, evaluate
from pydistill.recipes.lanes.report import verdict, write_picture, write_report
from pydistill.recipes.lanes.tusimple import read_labels

TINY = LaneConfig(
    size=(48, 80), steps=6, batch=2, warmup=2, sad_start=0.5, sad_ramp=0.3, log_every=1, evaluate_every=3, probe=2,
    optimizer="adamw", lr=1e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_tusimple(tmp_path_factory.mktemp("lanes"), seed=0, train=6, test=3)
    train, test = (TuSimple(root, [file]) for file in ("label_data_0313.json", "test_label.json"))
    return LaneData(train, TINY.size, augment=PRESETS["flip"]), LaneData(test, TINY.size)


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def _weights(training):
    return {name: value.clone() for name, value in training.student.state_dict().items()}


def _same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop", [2, 5])
def test_resume_to_the_same_bits(data, fabric, tmp_path, optimizer, stop):
    config = replace(TINY, sad=True, optimizer=optimizer)
    whole = Training(config, data[0], data[1], fabric)
    whole.run()
    first = Training(config, data[0], data[1], fabric)
    first.run(stop)
    first.save(tmp_path / "half.pt")
    torch.manual_seed(99)
    second = Training(config, data[0], data[1], fabric)
    second.load(tmp_path / "half.pt")
    second.run()
    assert _same(_weights(whole), _weights(second))
    assert [row["step"] for row in whole.history] == [row["step"] for row in second.history]
    assert [row.get("segmentation") for row in whole.history] == [row.get("segmentation") for row in second.history]


def test_sad_changes_nothing_before_it_starts(data, fabric):
    plain, sad = (Training(replace(TINY, sad=on), data[0], fabric=fabric) for on in (False, True))
    for training in (plain, sad):
        torch.manual_seed(1)
        training.run(TINY.start + 1)  # the ramp's first weight is 0
    assert _same(_weights(plain), _weights(sad))
    for training in (plain, sad):
        torch.manual_seed(1)
        training.run(TINY.start + 2)
    assert not _same(_weights(plain), _weights(sad))
    assert {"sad.sad_0_1", "sad.sad_1_2"} <= set(sad.history[-1]) and not any("sad" in n for n in plain.history[-1])


def test_checkpoint_holds_the_student_alone(data, fabric, tmp_path):
    training = Training(replace(TINY, sad=True), data[0], fabric=fabric)
    training.save(tmp_path / "deep" / "a.pt")
    state = torch.load(tmp_path / "deep" / "a.pt", weights_only=True)
    assert set(state["student"]) == set(training.student.state_dict())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.pt"]  # no partial file is left


def test_checkpoint_of_another_configuration(data, fabric, tmp_path):
    Training(TINY, data[0], fabric=fabric).save(tmp_path / "a.pt")
    other = Training(replace(TINY, lr=1e-4, batch=3), data[0], fabric=fabric)
    with pytest.raises(ValueError, match=r"got other values of \['batch', 'lr'\]"):
        other.load(tmp_path / "a.pt")


def test_learning_rate():
    config = LaneConfig(steps=100, lr=0.1, warmup=10)
    assert config.learning_rate(0) == pytest.approx(0.01, rel=1e-12)
    assert config.learning_rate(50) == pytest.approx(0.1 * 0.5**0.9, rel=1e-12)
    assert LaneConfig(steps=1800).start == 1200
    with pytest.raises(ValueError, match="expected 'sgd' or 'adamw', got 'lion'"):
        Training(replace(TINY, optimizer="lion"), None)


def test_training_learns(data, fabric):
    """A few pictures, seen often, are learnt."""
    config = replace(TINY, steps=40, batch=6, lr=3e-3, sad=True, line_width=32)
    training = Training(config, data[0], fabric=fabric)
    training.run()
    losses = [row["segmentation"] for row in training.history]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_empty_prediction(data):
    found = evaluate(None, data[1], TINY)
    assert (found.score.accuracy, found.score.false_positive, found.score.false_negative) == (0, 0, 1)


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
        assert not _same(plain.student.state_dict(), sad.student.state_dict())


def test_demo_equals_two_separate_trainings(demo, data, fabric):
    """Sharing the first steps is a saving, not a change: SAD from scratch ends in the same weights."""
    _, result = demo
    alone = Training(replace(TINY, seed=1, sad=True), data[0], data[1], fabric)
    alone.run()
    assert _same(alone.student.state_dict(), result.pairs[1][1].student.state_dict())


def test_demo_resumes(demo):
    folder, result = demo
    again = Demo(result.plan, folder, Fabric(accelerator="cpu", devices=1), resume=True).run()
    for before, after in zip(result.pairs, again.pairs):
        for a, b in zip(before, after):
            assert _same(a.student.state_dict(), b.student.state_dict()) and a.evaluation.score == b.evaluation.score


def test_prediction_file_scores_the_same(demo):
    folder, result = demo
    guesses = read_labels_like(folder / "seed0-plain-predictions.json")
    truth = read_labels([folder / "data" / "test_label.json"])
    scores = [score_frame(g, t.lanes, t.h_samples) for g, t in zip(guesses, truth)]
    assert mean_score(scores) == result.pairs[0][0].evaluation.score


def read_labels_like(path):
    import json

    return [json.loads(line)["lanes"] for line in path.read_text().splitlines()]


def test_logs(demo):
    folder, result = demo
    rows = list(csv.DictReader((folder / "logs" / "seed0-sad" / "metrics.csv").open()))
    logged = [float(row["segmentation"]) for row in rows if row["segmentation"]]
    assert logged == [row["segmentation"] for row in result.pairs[0][1].history if "segmentation" in row]
    assert list((folder / "logs" / "seed0-sad").glob("events.out.tfevents.*"))


def test_report(demo, tmp_path):
    _, result = demo
    page = write_report(result, tmp_path / "report.html", torch.device("cpu")).read_text()
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv)', page)  # nothing is loaded from elsewhere
    assert page.count("data:image/jpeg") >= 5 * 2 + 3 * 2 * 4 and page.count("<svg") == 3
    for word in ("Empty prediction", "Untrained ENet", "ENet + SAD", "E1 imitates E2", "torch", "processor", "command"):
        assert word in page
    for net in result.pairs[0]:
        assert net.name in page
    mean = sum(100 * pair[1].evaluation.score.accuracy for pair in result.pairs) / 2
    assert f"{mean:.2f} %" in page and "95% interval" in page


def test_picture(demo, tmp_path):
    write_picture(demo[1], tmp_path / "deep" / "demo.png")
    assert 10_000 < (tmp_path / "deep" / "demo.png").stat().st_size < 300_000


def _with_gains(result, gains):
    pairs = []
    for gain, (plain, sad) in zip(gains, result.pairs * 3):
        scored = [
            replace(net, evaluation=replace(net.evaluation, score=Score(0.5 + g, 0, 0)))
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
    assert Plan.make(quick=True).config.steps < 200
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
