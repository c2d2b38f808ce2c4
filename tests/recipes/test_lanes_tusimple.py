"""TuSimple's label files: lanes, their classes, segmentation labels; its prediction files."""

import json

import numpy as np
import pytest

from pydistill.recipes.lanes.road import H_SAMPLES
from pydistill.recipes.lanes.tusimple import (
    Record,
    assign_classes,
    draw_label,
    prediction_line,
    read_labels,
    score_file,
)
from tests.golden import golden


def _record(*lanes):
    return Record("x", [100, 200, 300, 400, 500, 600, 700], [list(lane) for lane in lanes])


LEFT = (600, 500, 400, 300, 200, 100, 0)
NEAR_LEFT = (620, 580, 540, 500, 460, 420, 380)
NEAR_RIGHT = (660, 700, 740, 780, 820, 860, 900)
RIGHT = (680, 780, 880, 980, 1080, 1180, 1270)


def test_classes_from_left_to_right():
    found = assign_classes(_record(RIGHT, LEFT, NEAR_RIGHT, NEAR_LEFT))
    bottoms = {lane: points[-1, 0] for lane, points in found.items()}
    assert bottoms == {1: 0, 2: 380, 3: 900, 4: 1270}


def test_classes_stay_beside_the_ego_lane():
    assert set(assign_classes(_record(NEAR_RIGHT, RIGHT))) == {3, 4}
    assert set(assign_classes(_record(NEAR_LEFT))) == {2}
    vertical = (640,) * 7  # 90 degrees is still left
    assert set(assign_classes(_record(vertical, NEAR_RIGHT))) == {2, 3}
    farther = (590, 400, 200, 0, -2, -2, -2)  # a third lane on the left has no class
    found = assign_classes(_record(farther, LEFT, NEAR_LEFT, NEAR_RIGHT))
    assert {lane: points[0, 0] for lane, points in found.items()} == {1: 600, 2: 620, 3: 660}


def test_lanes_of_three_points_are_left_out():
    assert assign_classes(_record((-2, -2, -2, -2, 460, 420, 380))) == {}
    assert set(assign_classes(_record((-2, -2, -2, 500, 460, 420, 380)))) == {2}


