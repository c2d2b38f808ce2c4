"""Average precision: cases with known answers, and pycocotools on files."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pydistill.recipes.dense.coco import CocoDataset
from pydistill.recipes.dense.metric import METRICS, Detections, coco_scores
from tests.recipes.dense import write_dataset

TRUTH = [
    (1, 5, (10, 10, 20, 20), 0),
    (1, 9, (50, 50, 40, 40), 0),
    (2, 5, (5, 5, 20, 20), 0),
    (2, 9, (40, 8, 40, 40), 0),
]


@pytest.fixture
def data(tmp_path):
    root = write_dataset(tmp_path, [(100, 100)] * 3, TRUTH, categories=((9, "b"), (5, "a")))
    return CocoDataset(root, "val")


def found(boxes, labels, scores=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.full(len(boxes), 0.5) if scores is None else np.array(scores)
    return Detections(boxes, scores.astype(np.float32), np.array(labels, np.int64))


def right(data, index, move=0.0):
    """The truth of a picture, moved to the right by a share of its width."""
    boxes, labels, _ = data.target(index)
    width = boxes[:, 2:3] - boxes[:, :1]
    return found(boxes + np.array([1, 0, 1, 0], np.float32) * width * move, labels)


def scores(data, detections, indices=(0, 1)):
    return coco_scores(data, indices, detections)


def test_perfect(data, capsys):
    result = scores(data, [right(data, 0), right(data, 1)])
    assert tuple(result) == METRICS
    assert [result[name] for name in METRICS[:5]] == pytest.approx([1, 1, 1, 1, 1]) and math.isnan(result["ap_large"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("move", "passed"), [(0.1, 7), (0.2, 4), (0.3, 1), (0.4, 0)])
def test_shifted(data, move, passed):
    """A box moved by a share m of its width has IoU (1 - m) / (1 + m): 0.82, 0.67, 0.54, 0.43."""
    result = scores(data, [right(data, 0, move), right(data, 1, move)])
    assert result["ap"] == pytest.approx(passed / 10)
    assert result["ap50"] == (passed > 0) and result["ap75"] == (passed > 5)


def test_classes_are_counted_apart(data):
    wrong = [found(d.boxes, 1 - d.labels) for d in (right(data, 0), right(data, 1))]
    assert scores(data, wrong)["ap"] == 0
    half = [found(d.boxes, 0 * d.labels) for d in (right(data, 0), right(data, 1))]  # a right; b nowhere
    both = scores(data, half)
    # Of class "a" two are right and two are not; all scores are alike, so that the order is that of the list.
    assert both["ap50"] == pytest.approx(np.mean([0.0, _ap([True, False, True, False])]))


def _ap(right, count=2):
    """Average precision at 101 recalls of detections in the order of their scores."""
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    recall = np.cumsum(right) / count
    return np.mean([max(precision[recall >= r - 1e-9], default=0) for r in np.linspace(0, 1, 101)])


def test_a_false_alarm_costs_by_its_score(data):
    alarm = [[0, 80, 10, 95]]
    for score, order in ((0.9, [False, True, True]), (0.1, [True, True, False])):
        first = right(data, 0)
        boxes, labels = np.concatenate([first.boxes, alarm]), [*first.labels, 0]
        result = scores(data, [found(boxes, labels, [0.5, 0.5, score]), right(data, 1)])
        assert result["ap50"] == pytest.approx((_ap(order) + 1) / 2)


def test_missed_and_empty(data):
    none = found([], [])
    assert scores(data, [none, none])["ap"] == 0
    half = scores(data, [right(data, 0), none])
    assert half["ap50"] == pytest.approx(_ap([True]))  # of each class one of two: 51 of 101 recalls
    only = scores(data, [right(data, 0)], [0])
    assert only["ap"] == pytest.approx(1)  # the other pictures do not count
    assert all(math.isnan(value) for value in scores(data, [none], [2]).values())


def test_crowd_boxes_are_neither_right_nor_wrong(tmp_path):
    crowd = [(1, 5, (10, 10, 20, 20), 0), (1, 5, (50, 50, 40, 40), 1)]
    data = CocoDataset(write_dataset(tmp_path, [(100, 100)], crowd, categories=((5, "a"),)), "val")
    truth = [[10, 10, 30, 30]]
    inside = found([*truth, [50, 50, 70, 70], [60, 60, 80, 80]], [0, 0, 0], [0.1, 0.9, 0.8])
    assert coco_scores(data, [0], [inside])["ap"] == pytest.approx(1)
    outside = found([*truth, [0, 50, 20, 70]], [0, 0], [0.1, 0.9])
    assert coco_scores(data, [0], [outside])["ap"] == pytest.approx(0.5)


def test_numbers_are_those_of_pycocotools_on_files(tmp_path):
    rng = np.random.default_rng(0)
    place = lambda: [*rng.uniform(0, 60, 2), *rng.uniform(8, 140, 2)]  # noqa: E731
    truth = [(i, int(rng.integers(1, 4)), place(), int(rng.random() < 0.1)) for i in range(1, 9) for _ in range(5)]
    categories = ((1, "a"), (2, "b"), (3, "c"))
    root = write_dataset(tmp_path, [(200, 200)] * 8, truth, categories=categories)
    data = CocoDataset(root, "val")
    detections = []
    for index in range(8):
        boxes, labels, _ = data.target(index)
        boxes = np.concatenate([boxes + rng.normal(0, 4, boxes.shape), rng.uniform(0, 60, (3, 4)) + [0, 0, 70, 70]])
        detections.append(found(boxes, [*labels, 0, 1, 2], rng.random(len(boxes))))
    listed = [
        {
            "image_id": index + 1, "category_id": int(label) + 1, "score": float(score),
            "bbox": [float(box[0]), float(box[1]), float(box[2]) - float(box[0]), float(box[3]) - float(box[1])],
        }
        for index, d in enumerate(detections) for box, score, label in zip(d.boxes, d.scores, d.labels)
    ]  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(listed))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(root / "annotations" / "instances_val.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "found.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    result = coco_scores(data, range(8), detections)
    assert 0.05 < result["ap"] < 0.9
    assert list(result.values()) == pytest.approx(list(evaluation.stats[:6]), rel=1e-12)


def test_errors(data):
    with pytest.raises(ValueError, match="coco_scores: expected detections of 2 pictures, got 1"):
        scores(data, [right(data, 0)])
    with pytest.raises(ValueError, match=r"coco_scores: expected labels in 0\.\.1, got 2\.\.2"):
        scores(data, [found([[0, 0, 1, 1]], [2]), right(data, 1)])
    with pytest.raises(ValueError, match=r"Detections: expected shapes \[k, 4\], \[k\] and \[k\], got \[1, 4\]"):
        Detections(np.zeros((1, 4), np.float32), np.zeros(2, np.float32), np.zeros(1, np.int64))
