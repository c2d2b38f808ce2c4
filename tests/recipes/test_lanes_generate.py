"""Generated data sets on disk: layouts, repetition, interrupted writes, disk errors."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pydistill.recipes.lanes import culane, datasets, generate
from pydistill.recipes.lanes.generate import write_culane, write_tusimple
from pydistill.recipes.lanes.lists import read_list
from pydistill.recipes.lanes.road import CULANE, SIZE
from pydistill.recipes.lanes.scenes import CATEGORIES, generate_scene
from pydistill.recipes.lanes.tusimple import assign_classes, read_labels

WRITERS = (write_tusimple, write_culane)


@pytest.fixture(scope="module")
def tusimple(tmp_path_factory):
    return write_tusimple(tmp_path_factory.mktemp("tusimple"), seed=3, train=6, test=2)


@pytest.fixture(scope="module")
def cu(tmp_path_factory):
    return write_culane(tmp_path_factory.mktemp("culane"), 3, train=9, test=9, categories=list(CATEGORIES))


def content(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_tusimple_layout(tusimple):
    lines = [json.loads(line) for line in (tusimple / "label_data_0313.json").read_text().splitlines()]
    test = [json.loads(line) for line in (tusimple / "test_label.json").read_text().splitlines()]
    assert len(lines) == 6 and len(test) == 2
    for line in lines + test:
        assert set(line) == {"lanes", "h_samples", "raw_file"}
        date, name = line["raw_file"].split("/")[1], line["raw_file"].rsplit("/", 1)[1]
        assert line["raw_file"].startswith("clips/") and date == "0313" and name == "20.jpg"
        assert cv2.imread(str(tusimple / line["raw_file"])).shape == (*SIZE, 3)
        assert line["h_samples"] == list(range(160, 720, 10))
        assert 2 <= len(line["lanes"]) <= 4
        assert all(len(lane) == 56 and all(x == -2 or 0 <= x < 1280 for x in lane) for lane in line["lanes"])
    assert not {line["raw_file"] for line in lines} & {line["raw_file"] for line in test}
    named = json.loads((tusimple / "categories.json").read_text())
    assert list(named) == [line["raw_file"] for line in lines + test]
    assert set(named.values()) <= set(CATEGORIES) - {"crossroad"}


def test_tusimple_classes_are_in_order(tusimple):
    for record in read_labels([tusimple / "label_data_0313.json"]):
        tops = [next(x for x in lane if x >= 0) for lane in record.lanes]
        found = assign_classes(record)
        assert [points[0, 0] for _, points in sorted(found.items())] == tops and {2, 3} <= set(found)


def test_culane_layout(cu):
    train, val = (read_list(cu / "list" / f"{name}_gt.txt") for name in ("train", "val"))
    test = [entry.picture for entry in read_list(cu / "list/test.txt")]
    assert (len(train), len(val), len(test)) == (9, 1, 9)
    assert len({entry.picture for entry in train + val} | set(test)) == 19
    assert all(line.startswith("/") for line in (cu / "list/test.txt").read_text().splitlines())
    for picture in test + [entry.picture for entry in train + val]:
        assert Path(picture).match("driver_*_*frame/*.MP4/*.jpg")
        assert cv2.imread(str(cu / picture)).shape == (*CULANE.picture, 3)
    for (name, category), picture in zip(culane.CATEGORIES.items(), test):
        assert category in CATEGORIES
        assert (cu / "list/test_split" / f"{name}.txt").read_text() == f"{picture}\n"


def test_culane_lanes_and_classes(cu):
    for entry, category in zip(read_list(cu / "list/train_gt.txt"), CATEGORIES):
        lanes = culane.read_lines(cu / Path(entry.picture).with_suffix(".lines.txt"))
        label = cv2.imread(str(cu / entry.label), cv2.IMREAD_UNCHANGED)
        assert label.shape == CULANE.picture and label.dtype == np.uint8
        present = [lane for lane in range(1, 5) if entry.existence[lane - 1]]
        assert set(np.unique(label)) == {0, *present} and len(lanes) == len(present)
        assert (category == "crossroad") == (not lanes)
        for lane, points in zip(present, lanes):
            x, y = points.T
            assert (np.diff(y) == -10).all() and y[0] <= 590 and (y % 10 == 0).all()
            inside = (x >= 0) & (x < 1635) & (y < 590)
            column, row = np.round(x[inside] / 5).astype(int), np.round(y[inside] / 5).astype(int)
            assert np.mean(label[row, column] == lane) > 0.9  # lanes meet far away
            middle = label[(label.shape[0] * 3) // 4]
            if (middle == lane).any():
                assert 2 <= (middle == lane).sum() <= 20  # 3 pixels across, more along the row


def test_culane_is_read_as_it_was_drawn(cu):
    data = datasets.CULane(cu)
    for index, category in enumerate(CATEGORIES):
        scene = generate_scene(3, index, category, CULANE)
        label, existence = data.label(index, CULANE.picture, 16)
        assert existence.tolist() == [float(lane in scene.lanes) for lane in range(1, 5)]
        assert set(np.unique(label)) == {0, *scene.lanes}
        noise = data.picture(index).astype(np.float64) - scene.picture  # of JPEG
        assert np.sqrt(np.mean(noise**2)) < 12
        for lane, (_, points) in zip(data.lanes(index), sorted(scene.lanes.items()), strict=True):
            np.testing.assert_allclose(lane, points[::-1], rtol=1e-6)


def test_culane_truth_scores_one_against_itself(cu):
    scores = culane.score_categories(cu, cu)
    for category, counts in scores.items():
        if category == "crossroad":
            assert counts == culane.Counts()
        else:
            assert counts.true_positive >= 2 and counts.f1 == 1


@pytest.mark.parametrize("write", WRITERS)
def test_files_depend_on_arguments_only(write, tmp_path):
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    assert write(first, 3, train=3, test=2) == first
    write(second, 3, train=3, test=2, workers=2)
    assert content(first) == content(second)
    write(other, 4, train=3, test=2)
    assert content(first).keys() >= {path for path in content(other) if path.suffix == ".jpg"}
    assert content(first) != content(other)


@pytest.mark.parametrize("write", WRITERS)
def test_complete_folders_are_left_alone(write, tmp_path, monkeypatch):
    write(tmp_path, 3, train=2, test=1)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(generate, "generate_scene", None)
        write(tmp_path, 3, train=2, test=1)
    assert content(tmp_path) == before
    write(tmp_path, 3, train=2, test=1, categories=["night", "curve"])
    assert content(tmp_path) != before


@pytest.mark.parametrize("write", WRITERS)
def test_an_interrupted_write_is_done_again(write, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write(whole, 3, train=3, test=1)
    with monkeypatch.context() as patch:
        calls = iter(range(3))
        draw = generate.generate_scene
        patch.setattr(generate, "generate_scene", lambda *arguments: (next(calls), draw(*arguments))[1])
        with pytest.raises((StopIteration, RuntimeError)):
            write(broken, 3, train=3, test=1)
    assert json.loads((broken / "generated.json").read_text())["complete"] is False
    write(broken, 3, train=3, test=1)
    assert content(broken) == content(whole)
    (broken / "generated.json").write_text("")  # as a full disk leaves it
    write(broken, 3, train=3, test=1)
    assert content(broken) == content(whole)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("write", "name"), [(write_tusimple, "test_label.json"), (write_culane, "list/test_split/test8_night.txt")]
)
def test_a_full_disk_names_the_file(write, name, tmp_path):
    (tmp_path / "generated.json").write_text("{}")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match=name) as caught:
        write(tmp_path, 3, train=1, test=1)
    assert "No space left" in str(caught.value)
    assert json.loads((tmp_path / "generated.json").read_text())["complete"] is False


@pytest.mark.parametrize("write", WRITERS)
def test_arguments_are_checked(write, tmp_path):
    (tmp_path / "list").mkdir()
    with pytest.raises(FileExistsError, match="expected an empty folder or one generated before, got"):
        write(tmp_path, 3, train=1, test=1)
    for categories in (["fog"], []):
        with pytest.raises(ValueError, match="expected categories of normal, .*, got"):
            write(tmp_path / "new", 3, train=1, test=1, categories=categories)
    assert not (tmp_path / "new").exists()
