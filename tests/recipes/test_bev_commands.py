"""``pydistill generate|train|evaluate|predict bev``."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from typer.testing import CliRunner

from pydistill import bev_commands
from pydistill.commands import app
from pydistill.recipes.bev import config, evaluation, run
from pydistill.recipes.bev.decode import decode
from pydistill.recipes.bev.run import SCENES
from pydistill.recipes.bev.training import load_student
from tests.recipes.bev import write
from tests.recipes.test_dense_commands import invoke, succeed

pytestmark = pytest.mark.xdist_group("bev_commands")  # one worker makes the files that they share

CPU = ["--accelerator", "cpu"]
SMALL = ["--size", 16, 32, "--cells", 16, "--steps", 2, "--batch", 2, *CPU]
TINY = ["--preset", "student", *SMALL]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated data, a LiDAR teacher, a camera student that it has taught."""
    folder = tmp_path_factory.mktemp("commands")
    succeed("generate", "bev", folder / "data", "--train", 2, "--test", 1, "--size", 16, 32)
    data = ["--data", folder / "data", *TINY]
    succeed("train", "bev", "--output", folder / "teacher", "--student", "lidar", *data)
    succeed(
        "train", "bev", "--output", folder / "run", "--teacher-checkpoint", folder / "teacher" / "half.pt",
        "--relation", 0.5, "--reference", "released", "--adapter", "1x1", *data,
    )  # fmt: skip
    return folder


def test_train_leaves_checkpoint_and_log(folder):
    _, found = load_student(folder / "run" / "last.pt")
    assert (found.modality, found.unidistill, found.size, found.cells) == ("camera", True, (16, 32), 16)
    assert (found.relation, found.feature, found.reference, found.adapter) == (0.5, None, "released", "1x1")
    assert load_student(folder / "teacher" / "half.pt")[1].modality == "lidar"
    head = (folder / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"heatmap", "box", "feature", "relation", "classes", "numbers"} < set(head)
    assert list((folder / "run").glob("events.out.tfevents.*"))


def test_evaluate(folder):
    out = folder / "found.json"
    output = succeed("evaluate", "bev", folder / "run" / "last.pt", "--data", folder / "data", "--output", out, *CPU)
    assert "traffic_cone" in output and "NDS" in output
    assert len(json.loads(out.read_text())["results"]) == 2


def test_evaluate_has_the_precision_that_is_asked_for(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluation, "decode", lambda said, *others: seen.append(said) or decode(said, *others))
    command = ["evaluate", "bev", folder / "teacher" / "last.pt", "--data", folder / "data", *CPU]
    succeed(*command, "--precision", "bf16-mixed")
    assert seen[0].heatmaps[0].dtype == torch.bfloat16


def test_predict(folder):
    command = ["predict", "bev", folder / "run" / "last.pt", folder / "data", folder / "drawn", "--count", 1, *CPU]
    assert "1 drawn" in succeed(*command, "--score", 0)
    (path,) = (folder / "drawn").glob("*.jpg")
    assert cv2.imread(str(path)).shape == (32, 3 * 32 + 32, 3)  # two rows of three cameras, and the view from above


def test_resume_needs_a_checkpoint(folder):
    last = ["--data", folder / "data", "--student", "lidar", "--resume", *TINY]
    succeed("train", "bev", "--output", folder / "teacher", *last)
    code, output = invoke("train", "bev", "--output", folder / "other", *last)
    assert code == 1 and "expected a checkpoint to resume from" in output


