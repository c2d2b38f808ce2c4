"""``pydistill generate|train|evaluate|predict dense``."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pydistill.commands import app
from pydistill.recipes.dense import prediction, run
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.metric import Detections
from pydistill.recipes.dense.training import load_student

pytestmark = pytest.mark.xdist_group("dense_commands")  # one worker makes the files that they share

CPU = ["--accelerator", "cpu"]
TINY = ["--preset", "student", "--size", 64, 64, "--steps", 2, "--batch", 2, *CPU]


def invoke(*arguments):
    outcome = CliRunner().invoke(app, [str(a) for a in arguments])
    return outcome.exit_code, outcome.output


def succeed(*arguments):
    code, output = invoke(*arguments)
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated data, a teacher of their three classes, a student that it has taught."""
    folder = tmp_path_factory.mktemp("dense")
    succeed("generate", "dense", folder / "data", "--train", 4, "--test", 2, "--classes", 3)
    succeed("train", "dense", "--data", folder / "data", "--output", folder / "teacher", *TINY)
    teacher = ["--teacher", folder / "teacher" / "half.pt"]
    succeed("train", "dense", "--data", folder / "data", "--output", folder / "run", "--ld", *teacher, *TINY)
    return folder


def test_train_leaves_checkpoint_and_log(folder):
    _, config, classes = load_student(folder / "run" / "last.pt")
    assert config.steps == 2 and config.ld and config.size == (64, 64) and classes == ("0", "1", "2")
    assert (folder / "run" / "metrics.csv").exists() and list((folder / "run").glob("events.out.tfevents.*"))


def test_resume_needs_a_checkpoint(folder):
    last = ["--data", folder / "data", "--resume", *TINY]
    succeed("train", "dense", "--output", folder / "teacher", *last)
    code, output = invoke("train", "dense", "--output", folder / "other", *last)
    assert code == 1 and "expected a checkpoint to resume from" in output


def test_evaluate(folder):
    out = folder / "found.json"
    output = succeed("evaluate", "dense", folder / "run" / "last.pt", "--data", folder / "data", "--output", out, *CPU)
    assert re.search(r"\| 2 \| [\d.]+ \|", output) and "ms a picture" in output
    assert all(set(found) == {"image_id", "category_id", "bbox", "score"} for found in json.loads(out.read_text()))


def test_predict(folder, monkeypatch):
    box = Detections(np.array([[10, 10, 50, 60]], np.float32), np.array([0.5], np.float32), np.array([1]))
    monkeypatch.setattr(prediction, "find", lambda *_: [box])
    picture = next((folder / "data" / "val").glob("*.jpg"))
    output = succeed("predict", "dense", folder / "run" / "last.pt", picture, folder / "one.png", *CPU)
    assert "1 drawn" in output
    drawn, plain = (cv2.imread(str(path)) for path in (folder / "one.png", picture))
    assert drawn.shape == plain.shape and (drawn != plain).any()


def write_coco_2017(root):
    """Generated scenes under the names that COCO has."""
    write_coco(root, 0, 2, 2, classes=3)
    for split in ("train", "val"):
        (root / split).rename(root / f"{split}2017")
        file = root / "annotations" / f"instances_{split}.json"
        file.rename(file.with_stem(f"instances_{split}2017"))
    return root


def test_paper_preset_runs_dry_on_the_layout_of_coco(tmp_path):
    """Two steps with a smaller ResNet, on smaller pictures; memory and time of the whole are in docs/dense.md."""
    output = succeed(
        "train", "dense", "--preset", "paper", "--backbone", "resnet18", "--data", write_coco_2017(tmp_path / "coco"),
        "--size", 160, 160, "--batch", 1, "--dry-run", 2, "--output", tmp_path / "none", *CPU,
    )  # fmt: skip
    assert "resnet18, 1 pictures of 160 x 160 a step, cpu: " in output and "GiB" in output and "87948 steps" in output
    assert not (tmp_path / "none").exists()


def test_what_trains_without_a_teacher_is_not_refused(folder, tmp_path):
    """The weight of the distribution focal loss and the reference are also of a training without LD."""
    own = ["--dfl", 0.5, "--reference", "released"]
    succeed("train", "dense", "--data", folder / "data", "--output", tmp_path, *own, *TINY)


