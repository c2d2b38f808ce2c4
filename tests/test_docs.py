"""Every python program of README.md and of the manual runs as printed."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pydistill import Distiller, Term
from tests.hosts.detectors import detector
from tests.training.nets import batches

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [
    (page.relative_to(ROOT).as_posix(), number, program)
    for page in PAGES
    for number, program in enumerate(
        re.findall(r"^```python[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
]


class Classifier(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.layer3 = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.backbone.layer3(x).relu().mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential()
        self.encoder.stage2, self.encoder.stage3 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)

    def forward(self, x):
        return self.encoder(x)


def own(page, number):
    """What a program takes from its reader: models, data, earlier imports. One that is not named here runs alone."""
    if (page, number) == ("docs/training.md", 0):
        student = Classifier(64)
        before = student.head.weight.clone()
        return {"student": student, "teacher": Classifier(256), "loader": batches(3), "before": before}
    if (page, number) == ("docs/training.md", 1):
        return {"student": Encoder(), "Distiller": Distiller, "Term": Term}
    if page == "docs/hosts.md":
        loader = DataLoader(batches(3), batch_size=None)  # Lightning takes a list for several loaders
        return {"student": Classifier(64), "teacher": Classifier(256), "loader": loader, "module": task()}
    if (page, number) == ("docs/transformers.md", 1):
        pytest.importorskip("accelerate", reason="needs pip install accelerate")
        from transformers import TrainingArguments

        args = TrainingArguments("trained", use_cpu=True, report_to=[])
        return {"student": detector("rt_detr"), "teacher": detector("rt_detr"), "args": args, "data": [{}]}
    if page == "docs/transformers.md":
        return {"SetCriterion": dict, "weights": {}}
    return {}


def task():
    """A module of Lightning's that knows nothing of distillation."""
    from lightning.pytorch import LightningModule

    class Task(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Classifier(64)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Task()


SHORTER = {
    "docs/lanes.md": {"steps=600": "steps=2, batch=2, size=(48, 80)", "train=800, test=200": "train=2, test=1"},
    "docs/dense.md": {"steps=400": "steps=2, batch=2", "train=1200, test=300": "train=2, test=1"},
}


def shortened(page, program):
    """The program with less data and fewer steps, where it trains for minutes."""
    if "recipes" in program:
        for long, short in SHORTER.get(page, {}).items():
            assert long in program
            program = program.replace(long, short)
    return program


@pytest.mark.parametrize(("page", "number", "program"), PROGRAMS, ids=[f"{p}-{n}" for p, n, _ in PROGRAMS])
def test_program_runs(page, number, program, tmp_path, monkeypatch, capsys):
    if "recipes" in program or "lightning" in program:
        pytest.importorskip("lightning", reason="needs pip install 'pydistill[train]'")
    if "transformers" in program:
        pytest.importorskip("transformers", reason="needs pip install transformers")
    monkeypatch.chdir(tmp_path)
    names = own(page, number)
    exec(compile(shortened(page, program), f"{page}, program {number}", "exec"), names)
    if (page, number) in RESULTS:
        RESULTS[page, number](names, capsys.readouterr().out)


def losses_have_gradients(names, printed):
    said = re.search(r"# \((\d+) layers, (\d+) images, (\d+) group, (\d+) targets\)", PROGRAMS[0][2])
    assert printed == f"torch.Size([{', '.join(said.groups())}])\n"
    assert all(stage.grad.abs().sum() > 0 for stage in names["stages"][:2])  # the deepest stage teaches
    assert names["stages"][2].grad is None
    assert (names["region"] > 0).any() and names["student"].grad.abs().sum() > 0


def student_has_learned(names, printed):
    assert names["distiller"].step == 3
    assert torch.load("student.pt").keys() == Classifier(64).state_dict().keys()
    assert not torch.equal(names["student"].head.weight, names["before"])
    assert re.fullmatch(r"[\d.]+ \{\}\n", printed)


RESULTS = {("README.md", 0): losses_have_gradients, ("docs/training.md", 0): student_has_learned}


def test_pages_have_their_programs():
    assert {page for page, _, _ in PROGRAMS} >= {"README.md", "docs/training.md", "docs/lanes.md"}
