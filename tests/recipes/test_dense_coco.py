"""The reader of COCO's layout."""

import json
import warnings

import numpy as np
import pytest

from pydistill.recipes.dense.coco import CocoDataset
from pydistill.recipes.pictures import UnreadablePicture
from tests.recipes.dense import write_dataset

BOXES = [
    (1, 90, (2, 3, 20, 10), 0),
    (1, 7, (5, 5, 10, 10), 1),
    (3, 18, (-4, 2, 10, 8), 0),
    (3, 7, (30, 5, 0, 4), 0),
    (3, 7, (30, 5, 4, -4), 0),
    (3, 7, (100, 5, 4, 4), 0),
    (3, 7, (30, 5, 0.9, 4), 0),
    (3, 7, (39.5, 20, 9, 4), 0),
]
CATEGORIES = ((90, "toothbrush"), (7, "train"), (18, "dog"))


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path, [(30, 40), (20, 20), (30, 41)], BOXES, categories=CATEGORIES)


def edit(root, change, split="val"):
    file = root / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_targets(root):
    data = CocoDataset(root, "val")
    assert len(data) == 3 and [data.image_id(i) for i in range(3)] == [1, 2, 3] and data.name(1) == "2.png"
    assert data.classes == ("train", "dog", "toothbrush") and data.categories == (7, 18, 90)
    boxes, labels, crowd = data.target(0)
    assert boxes.tolist() == [[2, 3, 22, 13], [5, 5, 15, 15]] and boxes.dtype == np.float32
    assert labels.tolist() == [2, 0] and labels.dtype == np.int64
    assert crowd.tolist() == [False, True] and crowd.dtype == np.bool_
    boxes, labels, crowd = data.target(1)
    assert boxes.shape == (0, 4) and labels.shape == crowd.shape == (0,)
    boxes, labels, _ = data.target(2)  # clipped, and without what is below a pixel
    assert boxes.tolist() == [[0, 2, 6, 10], [39.5, 20, 41, 24]] and labels.tolist() == [1, 0]
    assert [a.box for a in data.annotations(2)] == [tuple(map(float, box)) for _, _, box, _ in BOXES[2:]]
    assert data.picture(2).shape == (30, 41, 3) and (data.picture(2) == 120).all()


def test_filled(root):
    assert [CocoDataset(root, "val", filled=True).image_id(i) for i in range(2)] == [1, 3]
    edit(root, lambda c: c.update(annotations=[a | {"iscrowd": 1} for a in c["annotations"] if a["id"] < 3]))
    with pytest.raises(ValueError, match="expected at least one picture in .*, got none"):
        CocoDataset(root, "val", filled=True)


@pytest.mark.parametrize("folder", ["train2017", "images/train2017"])
def test_the_layout_of_coco(tmp_path, folder):
    root = write_dataset(tmp_path, [(30, 40)], [(1, 7, (1, 2, 3, 4), 0)], split="train2017", categories=CATEGORIES)
    if folder != "train2017":
        (root / "images").mkdir()
        (root / "train2017").rename(root / folder)

    def change(content):  # fields that COCO has and we do not use
        content["info"] = {"year": 2017}
        content["annotations"][0] |= {"segmentation": [[1, 2, 3, 4, 5, 6]], "area": 5.5}
        content["categories"][0]["supercategory"] = "indoor"

    edit(root, change, "train2017")
    for split in ("train", "train2017"):
        data = CocoDataset(root, split)
        assert data.target(0)[0].tolist() == [[1, 2, 4, 6]] and data.picture(0).shape == (30, 40, 3)
        assert data.annotations(0)[0].area == 5.5
    with pytest.raises(FileNotFoundError, match="expected .*instances_val.json or .*instances_val2017.json, got none"):
        CocoDataset(root, "val")


def _without(kind, number, key):
    return lambda content: content[kind][number].pop(key)


def _with(kind, number, **values):
    return lambda content: content[kind][number].update(values)


@pytest.mark.parametrize(
    ("change", "message", "left"),
    [
        (_without("images", 0, "file_name"), "expected images with id and file_name in", (2, 0)),
        (_with("images", 1, id="2"), "expected images with id and file_name in", (2, 2)),
        (_with("images", 1, id=1), "expected each image once in", (2, 2)),
        (_with("images", 1, file_name="gone.png"), "gone.png of .*, image 2, got no such file", (2, 2)),
        (_with("annotations", 0, category_id=8), "a category of the file in", (3, 1)),
        (_with("annotations", 0, bbox=[1, 2, 3]), "bbox of four numbers", (3, 1)),
        (_with("annotations", 0, bbox=[1, 2, 3, float("nan")]), "bbox of four numbers", (3, 1)),
        (_with("annotations", 0, bbox=[1, 2, 3, "4"]), "bbox of four numbers", (3, 1)),
        (_without("annotations", 0, "bbox"), "bbox of four numbers", (3, 1)),
        (_with("annotations", 0, image_id=77), "expected annotations of images of the file", (3, 1)),
        (lambda content: content["annotations"].insert(0, [1]), "expected annotations with id", (3, 2)),
    ],
)
def test_malformed(root, change, message, left):
    edit(root, change)
    with pytest.raises((ValueError, FileNotFoundError), match=f"CocoDataset: .*{message}"):
        CocoDataset(root, "val")
    with pytest.warns(UserWarning, match=f"CocoDataset: left out 1; the first: .*{message}"):
        data = CocoDataset(root, "val", malformed="skip")
    first = [i for i in range(len(data)) if data.image_id(i) == 1]
    assert (len(data), sum(len(data.annotations(i)) for i in first)) == left


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "expected a list of images in"),
        (_without("categories", 0, "name"), "expected categories with id and name in"),
        (_with("categories", 0, id=7), "expected each category once in"),
        (lambda c: c.update(categories=[]), "expected at least one category in"),
        (lambda c: c.update(images=[], annotations=[]), "expected at least one picture in"),
    ],
)
@pytest.mark.parametrize("malformed", ["raise", "skip"])
def test_files_that_are_always_refused(root, change, message, malformed):
    edit(root, change)
    with pytest.raises(ValueError, match=f"CocoDataset: {message}"):
        CocoDataset(root, "val", malformed=malformed)


def test_no_json_and_no_picture(root):
    (root / "val" / "2.png").write_bytes(b"abc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = CocoDataset(root, "val")
    with pytest.raises(UnreadablePicture, match=r"2.png of .*instances_val.json, image 2, got 3 bytes"):
        data.picture(1)
    (root / "annotations" / "instances_val.json").write_text("{")
    with pytest.raises(ValueError, match="CocoDataset: expected JSON in .*instances_val.json, got: "):
        CocoDataset(root, "val", malformed="skip")
    with pytest.raises(ValueError, match="expected malformed to be raise or skip"):
        CocoDataset(root, "val", malformed="ignore")
