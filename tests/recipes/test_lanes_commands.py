"""``pydistill generate|train|evaluate|predict lanes``."""

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
from pydistill.recipes.lanes.culane import CATEGORIES
from pydistill.recipes.lanes.training import load_student

pytestmark = pytest.mark.xdist_group("lanes_commands")  # one worker makes the files that they share

ROOT = Path(__file__).parents[2]
CPU = ["--accelerator", "cpu"]
TINY = ["--size", "48", "80", "--steps", "4", "--batch", "2", "--save-every", "2", *CPU]


def invoke(*arguments):
    outcome = CliRunner().invoke(app, [str(a) for a in arguments])
    return outcome.exit_code, outcome.output


def succeed(*arguments):
    code, output = invoke(*arguments)
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def tusimple(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tusimple")
    succeed("generate", "lanes", folder / "data", "--train", 6, "--test", 3)
    succeed("train", "lanes", "--data", folder / "data", "--output", folder / "run", "--sad", *TINY)
    return folder


@pytest.fixture(scope="module")
def culane(tmp_path_factory):
    folder = tmp_path_factory.mktemp("culane")
    succeed("generate", "lanes", folder / "data", "--format", "culane", "--train", 4, "--test", 18)
    succeed("train", "lanes", "--data", folder / "data", "--format", "culane", "--output", folder / "run", *TINY)
    return folder


def test_train_leaves_checkpoint_and_log(tusimple):
    student, config = load_student(tusimple / "run" / "last.pt")
    assert config.steps == 4 and config.sad and config.size == (48, 80)
    assert (tusimple / "run" / "metrics.csv").exists() and list((tusimple / "run").glob("events.out.tfevents.*"))


def test_resume_goes_on(tusimple):
    before = (tusimple / "run" / "last.pt").read_bytes()
    succeed("train", "lanes", "--data", tusimple / "data", "--output", tusimple / "run", "--sad", *TINY, "--resume")
    after = torch.load(tusimple / "run" / "last.pt", weights_only=True)
    assert after["step"] == 4 and len(before) > 0
    code, output = invoke("train", "lanes", "--output", tusimple / "other", "--resume", *TINY)
    assert code == 1 and "expected a checkpoint to resume from" in output


def test_evaluate_tusimple(tusimple):
    output = succeed(
        "evaluate", "lanes", tusimple / "run" / "last.pt", "--data", tusimple / "data", "--output", tusimple / "out",
        *CPU,
    )  # fmt: skip
    accuracy = float(re.search(r"\| 3 \| ([\d.]+) \|", output).group(1))
    assert 0 <= accuracy <= 100 and "ms a picture" in output
    lines = [json.loads(line) for line in (tusimple / "out" / "predictions.json").read_text().splitlines()]
    assert len(lines) == 3 and all(set(line) == {"raw_file", "lanes", "run_time"} for line in lines)


def test_evaluate_culane_by_category(culane):
    output = succeed(
        "evaluate", "lanes", culane / "run" / "last.pt", "--data", culane / "data", "--output", culane / "out",
        *CPU,
    )  # fmt: skip
    assert "| total |" in output and sum(f"| {category} |" in output for category in CATEGORIES.values()) >= 2
    assert len(list((culane / "out").rglob("*.lines.txt"))) == 18


def test_predict_a_picture_a_folder_a_video(tusimple):
    pictures = sorted((tusimple / "data").rglob("*.jpg"))
    last = tusimple / "run" / "last.pt"
    assert "1 drawn" in succeed("predict", "lanes", last, pictures[0], tusimple / "one.png", *CPU)
    assert cv2.imread(str(tusimple / "one.png")).shape == cv2.imread(str(pictures[0])).shape
    output = succeed("predict", "lanes", last, tusimple / "data", tusimple / "many", *CPU)
    assert f"{len(pictures)} drawn" in output and len(list((tusimple / "many").rglob("*.jpg"))) == len(pictures)
    video = cv2.VideoWriter(str(tusimple / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 180))
    for path in pictures[:4]:
        video.write(cv2.imread(str(path)))
    video.release()
    assert "4 drawn" in succeed(
        "predict", "lanes", last, tusimple / "in.avi", tusimple / "out.mp4", "--accelerator", "cpu"
    )
    drawn = cv2.VideoCapture(str(tusimple / "out.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and drawn.get(cv2.CAP_PROP_FPS) == 10


@pytest.mark.parametrize("source, message", [
    ("none.jpg", "expected a picture, a video or a folder, got"),
    ("none.mp4", "expected a video, got"),
    ("empty", "expected pictures"),
])  # fmt: skip
def test_predict_refuses(tusimple, tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    code, output = invoke(
        "predict",
        "lanes",
        tusimple / "run" / "last.pt",
        tmp_path / source,
        tmp_path / "out.mp4",
        "--accelerator",
        "cpu",
    )
    assert code == 1 and message in output.replace("\n", "")


def write_bdd100k(root):
    """Two pictures of BDD100K's layout, with a vertical lane."""
    for folder in ("train_img/train", "train_label/final_train", "list"):
        (root / folder).mkdir(parents=True)
    lines = []
    for i in range(2):
        label = np.zeros((720, 1280), np.uint8)
        label[300:, 600 + 20 * i : 608 + 20 * i] = 255
        cv2.imwrite(str(root / f"train_img/train/{i}.jpg"), 255 - label)
        cv2.imwrite(str(root / f"train_label/final_train/{i}.png"), label)
        lines.append(f"/train_img/train/{i}.jpg /train_label/final_train/{i}.png 1 1 1 1\n")
    for split in ("train", "val", "test"):
        (root / "list" / f"{split}_gt_bdd.txt").write_text("".join(lines))
    return root


def test_bdd100k(tmp_path):
    root = write_bdd100k(tmp_path / "data")
    succeed("train", "lanes", "--data", root, "--format", "bdd100k", "--output", tmp_path / "run", *TINY)
    output = succeed(
        "evaluate",
        "lanes",
        tmp_path / "run" / "last.pt",
        "--data",
        root,
        "--output",
        tmp_path / "out",
        "--accelerator",
        "cpu",
    )
    assert "| pictures | accuracy | iou |" in output and len(list((tmp_path / "out").rglob("*.png"))) == 2


def test_paper_presets_run_dry_on_small_data(tusimple, culane, tmp_path):
    """Two steps of each at the paper's size; the memory and time of whole batches are in docs/lanes.md."""
    roots = {"tusimple": tusimple / "data", "culane": culane / "data", "bdd100k": write_bdd100k(tmp_path)}
    sizes = {"tusimple": "368 x 640", "culane": "288 x 800", "bdd100k": "360 x 640"}
    for layout, root in roots.items():
        output = succeed(
            "train", "lanes", "--preset", "paper", "--format", layout, "--data", root, "--batch", 1, "--dry-run", 2,
            "--output", tmp_path / "none", "--accelerator", "cpu",
        )  # fmt: skip
        assert f"enet, 1 pictures of {sizes[layout]} a step, cpu: " in output and "GiB" in output
        assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--format", "bdd100k"], "expected the folder of the data set in --data"),
    (["--data", "nowhere"], "expected label_data_0313.json or label_data_0601.json in nowhere, got none"),
    (["--backbone-weights", "x.pt"], "expected a ResNet for backbone weights, got enet"),
    (["--steps", "0"], "expected steps >= 1, got 0"),
    (["--gamma", "0.5"], "train: expected --sad beside --gamma"),
    (["--no-sad", "--preset", "paper", "--sad-start", "0", "--reverse"], "--sad beside --reverse, --sad-start"),
    (["--preset", "reproduce"], "no other options beside this preset, got --data,"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(tusimple, tmp_path, arguments, message):
    base = [] if "--data" in arguments or "--format" in arguments else ["--data", tusimple / "data"]
    code, output = invoke("train", "lanes", *base, "--output", tmp_path, *TINY, *arguments)
    assert code == 1 and message in output.replace("\n", "")


def test_two_processes_share_each_batch(tusimple, tmp_path):
    command = [
        sys.executable, "-m", "pydistill", "train", "lanes", "--data", tusimple / "data", "--output", tmp_path, "--sad",
        *TINY, "--devices", "2",
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 4


def test_a_damaged_checkpoint_is_one_line(tusimple, tmp_path):
    bad = tmp_path / "last.pt"
    bad.write_text("hello\n")
    train = ["train", "lanes", "--data", tusimple / "data", "--output", tmp_path, "--resume", *TINY]
    for command in (["predict", "lanes", bad, "source", "target"], train):
        code, output = invoke(*command)
        message = f"pydistill: read_checkpoint: expected a checkpoint of a lane training, got {bad}"
        assert (code, output.splitlines()[-1]) == (1, message)


def test_help_names_every_option():
    for verb in ("generate", "train", "evaluate", "predict"):
        assert "lanes" in succeed(verb, "--help")
    output = CliRunner().invoke(app, ["train", "lanes", "--help"], env={"COLUMNS": "200"}).output
    for option in (
        "--preset",
        "--devices",
        "--precision",
        "--format",
        "--data",
        "--resume",
        "--dry-run",
        "--backbone-weights",
    ):
        assert option in output
