"""The command line, with and without the extra."""

import subprocess
import sys

import pytest

from pydistill import _extra, cli


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


def test_import_is_light():
    heavy = ("cv2", "lightning", "matplotlib", "jinja2", "rich", "typer", "scipy")
    code = f"import sys, pydistill, pydistill.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
