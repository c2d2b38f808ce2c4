"""nuScenes' score by its devkit, on the same files and the same detections."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, in an environment of its own: make test-hosts")
pytest.importorskip("lightning", reason="needs pip install 'pydistill[train]'")

from nuscenes import NuScenes as Devkit
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval

from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import BEVGrid
from pydistill.recipes.bev import metric
from pydistill.recipes.bev.classes import CLASSES, TASKS
from pydistill.recipes.bev.data import BEVData
from pydistill.recipes.bev.evaluation import evaluate, find, write_results
from pydistill.recipes.bev.nuscenes import NuScenes
from tests.recipes import bev

VERSION, SPLIT = "v1.0-generated", "generated_train"
TP_ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")  # in the order of metric.ERRORS
ATTRIBUTES = ("vehicle.moving", "vehicle.stopped", "pedestrian.moving", "cycle.with_rider", "")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Generated scenes on a slope somewhere in the world, with what generated scenes lack: a LiDAR far from the ego's
    origin, annotations without a velocity, one without an attribute, and a rack around a bicycle."""
    root = bev.write(tmp_path_factory.mktemp("nuscenes") / "set", 3, 1)

    def edit(table, change):
        path = root / VERSION / f"{table}.json"
        rows = json.loads(path.read_text())
        change(rows)
        path.write_text(json.dumps(rows))

    turn, shift = Rotation.from_euler("zyx", [2.2, 0.03, -0.02]), np.array([1010.0, 640.0, 0.0])

    def move(rows):
        for row in rows:
            rotation = turn * Rotation.from_quat(np.roll(row["rotation"], -1))
            row["rotation"] = np.roll(rotation.as_quat(), 1).tolist()
            row["translation"] = (turn.apply(row["translation"]) + shift).tolist()

    def annotate(rows):
        move(rows)
        for row in rows[::7]:
            row.update(prev="", next="")
        rows[1].update(attribute_tokens=[])
        bicycle = next(row for row in rows if row["instance_token"] in bicycles)
        bicycle["num_lidar_pts"] = 5
        rows.append({**bicycle, "token": "rack", "instance_token": "rack", "size": [3.0, 3.0, 3.0]})

    tables = {name: json.loads((root / VERSION / f"{name}.json").read_text()) for name in ("category", "instance")}
    kind = next(row["token"] for row in tables["category"] if row["name"] == "vehicle.bicycle")
    bicycles = {row["token"] for row in tables["instance"] if row["category_token"] == kind}
    edit("calibrated_sensor", lambda rows: rows[0].update(translation=[25.0, 0.0, 1.8]))  # the LiDAR's, which is first
    edit("ego_pose", move)
    edit("sample_annotation", annotate)
    edit("category", lambda rows: rows.append({**rows[0], "token": "racks", "name": "static_object.bicycle_rack"}))
    edit("instance", lambda rows: rows.append({**rows[0], "token": "rack", "category_token": "racks"}))
    return root


@pytest.fixture(scope="module")
def devkit(root):
    return Devkit(VERSION, str(root), verbose=False)


def devkit_score(devkit, path, tmp_path):
    """What the devkit makes of a file of detections, and the evaluator."""
    config = config_factory("detection_cvpr_2019")
    evaluator = DetectionEval(devkit, config, str(path), SPLIT, str(tmp_path / "out"), verbose=False)
    return evaluator.evaluate()[0], evaluator


def assert_same(got, want, rel, turned=None):
    """``turned``: tolerance of directions and velocities."""
    ap = [[want.get_label_ap(name, distance) for distance in metric.DISTANCES] for name in CLASSES]
    np.testing.assert_allclose(got.ap, np.mean(ap, 1), rtol=rel, atol=rel)
    errors = [[want.get_label_tp(name, error) for error in TP_ERRORS] for name in CLASSES]
    assert got.mean_ap == pytest.approx(want.mean_ap, rel=rel)
    means = [want.tp_errors[error] for error in TP_ERRORS]
    for place, limit in enumerate((rel, rel, turned or rel, turned or rel, rel)):
        ours, theirs = got.class_errors[:, place], [row[place] for row in errors]
        np.testing.assert_allclose(ours, theirs, rtol=limit, atol=limit)
        assert got.errors[metric.ERRORS[place]] == pytest.approx(means[place], rel=limit)
    assert got.nds == pytest.approx(want.nd_score, rel=turned or rel)


def guesses(boxes, rng, classes):
    """A file's rows: boxes near annotated ones, of ``classes``, once, twice or not at all, with scores that repeat; and
    some anywhere."""
    rows = []
    for token, truth in boxes.items():
        for box in [*truth, *rng.choice(truth, min(4, len(truth)))]:
            name = box.detection_name if rng.random() < 0.9 else str(rng.choice(CLASSES))
            if name not in classes or rng.random() < 0.2:
                continue
            spread = rng.choice([0.3, 1.0, 30.0], p=[0.5, 0.4, 0.1])
            turn = Rotation.from_quat(np.roll(box.rotation, -1)) * Rotation.from_euler("z", rng.normal(0, 1.0))
            row = {
                "sample_token": token,
                "translation": (np.array(box.translation) + rng.normal(0, spread, 3) * [1, 1, 0.1]).tolist(),
                "size": (np.array(box.size) * rng.uniform(0.7, 1.4, 3)).tolist(),
                "rotation": np.roll(turn.as_quat(), 1).tolist(),
                "velocity": (np.nan_to_num(box.velocity) + rng.normal(0, 1, 2)).tolist(),
                "detection_name": name,
                "detection_score": float(rng.integers(1, 12) / 12),
                "attribute_name": box.attribute_name if rng.random() < 0.6 else str(rng.choice(ATTRIBUTES)),
            }
            rows.append(row)
    return {token: [row for row in rows if row["sample_token"] == token] for token in boxes}


