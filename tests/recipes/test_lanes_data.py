"""Scenes, the TuSimple layout, labels."""

import json

import cv2
import numpy as np
import pytest

from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.road import FRAME, H_SAMPLES, NONE, SIZE, Road
from pydistill.recipes.lanes.scenes import generate_scene


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tusimple(tmp_path_factory.mktemp("lanes"), seed=3, train=6, test=2)


def test_scene_is_a_function_of_seed_and_index():
    first, again = generate_scene(1, 5), generate_scene(1, 5)
    assert first.picture.shape == (*SIZE, 3) and first.picture.dtype == np.uint8
    assert np.array_equal(first.picture, again.picture) and first.lanes == again.lanes
    for other in (generate_scene(1, 6), generate_scene(2, 5)):
        assert not np.array_equal(first.picture, other.picture) and first.lanes != other.lanes


def test_lanes_follow_the_projection():
    road = Road(offset=0.3, heading=0.01, bend=0.002, horizon=250)
    rows = np.array([700.0, 400.0], np.float32)
    depth = 1000 * 1.5 / (rows - 250.0)
    expected = 640 + 1000 * (0.3 + 0.01 * depth + 0.001 * depth**2 + 1.8) / depth
    np.testing.assert_allclose(road.column(1.8, road.depth(rows)), expected, rtol=1e-5)


def test_scenes_have_two_to_four_lanes_in_the_frame():
    counts = set()
    for index in range(40):
        lanes = generate_scene(0, index).lanes
        counts.add(len(lanes))
        for lane in lanes:
            assert len(lane) == len(H_SAMPLES)
            assert all(x == NONE or 0 <= x < FRAME[1] for x in lane)
    assert counts == {2, 3, 4}


def test_paint_lies_where_the_label_says():
    """Over many scenes, the label's pixels are brighter than the road 0.6 metres beside them."""
    on, beside = [], []
    for index in range(20):
        scene = generate_scene(0, index)
        grey = scene.picture.mean(2)
        for lane in scene.lanes:
            for x, y in list(zip(lane, H_SAMPLES))[-25:]:
                column, row, shift = x // 4, y // 4, round(0.6 * (y - 250) / 1.5 / 4)
                if x >= 0 and column - shift >= 0 and column + shift < SIZE[1]:
                    on.append(grey[row, column])
                    beside.append((grey[row, column - shift] + grey[row, column + shift]) / 2)
    assert np.mean(on) > 1.15 * np.mean(beside)


def test_layout(root):
    lines = [json.loads(line) for line in (root / "label_data_0313.json").read_text().splitlines()]
    test = [json.loads(line) for line in (root / "test_label.json").read_text().splitlines()]
    assert len(lines) == 6 and len(test) == 2
    for line in lines + test:
        assert set(line) == {"lanes", "h_samples", "raw_file"}
        date, name = line["raw_file"].split("/")[1], line["raw_file"].rsplit("/", 1)[1]
        assert line["raw_file"].startswith("clips/") and date == "0313" and name == "20.jpg"
        assert cv2.imread(str(root / line["raw_file"])).shape == (*SIZE, 3)
        assert line["h_samples"] == list(range(160, 720, 10))
    assert not {line["raw_file"] for line in lines} & {line["raw_file"] for line in test}


def test_workers_do_not_change_the_files(root, tmp_path):
    other = write_tusimple(tmp_path, seed=3, train=6, test=2, workers=2)
    for path in sorted(root.rglob("*.*")):
        assert path.read_bytes() == (other / path.relative_to(root)).read_bytes()


def test_mirror_swaps_lanes_and_existence(root):
    data = LaneData(root, ["label_data_0313.json"], (96, 160))
    existence = data.batch(range(6)).existence
    uneven = next(i for i in range(6) if not existence[i].equal(existence[i].flip(0)))
    plain, mirrored = data.batch([uneven, 1]), data.batch([uneven, 1], [True, False])
    assert plain.pictures[1].equal(mirrored.pictures[1]) and plain.labels[1].equal(mirrored.labels[1])
    assert mirrored.pictures[0].equal(plain.pictures[0].flip(-1))
    assert mirrored.existence[0].equal(plain.existence[0].flip(0))
    for lane in range(1, 5):
        assert (mirrored.labels[0] == lane).equal((plain.labels[0] == 5 - lane).flip(-1))


def test_pictures_are_normalised_rgb(root):
    data = LaneData(root, ["test_label.json"], SIZE)
    blue = data.original(0)[..., 0].astype(np.float64)
    np.testing.assert_allclose(data.batch([0]).pictures[0, 2], (blue / 255 - 0.3662) / 0.2756, rtol=0, atol=1e-5)


def test_training_batches(root):
    data = LaneData(root, ["label_data_0313.json"], (48, 80))
    again = data.training_batch(7, 4, 2)
    assert data.training_batch(7, 4, 2).pictures.equal(again.pictures)
    assert not data.training_batch(8, 4, 2).pictures.equal(again.pictures)
    seen = [{p.flatten().sort().values.sum().item() for p in data.training_batch(0, s, 2).pictures} for s in range(3)]
    assert len(set().union(*seen)) == 6  # an epoch shows every picture once
    with pytest.raises(ValueError, match="at least 7 pictures for one batch, got 6"):
        data.training_batch(0, 0, 7)


def test_missing_picture(root, tmp_path):
    (tmp_path / "label.json").write_text((root / "test_label.json").read_text())
    with pytest.raises(FileNotFoundError, match="expected a picture, got"):
        LaneData(tmp_path, ["label.json"], (48, 80))
