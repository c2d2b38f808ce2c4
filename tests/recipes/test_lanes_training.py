"""Training, checkpoints and what stops them."""

import csv
import math
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from pydistill.recipes.files import write_whole
from pydistill.recipes.lanes.config import DEMO, PAPER, LaneConfig
from pydistill.recipes.lanes.evaluation import evaluate
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import Training, build_model, load_student
from pydistill.recipes.progress import rehearse
from tests.conformance import relative_error
from tests.recipes.lanes import TINY, same, weights
from tools.compare_lanes import compare

pytestmark = pytest.mark.xdist_group("lanes_training")  # one worker makes the files that they share

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tusimple(tmp_path_factory.mktemp("lanes"), seed=0, train=6, test=3)


@pytest.fixture(scope="module")
def data(root):
    return open_data(TINY, root, "train", training=True), open_data(TINY, root, "test")


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


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
    assert same(weights(whole), weights(second))
    assert whole.history == second.history


KILLED = """
import os, signal, sys
from pathlib import Path
from lightning.fabric import Fabric
from tests.recipes.test_lanes_training import TINY, Training, open_data, replace
root, folder = map(Path, sys.argv[1:])
config = replace(TINY, sad=True)
training = Training(config, open_data(TINY, root, "train", training=True), None, Fabric(accelerator="cpu"), folder)
training.run(None, lambda step, row: os.kill(os.getpid(), signal.SIGKILL) if step == 5 else None)
"""


def test_resume_after_a_kill_to_the_same_bits(root, data, fabric, tmp_path):
    command = [sys.executable, "-c", KILLED, root, tmp_path]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # their number is part of what the bits depend on
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    config = replace(TINY, sad=True)
    whole, resumed = (Training(config, data[0], None, fabric, folder) for folder in (None, tmp_path))
    whole.run()
    resumed.load(tmp_path / "last.pt")
    assert resumed.step == 4
    resumed.run()
    assert same(weights(whole), weights(resumed)) and whole.history == resumed.history
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [float(row["segmentation"]) for row in rows] == [row["segmentation"] for row in whole.history]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_full_disk_keeps_the_last_checkpoint(data, fabric, tmp_path):
    training = Training(TINY, data[0], None, fabric)
    training.run(2)
    training.save(tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    training.run(4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"what was there before stays: .*last\.pt"):
            training.save(tmp_path / "last.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"] and (tmp_path / "last.pt").read_bytes() == before
    training.save(tmp_path / "last.pt")
    again = Training(TINY, data[0], None, fabric)
    again.load(tmp_path / "last.pt")
    assert again.step == 4


def test_sad_changes_nothing_before_it_starts(data, fabric):
    plain, sad = (Training(replace(TINY, sad=on), data[0], fabric=fabric) for on in (False, True))
    for training in (plain, sad):
        training.run(TINY.start + 1)  # the ramp's first weight is 0
    assert same(weights(plain), weights(sad))
    for training in (plain, sad):
        training.run(TINY.start + 2)
    assert not same(weights(plain), weights(sad))
    assert {"sad.sad_0_1", "sad.sad_1_2"} <= set(sad.history[-1]) and not any("sad" in n for n in plain.history[-1])


def test_checkpoint_holds_the_student_alone(data, fabric, tmp_path):
    training = Training(replace(TINY, sad=True), data[0], fabric=fabric)
    training.save(tmp_path / "deep" / "a.pt")
    state = torch.load(tmp_path / "deep" / "a.pt", weights_only=True)
    assert set(state["student"]) == set(training.student.state_dict())
    student, config = load_student(tmp_path / "deep" / "a.pt")
    assert config == training.config and same(student.state_dict(), weights(training)) and not student.training


def test_checkpoint_of_another_configuration(data, fabric, tmp_path):
    Training(TINY, data[0], fabric=fabric).save(tmp_path / "a.pt")
    other = Training(replace(TINY, lr=1e-4, batch=3), data[0], fabric=fabric)
    with pytest.raises(ValueError, match=r"got other values of \['batch', 'lr'\]"):
        other.load(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"")
    torch.save({"a": 1}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="expected a checkpoint of a lane training, got"):
        load_student(tmp_path / "b.pt")


def test_checkpoint_after_sad_is_no_plain_one(data, fabric, tmp_path):
    training = Training(replace(TINY, sad=True), data[0], fabric=fabric)
    training.run(TINY.start + 1)
    training.save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"got other values of \['sad'\]"):
        Training(TINY, data[0], fabric=fabric).load(tmp_path / "a.pt")


