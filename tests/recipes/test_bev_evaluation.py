"""From a network's answers to nuScenes' scores and files."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import BEVGrid
from pydistill.recipes.bev.classes import CATEGORIES, CLASSES, TASKS
from pydistill.recipes.bev.data import BEVData
from pydistill.recipes.bev.evaluation import evaluate, find, infer, write_results
from pydistill.recipes.bev.metric import ERRORS
from pydistill.recipes.bev.nuscenes import NuScenes
from pydistill.recipes.bev.nuscenes_tables import Tables
from tests.recipes.bev import SIZE, write
from tests.recipes.test_bev_network import perfect

GRID = BEVGrid(-24.0, -24.0, 0.25, 0.25, 192, 192)  # fine enough that no two centres of a task share a cell


class Oracle(nn.Module):
    """Answers what a batch's boxes are."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.zeros(1)), shift

    def forward(self, batch):
        said = perfect(batch, GRID)
        for numbers in said.regressions:
            numbers[:, 0] += self.shift / GRID.cell_x
        return said


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A set whose LiDAR looks to the left, in a world that is turned and far from its origin."""
    root = write(tmp_path_factory.mktemp("evaluation") / "set", 2, 2)
    turn_by(root, "calibrated_sensor", np.pi / 2, 0.0)
    for table in ("ego_pose", "sample_annotation"):
        turn_by(root, table, -2.0, 300.0)
    return BEVData(NuScenes(root, "val"), SIZE, max_points=100)


def turn_by(root, table, angle, shift):
    """Turns each pose of a table about z, and then moves it."""
    path = next(root.glob(f"*/{table}.json"))
    rows, turn = json.loads(path.read_text()), Rotation.from_euler("z", angle)
    for row in rows:
        row["rotation"] = np.roll((turn * Rotation.from_quat(np.roll(row["rotation"], -1))).as_quat(), 1).tolist()
        row["translation"] = (turn.apply(row["translation"]) + [shift, -shift, 0]).tolist()
    path.write_text(json.dumps(rows))


def test_who_knows_the_boxes_has_all_the_points(data):
    """But for the classes that are not there, and for attributes, which no head tells."""
    found = evaluate(Oracle(), data, GRID)
    there = {int(label) for sample in data.dataset.samples for label in sample.labels}
    assert len(there) >= 3
    np.testing.assert_allclose(found.ap, [float(label in there) for label in range(len(CLASSES))], atol=1e-6)
    for label in there:
        own = dict(zip(ERRORS, found.class_errors[label], strict=True))
        assert own["translation"] < 1e-4 and own["scale"] < 1e-4
        assert not own["orientation"] > 1e-3 and not own["velocity"] > 1e-3


def test_a_metre_off_is_a_metre_off(data):
    found = evaluate(Oracle(shift=1.5), data, GRID)
    car = found.class_errors[CLASSES.index("car")]
    assert found.ap[CLASSES.index("car")] == pytest.approx(0.5, abs=1e-6)  # at 2 m and 4 m of four distances
    assert car[0] == pytest.approx(1.5, abs=1e-4)


def test_objects_beyond_the_map_do_not_count(data):
    """A map of 8 m around: the boxes on it are found, and the others are not missed."""
    small = BEVGrid(-8.0, -8.0, 0.25, 0.25, 64, 64)
    assert evaluate(Oracle(), data, GRID).mean_ap > 0
    near = [s for s in data.dataset.samples if (np.abs(s.boxes[:, :2]) < 8).all(1).any()]
    sides = [
        (k, (np.abs(b[:2]) < 8).all()) for s in data.dataset.samples for k, b in zip(s.labels, s.boxes, strict=True)
    ]
    assert {k for k, on in sides if on} & {k for k, on in sides if not on}  # whose AP would tell

    class Near(Oracle):
        def forward(self, batch):
            said = perfect(batch, GRID)
            heat, numbers = ([t[..., 64:128, 64:128] for t in of] for of in (said.heatmaps, said.regressions))
            return BEVPrediction(None, None, heat, numbers)

    found = evaluate(Near(), data, small)
    there = {int(k) for s in near for k, b in zip(s.labels, s.boxes, strict=True) if (np.abs(b[:2]) < 8).all()}
    np.testing.assert_allclose(found.ap, [float(label in there) for label in range(len(CLASSES))], atol=1e-6)


def test_results_are_the_annotations(data, tmp_path):
    """What an oracle finds is in the file as nuScenes' own tables have it, in the world, width before length."""
    found = find(Oracle(), data, range(len(data)), GRID)
    for modality, used in (("camera", {"camera"}), ("lidar", {"lidar"}), ("fusion", {"camera", "lidar"})):
        write_results(found, data, tmp_path / "found.json", modality)
        content = json.loads((tmp_path / "found.json").read_text())
        sensors = ("camera", "lidar", "radar", "map", "external")
        assert content["meta"] == {f"use_{sensor}": sensor in used for sensor in sensors}
    assert set(content["results"]) == {sample.token for sample in data.dataset.samples}
    tables = Tables(data.dataset.root)
    for token, rows in content["results"].items():
        wanted = [row for row in tables.annotations[token] if row["num_lidar_pts"]]
        assert len(rows) == len(wanted) > 0
        for row in wanted:
            gaps = [np.linalg.norm(np.subtract(row["translation"], r["translation"])) for r in rows]
            mine = rows[int(np.argmin(gaps))]
            assert min(gaps) < 1e-3 and mine["detection_name"] == CATEGORIES[tables.category(row)]
            np.testing.assert_allclose(mine["size"], row["size"], rtol=1e-4)
            assert abs(np.dot(mine["rotation"], row["rotation"])) > 1 - 1e-6
            np.testing.assert_allclose(mine["velocity"], tables.velocity(row)[:2], atol=1e-3)
            assert mine["sample_token"] == token and 0.99 < mine["detection_score"] <= 1
            assert mine["attribute_name"] == ""


def test_infer_leaves_the_mode_alone(data):
    seen = []

    class Mode(Oracle):
        def forward(self, batch):
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(batch)

    student = Mode().train()
    assert len(infer(student, data.samples([0, 1])).heatmaps) == len(TASKS)
    assert student.training and seen == [(False, False)]