def test_only_rehearsals_have_an_untrained_teacher(tmp_path, monkeypatch):
    """A ResNet's training on generated scenes has the committed one."""

    def load(path):
        raise ValueError(f"asked for {path or 'the committed one'}")

    monkeypatch.setattr(run, "SCENES", (1, 1))
    monkeypatch.setattr(run, "load_teacher", load)
    code, output = invoke("train", "dense", "--output", tmp_path, "--ld", "--backbone", "resnet18", *TINY)
    assert code == 1 and "asked for the committed one" in output


@pytest.mark.parametrize("arguments, message", [
    (["--data", "nowhere"], "expected nowhere/annotations/instances_train.json or"),
    (["--backbone-weights", "x.pt"], "expected a ResNet for backbone weights, got compact"),
    (["--steps", "0"], "expected steps >= 1, got 0"),
    (["--ld"], "expected --teacher beside --data"),
    (["--teacher", "x.pt", "--main-ld", "1"], "train: expected --ld beside --teacher, --main-ld"),
    (["--temperature", "5"], "expected --ld beside --temperature"),
    (["--preset", "teacher", "--imitation-region", "inside"], "expected --ld beside --imitation-region"),
    (["--preset", "paper", "--no-ld", "--gamma", "0.5"], "expected --ld beside --gamma"),
    (["--accelerator", "cuda", "--devices", "99"], "Fabric: expected devices that this machine has, got --acc"),
    (["--devices", "-3"], "devices that this machine has, got --accelerator cpu --devices -3"),
    (["--ld", "--teacher", "x.pt"], "expected the checkpoint of a teacher, got no x.pt"),
    (["--from-scratch"], "expected --from-scratch beside the preset demo alone"),
    (["--preset", "reproduce"], "no other options beside this preset, got --data,"),
    (["--preset", "demo"], "no other options beside this preset, got --data,"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(folder, tmp_path, arguments, message):
    base = [] if "--data" in arguments else ["--data", folder / "data"]
    code, output = invoke("train", "dense", *base, "--output", tmp_path, *TINY, *arguments)
    assert code == 1 and message in output.replace("\n", "")


@pytest.mark.parametrize("damage", [lambda whole: b"hello\n", lambda whole: b"", lambda whole: whole[:3000]])
def test_a_damaged_checkpoint_is_one_line(folder, tmp_path, damage):
    bad = tmp_path / "last.pt"
    bad.write_bytes(damage((folder / "teacher" / "last.pt").read_bytes()))
    data = ["--data", folder / "data"]
    for command in (
        ["evaluate", "dense", bad, *data],
        ["predict", "dense", bad, "one.jpg", "drawn.jpg"],
        ["train", "dense", *data, "--output", tmp_path, "--resume", *TINY],
        ["train", "dense", *data, "--output", tmp_path / "other", "--ld", "--teacher", bad, *TINY],
    ):
        code, output = invoke(*command)
        message = f"pydistill: read_checkpoint: expected a checkpoint of a dense training, got {bad}"
        assert (code, output.splitlines()[-1]) == (1, message)


def test_half_of_a_checkpoint_is_not_resumed(folder, tmp_path):
    """The network alone, for a teacher."""
    (tmp_path / "last.pt").write_bytes((folder / "teacher" / "half.pt").read_bytes())
    code, output = invoke("train", "dense", "--data", folder / "data", "--output", tmp_path, "--resume", *TINY)
    assert code == 1 and "expected a checkpoint of a dense training, got" in output


def test_two_processes_share_each_batch(folder, tmp_path):
    command = [
        sys.executable, "-m", "pydistill", "train", "dense", "--data", folder / "data", "--output", tmp_path, "--ld",
        "--teacher", folder / "teacher" / "half.pt", *TINY, "--devices", "2",
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2


def test_help_names_every_option():
    for verb in ("generate", "train", "evaluate", "predict"):
        assert "dense" in succeed(verb, "--help")
    output = CliRunner().invoke(app, ["train", "dense", "--help"], env={"COLUMNS": "200"}).output
    for option in (
        "--preset",
        "--teacher",
        "--from-scratch",
        "--main-ld",
        "--gamma",
        "--backbone-weights",
        "--dry-run",
    ):
        assert option in output
