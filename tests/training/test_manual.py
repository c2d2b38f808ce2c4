"""The programs of docs/training.md run as printed."""

import re
from pathlib import Path

import torch
from torch import nn

from tests.training.nets import batches

MANUAL = Path(__file__).parents[2] / "docs" / "training.md"


class Classifier(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.layer3 = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.backbone.layer3(x).relu().mean((2, 3)))


def test_the_loop_of_the_manual_trains(tmp_path, monkeypatch, capsys):
    program = re.search(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    names = dict(student=Classifier(64), teacher=Classifier(256), loader=batches(3))
    before = names["student"].head.weight.clone()
    exec(program, names)
    assert names["distiller"].step == 3 and not torch.equal(names["student"].head.weight, before)
    assert torch.load("student.pt").keys() == Classifier(64).state_dict().keys()
    assert re.fullmatch(r"[\d.]+ \{\}\n", capsys.readouterr().out)