def test_paper_preset_runs_dry_on_the_layout_of_nuscenes(tmp_path, monkeypatch):
    """Two steps with a smaller ResNet and encoder, on smaller pictures and a smaller map; the teacher is untrained."""
    monkeypatch.setattr(config, "PAPER", replace(config.PAPER, low=16, high=32, blocks=1))
    root = write(tmp_path / "nuscenes", 1, 1)
    output = succeed(
        "train", "bev", "--preset", "paper", "--backbone", "resnet18", "--data", root, "--size", 32, 64, "--cells", 32,
        "--batch", 1, "--dry-run", 2, "--output", tmp_path / "none", *CPU,
    )  # fmt: skip
    assert "1 samples, six pictures each, of 32 x 64 a step, cpu: " in output
    assert "GiB" in output and "28130 steps" in output
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("teacher", ["lidar", "fusion"])
def test_only_rehearsals_have_an_untrained_teacher(tmp_path, monkeypatch, teacher):
    """A ResNet's training has the committed one; the preset paper has none, which is said before any work."""

    def load(modality):
        raise ValueError(f"asked for the committed {modality}")

    with monkeypatch.context() as patch:
        patch.setattr(run, "committed", load)
        command = ["train", "bev", "--output", tmp_path, "--teacher", teacher, "--backbone", "resnet18", *TINY]
        code, output = invoke(*command)
        assert code == 1 and f"asked for the committed {teacher}" in output
    paper = ["train", "bev", "--preset", "paper", "--teacher", teacher, "--output", tmp_path, *CPU]
    code, output = invoke(*paper)
    assert code == 1 and "expected --data and --teacher-checkpoint beside --preset paper" in output
    code, output = invoke(*paper, "--data", tmp_path)
    assert code == 1 and "expected --teacher-checkpoint beside --data" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments, message", [
    (["--data", "nowhere"], "expected one folder of tables in nowhere"),
    (["--backbone-weights", "x.pt"], "expected cameras with a ResNet for backbone weights, got compact"),
    (["--student", "lidar", "--backbone", "resnet18", "--backbone-weights", "x.pt"], "got a LiDAR alone"),
    (["--steps", "0"], "expected steps >= 1, got 0"),
    (["--cells", "15"], "expected even numbers of rows, columns"),
    (["--teacher", "lidar"], "expected --teacher-checkpoint beside --data"),
    (["--teacher-checkpoint", "x.pt"], "expected the checkpoint of a teacher, got no x.pt"),
    (["--feature", "1", "--adapter", "1x1"], "expected --teacher beside --feature, --adapter"),
    (["--teacher", "none", "--teacher-checkpoint", "x.pt"], "expected --teacher beside --teacher-checkpoint"),
    (["--from-scratch"], "expected --from-scratch beside the preset demo alone"),
    (["--resume"], "expected a checkpoint to resume from"),
    (["--preset", "reproduce"], "no other options beside this preset, got --data,"),
    (["--preset", "demo"], "no other options beside this preset, got --data,"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(folder, tmp_path, arguments, message):
    base = [] if "--data" in arguments else ["--data", folder / "data"]
    code, output = invoke("train", "bev", *base, "--output", tmp_path, *TINY, *arguments)
    assert code == 1 and message in output.replace("\n", "")


@pytest.mark.parametrize("arguments, message", [
    (["--teacher", "fusion"], "expected a fusion teacher, got one of modality lidar"),
    (["--cells", 32], "expected a teacher with the student's reach, cells, low, high, got other ['cells']"),
])  # fmt: skip
def test_a_teacher_that_does_not_fit_is_refused(folder, tmp_path, arguments, message):
    teacher = ["--teacher-checkpoint", folder / "teacher" / "half.pt"]
    code, output = invoke("train", "bev", "--data", folder / "data", "--output", tmp_path, *TINY, *teacher, *arguments)
    assert code == 1 and message in output.replace("\n", "")


def test_two_processes_share_each_batch(tmp_path):
    """They keep the same weights, adapters included, though their samples differ and a term is off."""
    command = [sys.executable, "-m", "tests.recipes.bev_processes", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(map(torch.equal, first, second)) and torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2


def test_generate_draws_what_trainings_draw():
    known = inspect.signature(bev_commands.generate).parameters
    assert (known["train"].default, known["test"].default) == SCENES and known["size"].default == config.STUDENT.size


def test_a_damaged_checkpoint_is_one_line(folder, tmp_path):
    bad = tmp_path / "last.pt"
    bad.write_text("hello\n")
    train = ["train", "bev", "--data", folder / "data", "--output", tmp_path, "--resume", *TINY]
    for command in (["predict", "bev", bad, "source", "target"], train):
        code, output = invoke(*command)
        message = f"pydistill: read_checkpoint: expected a checkpoint of a bev training, got {bad}"
        assert (code, output.splitlines()[-1]) == (1, message)


def test_help_names_every_option():
    for verb in ("generate", "train", "evaluate", "predict"):
        assert "bev" in succeed(verb, "--help")
    output = CliRunner().invoke(app, ["train", "bev", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--student", "--teacher", "--teacher-checkpoint", "--adapter", "--relation", "--cells", "--dry-run"):
        assert option in output
