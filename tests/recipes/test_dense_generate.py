"""Generated scenes on disk."""

import json

import numpy as np
import pytest

from pydistill.recipes.dense import generate
from pydistill.recipes.dense.coco import CocoDataset
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.scenes import Difficulty, generate_scene

CROWDED = Difficulty(objects=(5, 5), near=1, covered=0.95)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("dense"), 3, train=5, test=3, classes=6, difficulty=CROWDED)


def content(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("split", "count"), [("train", 5), ("val", 3)])
def test_the_reader_finds_what_was_drawn(root, split, count):
    data = CocoDataset(root, split)
    assert len(data) == count and data.classes == ("0", "1", "2", "3", "4", "5")
    crowds = 0
    for index in range(count):
        scene = generate_scene(3, index, split, 6, CROWDED)
        boxes, labels, crowd = data.target(index)
        np.testing.assert_allclose(boxes, [digit.box for digit in scene.digits], rtol=0, atol=0.011)
        assert labels.tolist() == [digit.label for digit in scene.digits]
        assert crowd.tolist() == [digit.hidden > 0.4 for digit in scene.digits]
        crowds += crowd.sum()
        noise = data.picture(index).astype(float) - scene.picture  # of JPEG
        assert np.sqrt(np.mean(noise**2)) < 12
        for annotation, box in zip(data.annotations(index), boxes):
            assert annotation.area == pytest.approx(np.prod(box[2:] - box[:2]), rel=2e-3)
    assert crowds


def test_files_depend_on_arguments_only(root, tmp_path):
    first = write_coco(tmp_path / "first", 3, 5, 3, classes=6, difficulty=CROWDED, workers=1)
    assert first == tmp_path / "first" and content(first) == content(root)
    for options in (dict(seed=4), dict(classes=5), dict(difficulty=None)):
        arguments = dict(seed=3, train=5, test=3, classes=6, difficulty=CROWDED) | options
        before = content(first)
        write_coco(first, **arguments)
        assert content(first) != before  # replaced


def test_complete_folders_are_left_alone_and_incomplete_ones_are_not(tmp_path, monkeypatch):
    write_coco(tmp_path, 3, train=2, test=1)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(generate, "generate_scene", None)
        write_coco(tmp_path, 3, train=2, test=1)
        assert content(tmp_path) == before
        with pytest.raises(TypeError):
            write_coco(tmp_path, 3, train=3, test=1)
    assert json.loads((tmp_path / "generated.json").read_text())["complete"] is False
    write_coco(tmp_path, 3, train=2, test=1)
    assert content(tmp_path) == before


def test_wrong_arguments(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(FileExistsError, match="write_coco: expected an empty folder or one generated before, got"):
        write_coco(tmp_path, 3, train=1, test=1)
    for classes in (0, 11):
        with pytest.raises(ValueError, match=f"write_coco: expected 1 to 10 classes, got {classes}"):
            write_coco(tmp_path / "new", 3, train=1, test=1, classes=classes)