def test_configuration():
    config = LaneConfig(steps=100, lr=0.1, warmup=10)
    assert config.learning_rate(0) == pytest.approx(0.01, rel=1e-12)
    assert config.learning_rate(50) == pytest.approx(0.1 * 0.5**0.9, rel=1e-12)
    assert LaneConfig(steps=1800).start == 1200 and PAPER["culane"].start == 40_000
    for config in (DEMO, *PAPER.values(), replace(TINY, pairs=((0, 1),), augment="port")):
        assert LaneConfig.from_dict(config.to_dict()) == config
    for wrong, message in (
        ({"optimizer": "lion"}, "expected optimizer in .*, got 'lion'"),
        ({"augment": "none"}, "expected augment in .*, got 'none'"),
        ({"seed": -1}, "expected seed >= 0, got -1"),
        ({"steps": 0}, "expected steps >= 1, got 0"),
        ({"sad_start": 1.5}, r"expected sad_start in \[0, 1\], got 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TINY, **wrong)
    with pytest.raises(ValueError, match=r"got \['depth'\]"):
        LaneConfig.from_dict({"depth": 3})


@pytest.mark.parametrize("reference, stages, weight", [
    ("paper", ("e2", "e3", "e4"), 0.1),
    ("port", ("e1", "e2", "e3", "e4"), 0.1),
    ("tensorflow", ("initial", "e1", "e2", "e3"), 1.0),
])  # fmt: skip
def test_references_choose_their_stages(data, fabric, reference, stages, weight):
    training = Training(replace(TINY, sad=True, reference=reference), data[0], fabric=fabric)
    assert training.term.student_paths == stages and training.term.weight == weight
    training.run(TINY.start + 2)
    pairs = [name for name in training.history[-1] if name.startswith("sad.sad_")]
    assert pairs == [f"sad.sad_{i}_{i + 1}" for i in range(len(stages) - 1)]
    assert ("iou" in training.history[-1]) == (reference != "tensorflow")


@pytest.mark.parametrize("model", ["enet", "resnet18", "resnet34"])
def test_training_learns(root, fabric, model):
    """A few pictures, seen often, are learnt."""
    config = replace(TINY, model=model, width=0.125, steps=40, batch=6, lr=3e-3, sad=True, line_width=32)
    training = Training(config, open_data(config, root, "train", training=True), fabric=fabric)
    training.run()
    losses = [row["segmentation"] for row in training.history]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_worker_processes_change_nothing(data, fabric):
    alone, helped = (Training(TINY, data[0], fabric=fabric, workers=n) for n in (0, 2))
    for training in (alone, helped):
        training.run(4)
    assert same(weights(alone), weights(helped))


def test_dry_run(data, fabric, tmp_path):
    found = rehearse(Training(TINY, data[0], None, fabric), 2)
    assert found.startswith("enet, 2 pictures of 48 x 80 a step, cpu: ") and "hours for 6 steps" in found


def test_empty_prediction(data):
    found = evaluate(None, data[1], TINY)
    assert found.numbers == {"accuracy": 0, "fp": 0, "fn": 1, "f1": 0}
    with pytest.raises(ValueError, match="expected at least one picture, got none"):
        evaluate(None, data[1], TINY, 0)


def test_fused_training_is_the_plain_one(fabric, tmp_path):
    found = compare(tmp_path, fabric, steps=40, size=(48, 80), batch=4)
    assert found.losses < 1e-4 and found.updates < 1e-4


def test_write_whole(tmp_path):
    write_whole(tmp_path / "deep" / "a", b"1")
    write_whole(tmp_path / "deep" / "a", b"22")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "deep").iterdir()] == [("a", b"22")]


def test_half_precision_trains(data):
    training = Training(
        replace(TINY, sad=True), data[0], fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    )
    single = Training(replace(TINY, sad=True), data[0], fabric=Fabric(accelerator="cpu", devices=1))
    for each in (training, single):
        each.run(TINY.start + 2)
    rows = [[row["segmentation"] for row in each.history] for each in (training, single)]
    assert relative_error(torch.tensor(rows[0]), torch.tensor(rows[1])) < 0.05
    assert all(math.isfinite(value) for row in training.history for value in row.values())


def test_networks_have_the_classes_of_the_data():
    for model in ("enet", "resnet18"):
        network = build_model(replace(TINY, width=0.25, model=model), 2).eval()
        assert network(torch.zeros(1, 3, *TINY.size)).segmentation.shape == (1, 2, *TINY.size)