def test_label_lies_on_the_lane():
    label, existence = draw_label(_record(NEAR_LEFT, NEAR_RIGHT), (144, 256), line_width=25)
    assert existence.tolist() == [0, 1, 1, 0]
    assert set(np.unique(label)) == {0, 2, 3}
    for lane, xs in ((2, NEAR_LEFT), (3, NEAR_RIGHT)):
        for x, y in zip(xs, range(100, 701, 100)):
            assert label[y // 5, x // 5] == lane
        for row in range(40, 130, 10):
            assert 4 <= (label[row] == lane).sum() <= 8  # 25 / 5 pixels across, a little more along the row


def _line(**changes):
    line = {"raw_file": "clips/0313-1/60/20.jpg", "h_samples": [240, 250, 260], "lanes": [[1, 2, -2], [-2, 5, 6]]}
    line.update(changes)
    return json.dumps({key: value for key, value in line.items() if value is not None})


def test_labels(tmp_path):
    files = [tmp_path / f"label_data_{date}.json" for date in ("0313", "0601")]
    files[0].write_text(f"{_line()}\n\n{_line(lanes=[])}\n")
    files[1].write_text(_line(raw_file="clips/0601/1/20.jpg"))
    records = read_labels(files)
    assert records[0] == Record("clips/0313-1/60/20.jpg", [240, 250, 260], [[1, 2, -2], [-2, 5, 6]])
    assert [record.source for record in records] == [
        f"{files[0]}, line 1",
        f"{files[0]}, line 3",
        f"{files[1]}, line 1",
    ]
    assert records[1].lanes == [] and records[2].raw_file == "clips/0601/1/20.jpg"


def test_48_rows():
    """TuSimple's pictures with 48 values start at 240; the label is that of 56 with the first 8 empty."""
    xs = list(range(600, 120, -10))
    short = Record("x", list(range(240, 720, 10)), [xs])
    full = Record("x", list(H_SAMPLES), [[-2] * 8 + xs])
    assert np.array_equal(draw_label(short, (90, 160))[0], draw_label(full, (90, 160))[0])


MALFORMED = {
    '{"raw_file": "a.jpg", "lanes"': r"a JSON object in {source}, got .*delimiter",
    "[1, 2]": r"the keys raw_file, h_samples, lanes in {source}, got no raw_file, h_samples, lanes",
    _line(h_samples=None): r"the keys .* in {source}, got no h_samples",
    _line(raw_file=3): r"raw_file to be a path in {source}, got 3",
    _line(h_samples=[260, 250, 240]): r"h_samples to be ascending numbers in {source}, got \[260",
    _line(lanes=[[1, 2, 3], [1, 2]]): r"lanes of 3 values, one per h_samples, in {source}, got \[2\]",
    _line(lanes=[[1, 2, "3"]]): r"lanes to be lists of numbers in {source}, got \[\[1, 2, '3'\]\]",
    _line(lanes=[1, 2, 3]): r"lanes to be lists of numbers in {source}",
    _line(lanes=[[1, 2, float("nan")]]): r"lanes to be lists of numbers in {source}",
    _line(lanes=[[1, 2, 10**400]]): r"lanes to be lists of numbers in {source}",
}


@pytest.mark.parametrize("line", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_line(tmp_path, line):
    file = tmp_path / "label_data_0531.json"
    file.write_text(f"{_line()}\n{line}\n{_line(lanes=[])}\n")
    message = "expected " + MALFORMED[line].format(source=f"{file}, line 2")
    with pytest.raises(ValueError, match=f"^read_labels: {message}"):
        read_labels([file])
    with pytest.warns(UserWarning, match=f"^read_labels: left out 1; the first: {message}"):
        assert [len(record.lanes) for record in read_labels([file], malformed="skip")] == [2, 0]


@pytest.fixture
def files(tmp_path):
    """The golden frames as a prediction file and a label file, in another order."""
    metric = golden("sad_tusimple_metric")
    truths, predictions = [], []
    for i, name in enumerate(metric["names"].tolist()):
        pred, gt = (metric[side][i, : metric[f"n_{side}"][i]].tolist() for side in ("pred", "gt"))
        record = Record(f"clips/{name}/20.jpg", metric["y_samples"].tolist(), gt)
        truths.append(_line(raw_file=record.raw_file, h_samples=record.h_samples, lanes=gt) + "\n")
        predictions.append(prediction_line(record, pred, float(metric["run_time"][i])))
    prediction, truth = tmp_path / "prediction.json", tmp_path / "test_label.json"
    prediction.write_text("".join(predictions[::-1]))
    truth.write_text("".join(truths))
    return prediction, truth


def test_file_as_released(files):
    score = score_file(*files)
    wanted = golden("sad_tusimple_metric")["submit_acc_fp_fn"]
    np.testing.assert_allclose([score.accuracy, score.false_positive, score.false_negative], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda lines: lines[:-1], r"18 pictures in {prediction}, got 17, without clips/perfect/20.jpg"),
        (lambda lines: lines + lines[:1], r"a picture of {truth}, once each, in .*, line 19, got clips/minus1"),
        (lambda lines: [lines[0].replace("clips", "other"), *lines[1:]], r"a picture of .*, line 1, got other/minus1"),
        (lambda lines: [lines[0].replace("run_time", "time"), *lines[1:]], r"{prediction}, line 1, got no run_time"),
        (lambda lines: [lines[0].replace("[[", "[[1, "), *lines[1:]],
         r"lanes of 56 values, one per h_samples, in {prediction}, line 1, got \[57\]"),
        (lambda lines: [lines[0].replace('run_time": ', 'run_time": "1'), *lines[1:]], r"JSON object .*, line 1, got"),
        (lambda lines: [lines[0].replace('run_time": ', 'run_time": NaN, "a": '), *lines[1:]], r"a number .*, line 1"),
    ],
)  # fmt: skip
def test_wrong_prediction(files, change, message):
    prediction, truth = files
    prediction.write_text("\n".join(change(prediction.read_text().splitlines())))
    with pytest.raises(
        ValueError, match="^score_file: expected .*" + message.format(prediction=prediction, truth=truth)
    ):
        score_file(prediction, truth)