def objects(devkit, token, boxes):
    """The devkit's boxes as ours, seen from the ego, with the axes of the world."""
    sample = devkit.get("sample", token)
    ego = devkit.get("ego_pose", devkit.get("sample_data", sample["data"]["LIDAR_TOP"])["ego_pose_token"])
    rows = []
    for box in boxes:
        ahead = Rotation.from_quat(np.roll(box.rotation, -1)).as_matrix()[:, 0]
        w, length, h = box.size
        place = np.subtract(box.translation, ego["translation"])
        rows.append([*place, length, w, h, np.arctan2(ahead[1], ahead[0]), *box.velocity])
    return metric.Objects(
        np.array(rows, float).reshape(-1, 9),
        np.array([CLASSES.index(box.detection_name) for box in boxes], int),
        np.array([box.detection_score for box in boxes]),
        [box.attribute_name for box in boxes],
    )


@pytest.mark.parametrize("seed", range(4))
def test_score(devkit, tmp_path, seed):
    """AP of every class and distance, errors, mAP and NDS. The last set lacks classes, the first has them all."""
    rng = np.random.default_rng(seed)
    blank = tmp_path / "blank.json"
    tokens = [row["token"] for row in devkit.sample]
    any_box = {"translation": [0, 0, 0], "size": [1, 1, 1], "rotation": [1, 0, 0, 0], "velocity": [0, 0]}
    any_box |= {"detection_name": "car", "detection_score": 0.5, "attribute_name": "", "sample_token": tokens[0]}
    results = {token: [any_box] if token == tokens[0] else [] for token in tokens}
    blank.write_text(json.dumps({"meta": {}, "results": results}))
    truth = devkit_score(devkit, blank, tmp_path)[1].gt_boxes.boxes
    classes = CLASSES if seed == 0 else rng.permutation(CLASSES)[: 10 - 2 * seed]

    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": {}, "results": guesses(truth, rng, classes)}))
    want, evaluator = devkit_score(devkit, path, tmp_path)
    tokens = list(evaluator.pred_boxes.sample_tokens)
    wanted = [objects(devkit, token, evaluator.gt_boxes[token]) for token in tokens]
    found = [objects(devkit, token, evaluator.pred_boxes[token]) for token in tokens]
    assert 0.01 < want.mean_ap < 0.9
    assert_same(metric.score(wanted, found), want, rel=1e-9)
    for label, name in enumerate(CLASSES):
        for distance in metric.DISTANCES:
            ap = metric._average_precision(metric._curve(wanted, found, label, distance))
            assert ap == pytest.approx(want.get_label_ap(name, distance), rel=1e-9)


class Guesser(torch.nn.Module):
    """Answers with the boxes that a batch holds, moved a little; a tenth of them under a neighbouring class."""

    def __init__(self, grid):
        super().__init__()
        self.grid, self.seen = grid, torch.nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        rng = torch.Generator().manual_seed(len(batch.boxes))
        shape = (len(batch.boxes), self.grid.height, self.grid.width)
        heat = [torch.full((shape[0], len(task), *shape[1:]), -9.0) for task in TASKS]
        numbers = [torch.zeros(shape[0], 11, *shape[1:]) for _ in TASKS]
        for n, m in batch.valid.nonzero().tolist():
            box = batch.boxes[n, m] + 0.2 * torch.randn(9, generator=rng) * torch.tensor([1, 1, 1, 0, 0, 0, 1, 1, 1])
            label = (int(batch.labels[n, m]) + int(torch.rand((), generator=rng) < 0.1)) % len(CLASSES)
            task = next(i for i, labels in enumerate(TASKS) if label in labels)
            cell = self.grid.cells(box[None, :2])[0]
            column, row = cell.floor().int().tolist()
            heat[task][n, TASKS[task].index(label), row, column] = torch.randn((), generator=rng)
            rest = [*box[2:3], *box[3:6].log() + 0.1, box[6].sin(), box[6].cos(), *box[7:9], torch.zeros(())]
            numbers[task][n, :, row, column] = torch.stack([*(cell - cell.floor() - 0.5), *rest])
        return BEVPrediction(None, None, heat, numbers)


def test_file_of_results(root, devkit, tmp_path):
    """The devkit's score of a written file is that of ``evaluate``, which keeps annotations in float32 and level."""
    data, path = BEVData(NuScenes(root, "train"), bev.SIZE, max_points=100), tmp_path / "results.json"
    grid = BEVGrid(-60, -60, 0.5, 0.5, 240, 240)
    write_results(find(Guesser(grid), data, range(len(data)), grid), data, path, "fusion")
    rows = json.loads(path.read_text())["results"]
    assert all(DetectionBox.deserialize(row) for boxes in rows.values() for row in boxes)
    want, evaluator = devkit_score(devkit, path, tmp_path)
    assert_same(evaluate(Guesser(grid), data, grid), want, rel=1e-5, turned=1e-3)
    assert want.mean_ap > 0.3

    in_rack = [box for token in rows for box in rows[token] if box["detection_name"] == "bicycle"]
    kept = [box for box in evaluator.pred_boxes.all if box.detection_name == "bicycle"]
    assert len(kept) < len(in_rack)
