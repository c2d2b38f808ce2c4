"""``pydistill generate|train|evaluate|predict detr``."""

import json
import re

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pydistill.commands import app
from pydistill.recipes.dense.metric import Detections
from pydistill.recipes.detr import evaluation, run
from pydistill.recipes.detr.training import load_student
from tests.recipes.test_dense_commands import invoke, succeed, write_coco_2017

pytestmark = pytest.mark.xdist_group("detr_commands")  # one worker makes the files that they share

CPU = ["--accelerator", "cpu"]
TINY = ["--preset", "student", "--width", 0.125, "--queries", 6, "--layers", 1, "--steps", 2, "--batch", 2, *CPU]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated data, a teacher of their three classes, a student that it has taught."""
    folder = tmp_path_factory.mktemp("commands")
    succeed("generate", "detr", folder / "data", "--train", 4, "--test", 2, "--classes", 3)
    succeed("train", "detr", "--data", folder / "data", "--output", folder / "teacher", *TINY)
    teacher = ["--teacher", folder / "teacher" / "half.pt"]
    succeed(
        "train", "detr", "--data", folder / "data", "--output", folder / "run", "--detrdistill", *teacher, *TINY,
        "--relation", 0.2, "--instance-class-pairs", "all", "--assignment", "rematch", "--feature-region", "boxes",
    )  # fmt: skip
    return folder


def test_train_leaves_checkpoint_and_log(folder):
    _, config, classes = load_student(folder / "run" / "last.pt")
    assert config.steps == 2 and config.detrdistill and classes == ("0", "1", "2")
    assert (config.relation, config.instance_class_pairs, config.assignment, config.feature_region) == (
        0.2, "all", "rematch", "boxes",
    )  # fmt: skip
    assert (folder / "run" / "metrics.csv").exists() and list((folder / "run").glob("events.out.tfevents.*"))


def test_evaluate(folder):
    out = folder / "found.json"
    output = succeed("evaluate", "detr", folder / "run" / "last.pt", "--data", folder / "data", "--output", out, *CPU)
    assert re.search(r"\| 2 \| [\d.]+ \|", output) and "ms a picture" in output
    rows = json.loads(out.read_text())
    assert len(rows) == 2 * 18 and set(rows[0]) == {"image_id", "category_id", "bbox", "score"}


def test_predict(folder, monkeypatch):
    box = Detections(np.array([[10, 10, 50, 60]], np.float32), np.array([0.5], np.float32), np.array([1]))
    monkeypatch.setattr(evaluation, "find", lambda *_: [box])
    picture = next((folder / "data" / "val").glob("*.jpg"))
    output = succeed("predict", "detr", folder / "run" / "last.pt", picture, folder / "one.png", *CPU)
    assert "1 drawn" in output
    drawn, plain = (cv2.imread(str(path)) for path in (folder / "one.png", picture))
    assert drawn.shape == plain.shape and (drawn != plain).any()


def test_paper_preset_runs_dry_on_the_layout_of_coco(tmp_path):
    """Two steps with a smaller ResNet, on smaller pictures."""
    output = succeed(
        "train", "detr", "--preset", "paper", "--backbone", "resnet18", "--data", write_coco_2017(tmp_path / "coco"),
        "--size", 128, 128, "--batch", 1, "--layers", 2, "--dry-run", 2, "--output", tmp_path / "none", *CPU,
    )  # fmt: skip
    assert "deformable_detr resnet18, 1 pictures of 128 x 128 a step, cpu: " in output and "366450 steps" in output
    assert not (tmp_path / "none").exists()


def test_only_rehearsals_have_an_untrained_teacher(tmp_path, monkeypatch):
    """A ResNet's training on generated scenes has the committed one."""

    def load(path):
        raise ValueError(f"asked for {path or 'the committed one'}")

    monkeypatch.setattr(run, "SCENES", (1, 1))
    monkeypatch.setattr(run, "load_teacher", load)
    code, output = invoke("train", "detr", "--output", tmp_path, "--detrdistill", "--backbone", "resnet18", *TINY)
    assert code == 1 and "asked for the committed one" in output


@pytest.mark.parametrize("arguments, message", [
    (["--backbone-weights", "x.pt"], "expected a ResNet for backbone weights, got compact"),
    (["--detrdistill"], "expected --teacher beside --data"),
    (["--teacher", "x.pt", "--instance", "2"], "train: expected --detrdistill beside --teacher, --instance"),
    (["--preset", "teacher", "--assignment", "rematch"], "expected --detrdistill beside --assignment"),
    (["--detrdistill", "--teacher", "x.pt"], "expected the checkpoint of a teacher, got no x.pt"),
    (["--from-scratch"], "expected --from-scratch beside the preset demo alone"),
    (["--resume"], "expected a checkpoint to resume from"),
    (["--preset", "reproduce"], "no other options beside this preset, got --data,"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(folder, tmp_path, arguments, message):
    code, output = invoke("train", "detr", "--data", folder / "data", "--output", tmp_path, *TINY, *arguments)
    assert code == 1 and message in output.replace("\n", "")


def test_a_teacher_of_another_kind_is_refused(folder, tmp_path):
    arguments = ["--detrdistill", "--teacher", folder / "teacher" / "half.pt", "--detector", "deformable_detr"]
    code, output = invoke("train", "detr", "--data", folder / "data", "--output", tmp_path, *TINY, *arguments)
    assert code == 1 and "expected a teacher with the student's detector" in output.replace("\n", "")


def test_a_damaged_checkpoint_is_one_line(folder, tmp_path):
    bad = tmp_path / "last.pt"
    bad.write_text("hello\n")
    train = ["train", "detr", "--data", folder / "data", "--output", tmp_path, "--resume", *TINY]
    for command in (["predict", "detr", bad, "source", "target"], train):
        code, output = invoke(*command)
        message = f"pydistill: read_checkpoint: expected a checkpoint of a detr training, got {bad}"
        assert (code, output.splitlines()[-1]) == (1, message)


def test_help_names_every_option():
    for verb in ("generate", "train", "evaluate", "predict"):
        assert "detr" in succeed(verb, "--help")
    output = CliRunner().invoke(app, ["train", "detr", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--detector", "--instance-stage", "--feature-region", "--assignment", "--relation", "--dry-run"):
        assert option in output
