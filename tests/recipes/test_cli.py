"""The command line, with and without the extra."""

import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from pydistill import __version__, _extra, cli
from pydistill.commands import app
from pydistill.recipes.lanes import run


def invoke(*arguments):
    outcome = CliRunner().invoke(app, [str(a) for a in arguments])
    return outcome.exit_code, outcome.output.strip()


def test_missing_extra(monkeypatch):
    monkeypatch.setattr(_extra, "find_spec", lambda name: None if name in ("cv2", "rich") else object())
    with pytest.raises(ImportError, match=r"expected cv2, rich, not installed here; pip install 'pydistill\[train\]'"):
        _extra.require_train("pydistill.recipes")


def test_info_without_typer(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["pydistill", "info"])
    cli.main()
    assert "torch" in capsys.readouterr().out


@pytest.mark.parametrize("command, extra", [("demo", "train"), ("bench", "bench")])
def test_command_without_typer(monkeypatch, command, extra):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["pydistill", command])
    with pytest.raises(SystemExit, match=rf"pip install 'pydistill\[{extra}\]'"):
        cli.main()


def test_version(monkeypatch, capsys):
    """With the extras and without."""
    assert invoke("--version") == (0, f"pydistill {__version__}")
    assert "--version" in invoke("--help")[1]
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["pydistill", "--version"])
    cli.main()
    assert capsys.readouterr().out == f"pydistill {__version__}\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_demo_without_the_device_is_one_line(tmp_path):
    code, output = invoke("demo", "--accelerator", "cuda", "--output", tmp_path)
    message = "pydistill: Fabric: expected devices that this machine has, got --accelerator cuda --devices 1"
    assert (code, output) == (1, message)


@pytest.mark.parametrize("arguments, missing", [
    (["lanes"], "--data"),
    (["dense"], "--data and --teacher"),
    (["dense", "--no-ld"], "--data"),
    (["dense", "--teacher", "x.pt"], "--data"),
    (["detr"], "--data and --teacher"),
    (["bev"], "--data and --teacher-checkpoint"),
    (["bev", "--teacher", "none"], "--data"),
])  # fmt: skip
def test_the_paper_needs_data(tmp_path, arguments, missing):
    code, output = invoke("train", *arguments, "--preset", "paper", "--output", tmp_path / "new")
    assert (code, output) == (1, f"pydistill: train: expected {missing} beside --preset paper")
    assert not (tmp_path / "new").exists()


def test_a_dry_run_says_that_scenes_are_generated(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_generated", lambda config, root: run.write_tusimple(root, 0, 2, 1))
    small = ["--size", 48, 80, "--batch", 1, "--accelerator", "cpu"]
    code, output = invoke("train", "lanes", "--preset", "paper", "--dry-run", 1, "--output", tmp_path, *small)
    assert code == 0 and output.startswith("generated scenes, as there is no --data: ") and "50000 steps" in output


@pytest.mark.parametrize("system", ["lanes", "dense", "detr", "bev"])
@pytest.mark.parametrize("train, test", [(0, 0), (-1, 2)])
def test_empty_sets_are_not_generated(tmp_path, system, train, test):
    code, output = invoke("generate", system, tmp_path / "new", "--train", train, "--test", test)
    assert code == 1 and f"expected at least one scene, got {train} to train on and {test} to test on" in output
    assert not (tmp_path / "new").exists()


def test_import_is_light():
    heavy = ("cv2", "lightning", "matplotlib", "jinja2", "rich", "typer", "scipy")
    code = f"import sys, pydistill, pydistill.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
