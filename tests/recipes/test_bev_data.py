import json
import shutil
from itertools import combinations

import numpy as np
import pytest
import torch

from pydistill.recipes.bev.classes import CAMERAS, CLASSES
from pydistill.recipes.bev.data import Augment, BEVData, moved
from pydistill.recipes.bev.generate import write_nuscenes
from pydistill.recipes.bev.nuscenes import NuScenes
from pydistill.recipes.bev.nuscenes_tables import Tables
from pydistill.recipes.bev.rays import GROUND, SKY, cast
from pydistill.recipes.bev.scenes import Difficulty, make_scene
from pydistill.recipes.bev.sensors import photograph, scan, six_cameras
from pydistill.recipes.pictures import UnreadablePicture
from tests.recipes.bev import SIZE, SPARSE, write


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bev") / "set")


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "set")


def edit(root, table, change):
    path = next(root.glob(f"*/{table}.json"))
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_rays_meet_boxes_in_front_of_others():
    """A ray along x meets the near box's rear, one over it the far one, one down the ground, one up nothing."""
    boxes = np.array([[10, 0, 0, 4, 2, 2, 0], [20, 0, 1, 2, 6, 6, np.pi / 2]], np.float32)
    rays = np.array([[1, 0, 0], [1, 0, 0.14], [2, 0, -2], [0, 1, 1], [-1, 0, 0]], np.float32)
    hits = cast(np.zeros(3, np.float32), rays, boxes, -1.5)
    assert hits.target.tolist() == [0, 1, GROUND, SKY, SKY]
    np.testing.assert_allclose(hits.distance[:3], [8, 17, 0.75], rtol=1e-5)  # the second is turned: 6 long along x
    np.testing.assert_allclose(hits.place[0], [-0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(hits.place[2], [1.5, 0, 0], atol=1e-6)
    assert hits.face[:2].tolist() == [0, 1] and np.isinf(hits.distance[3:]).all()


def _touch(*boxes):
    """Whether two boxes share ground: on each of their sides' directions their extents do."""
    corners = []
    for x, y, _, length, w, _, yaw, *_ in boxes:
        ahead = np.array([np.cos(yaw), np.sin(yaw)])
        left = ahead[::-1] * [-1, 1]
        corners.append([[x, y] + i * length / 2 * ahead + j * w / 2 * left for i in (-1, 1) for j in (-1, 1)])
    turns = np.array([[f(b[6] + d) for f in (np.cos, np.sin)] for b in boxes for d in (0, np.pi / 2)])
    (low, high), (low2, high2) = ((p.min(0), p.max(0)) for p in (np.array(c) @ turns.T for c in corners))
    return bool(((low <= high2) & (low2 <= high)).all())


def test_scenes_are_a_function_of_their_numbers():
    """Boxes keep to the reach, and none touch at the first moment."""
    assert _touch([0, 0, 0, 4, 2, 1, 0], [1.9, 1.9, 0, 2, 2, 1, 0.8]) and not _touch(
        [0, 0, 0, 4, 2, 1, 0], [2.9, 1.9, 0, 2, 2, 1, 0.8]
    )
    first, again = (make_scene(3, 5, 0, Difficulty()) for _ in range(2))
    assert np.array_equal(first.boxes, again.boxes) and first.seed == again.seed
    assert not np.array_equal(first.boxes, make_scene(3, 5, 1, Difficulty()).boxes)
    counts = np.zeros(len(CLASSES))
    for index in range(60):
        scene = make_scene(0, index, 0, Difficulty())
        counts += np.bincount(scene.labels, minlength=len(CLASSES))
        assert np.abs(scene.boxes[:, :2]).max() <= Difficulty().reach
        assert not any(_touch(*pair) for pair in combinations(scene.boxes, 2))
    assert (counts > 5).all() and counts[0] == counts.max()


def test_a_box_hides_what_is_behind_it():
    scene = make_scene(0, 0, 0, SPARSE)
    wall = np.array([[8, 0, 0, 0.5, 12, 6, 0, 0, 0]], np.float32)
    points = scan(scene, wall, Difficulty(dropped=0.0))
    ahead = points[np.abs(np.arctan2(points[:, 1], points[:, 0])) < 0.3]
    assert len(ahead) > 50 and ahead[:, 0].max() < 8


def test_cameras_see_boxes_where_they_project():
    """The colour of a box is at its centre's pixel, in the camera that looks there, in daylight without blur."""
    scene = make_scene(0, 0, 0, Difficulty(night=0.0))
    for yaw, number in ((0.0, 0), (-0.96, 1), (np.pi, 3)):
        x, y = 9 * np.cos(yaw), 9 * np.sin(yaw)
        one = type(scene)(
            np.array([[x, y, -0.5, 2, 2, 2, 0, 0, 0]], np.float32), np.array([CLASSES.index("trailer")]),
            np.array([[0.9, 0.05, 0.05]], np.float32), False, 1, 1.8, 0,
        )  # fmt: skip
        camera = six_cameras((64, 112))[number]
        picture = photograph(one, camera, Difficulty(blur=0.0, noise=0.0), number)
        u, v, depth = camera.matrix @ camera.rotation.T @ (np.array([x, y, -0.5]) - camera.position)
        red, green, blue = picture[round(v / depth), round(u / depth)].astype(int)
        assert depth > 5 and red > 60 and red > 4 * max(green, blue)


def test_written_set_reads_back(root):
    """The boxes, velocities and cameras of the scenes that were drawn, without those that no beam met."""
    tables = Tables(root)
    data = NuScenes(root, "train", sweeps=2, tables=tables)
    assert len(data) == 4
    names = {row["token"]: row["name"] for row in tables.rows["scene"]}
    for index, sample in enumerate(data.samples):
        row = tables.row("sample", sample.token)
        number, moment = int(names[row["scene_token"]][-5:]), index % 2
        scene = make_scene(0, number, 0, SPARSE)
        drawn = scene.after(0.5 * moment)
        for box, label in zip(sample.boxes, sample.labels, strict=True):
            match = np.abs(drawn[:, :3] - box[:3]).max(1).argmin()
            np.testing.assert_allclose(box[:6], drawn[match, :6], atol=1e-4)
            assert np.cos(box[6] - drawn[match, 6]) > 1 - 1e-6 and label == scene.labels[match]
            np.testing.assert_allclose(box[7:], drawn[match, 7:], atol=1e-3)
        assert [len(sample.views), len(sample.sweeps)] == [len(CAMERAS), 2]
        camera = six_cameras(SIZE)[2]
        np.testing.assert_allclose(sample.views[2].matrix, camera.matrix)
        np.testing.assert_allclose(np.linalg.inv(sample.views[2].from_lidar)[:3, 3], camera.position, atol=1e-9)
        points = data.points(index)
        assert set(np.unique(points[:, 4]).round(6)) == {0.0, np.float32(0.05).round(6)}


def test_velocity_is_unknown_where_annotations_are_far_apart(copy):
    edit(copy, "sample", lambda rows: [row.update(timestamp=4 * row["timestamp"]) for row in rows])
    assert np.isnan(NuScenes(copy, "train").samples[0].boxes[:, 7:]).all()
    batch = BEVData(NuScenes(copy, "train"), SIZE, max_points=100).samples([0])
    assert batch.valid.any() and not batch.timed.any() and (batch.boxes[..., 7:] == 0).all()


def test_what_is_missing_is_named(copy):
    with pytest.raises(ValueError, match="expected a split of .*'train', 'val'.*, got 'test'"):
        NuScenes(copy, "test")
    lost = next((copy / "samples" / "CAM_BACK").iterdir())
    lost.unlink()
    split = "train" if "train" in lost.name else "val"
    with pytest.raises(FileNotFoundError, match=f"got no .*{lost.name}"):
        NuScenes(copy, split)
    before = 4 if split == "train" else 2
    with pytest.warns(UserWarning, match="left out 1"):
        assert len(NuScenes(copy, split, malformed="skip")) == before - 1
    (copy / "splits.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON in .*splits.json, got "):
        NuScenes(copy, "train")
    (copy / "splits.json").unlink()
    with pytest.raises(FileNotFoundError, match="create_splits_scenes"):
        NuScenes(copy, "train")
    next(copy.glob("*/sample.json")).unlink()
    with pytest.raises(FileNotFoundError, match="expected one folder of tables"):
        NuScenes(copy, "train")


@pytest.mark.parametrize("train, test, size, message", [
    (0, 0, SIZE, "expected at least one scene, got 0 to train on and 0 to test on"),
    (2, -1, SIZE, "expected at least one scene, got 2 to train on and -1"),
    (1, 1, (0, 8), r"expected a height and width >= 1, got \(0, 8\)"),
])  # fmt: skip
def test_nothing_is_not_generated(tmp_path, train, test, size, message):
    with pytest.raises(ValueError, match=message):
        write_nuscenes(tmp_path / "set", 0, train, test, size=size)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("table", ["ego_pose", "calibrated_sensor", "sample_data", "instance", "sample_annotation"])
def test_a_row_that_is_missing_is_named(copy, table):
    """That of the first sample, or of all where they share it; the others are read."""
    tables, count = Tables(copy), 4
    before = NuScenes(copy, "train", sweeps=2)
    sample = before.samples[0].token
    lidar = next(row for row in tables.key_data[sample] if tables.channel(row) == "LIDAR_TOP")
    box = next(row for row in tables.annotations[sample] if row["next"])
    lost, left = {
        "ego_pose": (lidar["ego_pose_token"], count - 1),
        "calibrated_sensor": (lidar["calibrated_sensor_token"], 0),
        "sample_data": (lidar["prev"], count - 1),
        "instance": (box["instance_token"], count - 2),
        "sample_annotation": (box["next"], count - 1),
    }[table]
    edit(copy, table, lambda rows: rows.remove(tables.row(table, lost)))
    with pytest.raises(ValueError, match=f"NuScenes: expected row {lost} in the table {table}, got none"):
        NuScenes(copy, "train", sweeps=2)
    with pytest.warns(UserWarning, match=f"left out {count - left}; the first: expected row {lost}"):
        found = NuScenes(copy, "train", sweeps=2, malformed="skip")
    assert [s.token for s in found.samples] == [s.token for s in before.samples][count - left :]


@pytest.mark.parametrize("kind", ["cloud", "numbers", "picture", "gone"])
def test_files_that_cannot_be_read_are_named_or_replaced(copy, kind):
    """In training, once per file; ``samples`` names them always."""
    dataset = NuScenes(copy, "train")
    path = dataset.samples[1].views[3].path if kind == "picture" else dataset.samples[1].sweeps[0].path
    content = path.read_bytes()
    path.write_bytes(content[: {"cloud": -2, "numbers": -4, "picture": len(content) // 2, "gone": 0}[kind]])
    if kind == "gone":
        path.unlink()
    loaded = {how: BEVData(dataset, SIZE, max_points=100, unreadable=how) for how in ("raise", "skip")}
    with pytest.raises(UnreadablePicture, match=path.name):
        loaded["raise"].training_batch(0, 0, 4)
    with pytest.warns(UserWarning, match=path.name) as told:
        batches = [loaded["skip"].training_batch(0, step, 4) for step in range(2)]
    assert len(told) == 1 and all(len(batch.points) == 4 for batch in batches)
    with pytest.raises(UnreadablePicture, match=path.name):
        loaded["skip"].samples([1])


def test_objects_without_points_are_left_out(copy):
    edit(copy, "sample_annotation", lambda rows: [row.update(num_lidar_pts=0) for row in rows])
    assert all(len(sample.boxes) == 0 for sample in NuScenes(copy, "train").samples)
    assert len(NuScenes(copy, "train", filled=True)) == 0


def test_racks(copy):
    """A rack is where the box is whose annotation it takes, and as large."""
    name = "static_object.bicycle_rack"
    edit(copy, "category", lambda rows: rows.append({**rows[0], "token": "racks", "name": name}))
    edit(copy, "instance", lambda rows: rows.append({**rows[0], "token": "rack", "category_token": "racks"}))
    before = NuScenes(copy, "train").samples[0]
    token = before.token

    def add(rows):
        row = next(row for row in rows if row["sample_token"] == token and row["num_lidar_pts"])
        rows.append({**row, "token": "rack", "instance_token": "rack"})

    edit(copy, "sample_annotation", add)
    sample = NuScenes(copy, "train").samples[0]
    assert np.array_equal(sample.boxes, before.boxes) and len(sample.racks) == 1 and len(before.racks) == 0
    x, y, z, length, w, _, yaw = sample.boxes[0, :7].astype(float)
    ahead = np.array([np.cos(yaw), np.sin(yaw)])
    front, left = [x, y] + length / 2 * ahead, [x, y] + w / 2 * ahead[::-1] * [-1, 1]
    own = [sample.racks[0] @ [*place, z, 1] for place in ([x, y], front, left)]
    np.testing.assert_allclose(own, [[0, 0, 0], [1, 0, 0], [0, 1, 0]], atol=1e-5)


def test_batches(root):
    data = BEVData(NuScenes(root, "train", sweeps=2), (8, 20), max_points=300)
    batch = data.samples([0, 1, 2])
    assert batch.points.shape == (3, 300, 5) and batch.pictures.shape == (3, 6, 3, 8, 20)
    assert batch.points[..., 3].max() <= 1 and batch.counts.tolist() == [300] * 3
    assert torch.equal(batch.points, data.samples([0, 1, 2]).points)
    # a point in the LiDAR's frame is at the same share of the smaller picture, counted from its edge
    view = data.dataset.samples[0].views[0]
    point = np.array([12.0, 2.0, -0.5, 1.0])
    large, small = view.matrix @ view.from_lidar[:3] @ point, batch.to_pixels[0, 0].double().numpy() @ point
    shares = [((p[:2] / p[2] + 0.5) / [w, h]) for p, (h, w) in ((large, SIZE), (small, (8, 20)))]
    np.testing.assert_allclose(*shares, rtol=1e-5)


def test_augmentation_moves_all_alike(root):
    """What a moved camera sees of a moved point is what the camera saw of the point; points in a box stay in it."""
    data = BEVData(NuScenes(root, "train"), SIZE, max_points=2000)
    item = data._item(0)
    for angle, scale, flips in ((0.3, 1.1, (1.0, 1.0)), (-0.2, 0.9, (-1.0, 1.0)), (0.1, 1.0, (1.0, -1.0))):
        other = moved(item, angle, scale, flips)
        seen, again = (
            np.einsum("nij,pj->npi", x.to_pixels, np.concatenate([x.points[:, :3], np.ones((len(x.points), 1))], 1))
            for x in (item, other)
        )
        np.testing.assert_allclose(again, seen, rtol=1e-3, atol=1e-2)
        for before, after in zip(item.boxes, other.boxes, strict=True):
            inside = [_inside(x.points, box, s) for x, box, s in ((item, before, 1.0), (other, after, scale))]
            assert np.array_equal(*inside)
            assert np.hypot(*after[7:]) == pytest.approx(scale * np.hypot(*before[7:]), rel=1e-4, abs=1e-5)
            if np.hypot(*before[7:]) > 0.1:  # what moves ahead still does
                ahead = np.array([np.cos(after[6]), np.sin(after[6])])
                assert after[7:] @ ahead == pytest.approx(np.hypot(*after[7:]), rel=1e-3)


def _inside(points, box, scale):
    cos, sin = np.cos(box[6]), np.sin(box[6])
    own = (points[:, :3] - box[:3]) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return (np.abs(own) <= box[3:6] / 2 + 0.03 * scale).all(1)


def test_augment_draws_from_its_generator():
    scene = make_scene(0, 1, 0, SPARSE)
    item = BEVDataItem(scene)
    first, again, other = (Augment()(item, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first.boxes, again.boxes) and not np.array_equal(first.boxes, other.boxes)


def BEVDataItem(scene):
    from pydistill.recipes.bev.data import Item

    return Item(scan(scene, scene.boxes, SPARSE), [], np.zeros((6, 3, 4)), scene.boxes, scene.labels)
