"""The demo of UniDistill, its report, and what is drawn."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from rich.console import Console

from pydistill.recipes.bev import demo as demo_module
from pydistill.recipes.bev import drawing
from pydistill.recipes.bev.classes import CAMERAS
from pydistill.recipes.bev.demo import Demo, Plan
from pydistill.recipes.bev.report import write_report
from pydistill.recipes.bev.training import build_model
from tests.recipes.bev import TINY
from tests.recipes.lanes import same

pytestmark = pytest.mark.xdist_group("bev_report")  # one worker makes the files that they share

TEACHER = replace(TINY, modality="lidar")


def teach(patch):
    torch.manual_seed(77)
    teacher = build_model(TEACHER).eval()
    patch.setattr(demo_module, "load_teacher", lambda modality, path: (teacher, TEACHER))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    plan = Plan(TINY, TEACHER, scenes=(2, 2))
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        teach(patch)
        return folder, Demo(plan, folder, Fabric(accelerator="cpu", devices=1), console=Console(quiet=True)).run()


def with_scores(net, mean_ap, nds=0.1):
    return replace(net, scores=replace(net.scores, mean_ap=mean_ap, nds=nds))


def test_report(demo, tmp_path):
    result = replace(
        demo[1], plain=with_scores(demo[1].plain, 0.3), distilled=with_scores(demo[1].distilled, 0.3234, 0.4321)
    )
    page = write_report(result, tmp_path / "report.html", torch.device("cpu")).read_text()
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv)', page)  # nothing is loaded from elsewhere
    # three samples: points, keypoints, region; two maps of three networks; truth and these from above; two in cameras
    assert page.count("data:image/jpeg") == 3 * (3 + 2 * 3 + 4 + 2) and page.count("<svg") == 4
    assert "30.0 %" in page and "32.3 %" in page and "+2.34" in page and "43.21" in page
    assert "raised the mean average precision by 2.34 points" in page and "no evidence" in page
    assert page.count(">without adapter<") == page.count(">with adapter<") == 2  # features and relations
    for word in ("untrained", "lidar teacher", "camera alone", "with UniDistill", "traffic_cone", "processor"):
        assert word in page


def test_only_the_adapted_one_has_adapters(demo):
    _, result = demo
    told = {"feature", "relation", "classes", "numbers"}
    assert told <= set(result.distilled.history[0]) and told <= set(result.adapted.history[0])
    assert not told & set(result.plain.history[0])
    assert result.distilled.history[0]["feature"] != result.adapted.history[0]["feature"]
    assert result.distilled.history[0]["heatmap"] == result.plain.history[0]["heatmap"]  # the same start and batch


def test_failures(demo):
    result = replace(demo[1], untrained=with_scores(demo[1].untrained, 0.2))
    names = ("teacher", "plain", "distilled", "adapted")
    nets = {name: with_scores(getattr(result, name), 0.3) for name in names}
    assert replace(result, **nets).failures() == []
    found = replace(result, **(nets | {"distilled": with_scores(result.distilled, 0.1)})).failures()
    assert found == ["with UniDistill does not beat the untrained network: mAP 0.1000 against 0.2000"]


def test_demo_resumes(demo, monkeypatch):
    folder, result = demo
    teach(monkeypatch)
    trained = []
    monkeypatch.setattr(demo_module.Training, "losses", lambda *_: trained.append(1))
    fabric = Fabric(accelerator="cpu", devices=1)
    again = Demo(result.plan, folder, fabric, resume=True, console=Console(quiet=True)).run()
    assert same(again.adapted.network.state_dict(), result.adapted.network.state_dict()) and not trained


BOX = np.array([[4.0, 2.0, 0.5, 2.0, 1.0, 1.0, np.pi / 2, 0.0, 0.0]])


def test_corners():
    """Turned a quarter to the left, what was long along x is along y; the front is where y is large."""
    found = drawing.corners(BOX)[0]
    np.testing.assert_allclose(found[:4, 2], 0.0, atol=1e-12)
    np.testing.assert_allclose(found[4:, 2], 1.0)
    np.testing.assert_allclose(found[:4, :2], [[4.5, 1], [3.5, 1], [3.5, 3], [4.5, 3]], atol=1e-12)


def test_ahead_is_up_and_left_is_left():
    cloud = np.array([[5.0, 5.0, 0.0], [-9.0, -9.0, 0.0], [11.0, 0.0, 0.0]], np.float32)  # the last is off
    seen = np.argwhere((drawing.points_above(cloud, 10.0) > 100).all(-1))
    np.testing.assert_allclose(seen, [[120, 120], [456, 456]])
    values = np.zeros((20, 20), np.float32)
    values[15, 14] = 1.0  # y 5..6, x 4..5
    heat = drawing.heat_above(values).astype(int).sum(-1)
    rows, columns = np.nonzero(heat == heat.max())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (120, 143, 96, 119)
    drawn = drawing.draw_boxes_above(np.zeros((480, 480, 3), np.uint8), BOX, 10.0, drawing.RED).any(-1)
    rows, columns = np.nonzero(drawn)
    np.testing.assert_allclose([rows.min(), rows.max()], [24 * 5.5, 24 * 6.5], atol=2)  # x 3.5..4.5
    np.testing.assert_allclose([columns.min(), columns.max()], [24 * 7, 24 * 9], atol=2)  # y 1..3
    assert drawn[144, 170] and not drawn[144, 216 - 10]  # from the centre to the front, not to the rear


def test_boxes_in_a_camera_that_looks_along_x():
    """A cube 10 m ahead spans its near face; one behind draws nothing; twice the picture, twice the pixels."""
    matrix = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]) @ np.array(
        [[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]
    )
    boxes = np.array([[10.0, 0, 0, 2, 2, 2, 0], [-10, 0, 0, 2, 2, 2, 0]])
    for factor in (1, 2):
        drawn = drawing.draw_boxes_in_view(
            np.zeros((48 * factor, 64 * factor, 3), np.uint8), boxes, matrix, (9, 9, 9), factor
        )
        rows, columns = np.nonzero(drawn.any(-1))
        half = 50 / 9
        want = np.array([24 - half, 24 + half, 32 - half, 32 + half]) + 0.5
        got = np.array([rows.min(), rows.max(), columns.min(), columns.max()]) / factor
        np.testing.assert_allclose(got, want, atol=1.5)


def test_cameras_stand_as_they_look():
    views = [np.full((2, 3, 3), i, np.uint8) for i in range(len(CAMERAS))]
    names = [[CAMERAS[i] for i in row] for row in drawing.side_by_side(views)[::2, ::3, 0]]
    assert names == [
        ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"],
        ["CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"],
    ]
