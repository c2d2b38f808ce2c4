"""The demo of DETRDistill and its report."""

import re
from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.detr import demo as demo_module
from pydistill.recipes.detr.demo import Demo, Plan
from pydistill.recipes.detr.report import write_report
from tests.recipes.detr import TINY, make_teacher
from tests.recipes.lanes import same
from tests.recipes.test_dense_report import with_scores

pytestmark = pytest.mark.xdist_group("detr_report")  # one worker makes the files that they share


def teach(patch):
    patch.setattr(demo_module, "load_teacher", lambda path: (make_teacher(), TINY))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    plan = Plan(replace(TINY, steps=6, save_every=1), scenes=(4, 4))  # three epochs
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        teach(patch)
        return folder, Demo(plan, folder, Fabric(accelerator="cpu", devices=1), console=Console(quiet=True)).run()


def test_report(demo, tmp_path):
    _, result = demo
    result = replace(
        result, plain=with_scores(result.plain, 0.3, 0.5), distilled=with_scores(result.distilled, 0.3234, 0.6)
    )
    page = write_report(result, tmp_path / "report.html", torch.device("cpu")).read_text()
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv)', page)  # nothing is loaded from elsewhere
    assert page.count("data:image/jpeg") == 3 * 4 * 4 and page.count("<svg") == 4
    assert "50.0 %" in page and "60.0 %" in page and "32.34" in page and "query's number" in page
    assert "raised the average precision by 2.34 points" in page and "no evidence" in page
    for word in ("untrained", "teacher", "student alone", "student + DETRDistill", "stride 32", "processor", "command"):
        assert word in page


def test_changes_are_shares_of_each_pair_of_epochs(demo):
    changed = demo[1].changed
    assert set(changed) == {"student alone", "student + DETRDistill"}
    assert all(len(shares) == 2 and all(0 <= share <= 1 for share in shares) for shares in changed.values())


def test_failures(demo):
    result = replace(demo[1], untrained=with_scores(demo[1].untrained, 0.0, 0.2))
    nets = {name: with_scores(getattr(result, name), 0.2, 0.3) for name in ("teacher", "plain", "distilled")}
    assert replace(result, **nets).failures() == []
    found = replace(result, **(nets | {"distilled": with_scores(result.distilled, 0, 0.1)})).failures()
    assert found == ["student + DETRDistill does not beat the untrained network: AP50 0.1000 against 0.2000"]


def test_demo_resumes(demo, monkeypatch):
    folder, result = demo
    teach(monkeypatch)
    trained = []
    monkeypatch.setattr(demo_module.Training, "losses", lambda *_: trained.append(1))
    fabric = Fabric(accelerator="cpu", devices=1)
    again = Demo(result.plan, folder, fabric, resume=True, console=Console(quiet=True)).run()
    assert same(again.distilled.network.state_dict(), result.distilled.network.state_dict()) and not trained
    assert again.changed == result.changed
