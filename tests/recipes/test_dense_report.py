"""The demo of localization distillation and its report."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.dense import demo as demo_module
from pydistill.recipes.dense.demo import Demo, Plan
from pydistill.recipes.dense.metric import Detections
from pydistill.recipes.dense.report import GAMMAS, write_report
from pydistill.report.pictures import draw_boxes
from tests.recipes.dense import TINY, make_teacher
from tests.recipes.lanes import same

pytestmark = pytest.mark.xdist_group("dense_report")  # one worker makes the files that they share


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    plan = Plan(replace(TINY, steps=2, save_every=1), scenes=(4, 4))
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "load_teacher", lambda path: make_teacher(classes=3))
        return folder, Demo(plan, folder, Fabric(accelerator="cpu", devices=1), console=Console(quiet=True)).run()


def with_scores(net, ap, ap50):
    box = Detections(np.array([[10, 10, 50, 60]], np.float32), np.array([0.5], np.float32), np.array([1]))
    found = replace(net.evaluation, numbers=net.evaluation.numbers | {"ap": ap, "ap50": ap50})
    return replace(net, evaluation=replace(found, detections=[box] * len(found.detections)))


def test_report(demo, tmp_path):
    _, result = demo
    result = replace(result, plain=with_scores(result.plain, 0.3, 0.5), ld=with_scores(result.ld, 0.3234, 0.5))
    page = write_report(result, tmp_path / "report.html", torch.device("cpu")).read_text()
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv)', page)  # nothing is loaded from elsewhere
    levels = len(TINY.strides)
    assert page.count("data:image/jpeg") == 3 + 2 * len(GAMMAS) * (levels + 1) + 4 * 4
    assert page.count("<svg") == 3 + 3
    assert "30.0 %" in page and "32.3 %" in page and "+2.34" in page and "32.34" in page
    assert "raised the average precision by 2.34 points" in page and "no evidence" in page
    for word in ("untrained", "teacher", "student alone", "student + LD", "Main KD", "processor", "command"):
        assert word in page


def test_failures(demo):
    result = replace(demo[1], untrained=with_scores(demo[1].untrained, 0.0, 0.2))
    nets = {name: with_scores(getattr(result, name), 0.2, 0.3) for name in ("teacher", "plain", "ld")}
    assert replace(result, **nets).failures() == []
    found = replace(result, **(nets | {"ld": with_scores(result.ld, 0, 0.1)})).failures()
    assert found == ["student + LD does not beat the untrained network: AP50 0.1000 against 0.2000"]


def test_demo_resumes(demo, monkeypatch):
    folder, result = demo
    monkeypatch.setattr(demo_module, "load_teacher", lambda path: make_teacher(classes=3))
    trained = []
    monkeypatch.setattr(demo_module.Training, "losses", lambda *_: trained.append(1))
    fabric = Fabric(accelerator="cpu", devices=1)
    again = Demo(result.plan, folder, fabric, resume=True, console=Console(quiet=True)).run()
    assert same(again.ld.network.state_dict(), result.ld.network.state_dict()) and not trained


def test_draw_boxes():
    picture = np.zeros((40, 60, 3), np.uint8)
    drawn = draw_boxes(picture, np.array([[10, 10, 30, 20]], np.float32), colour=(0, 0, 255), width=1)
    assert (drawn[10, 10:31, 2] > 0).all() and (drawn[12:19, 12:29] == 0).all() and not picture.any()
