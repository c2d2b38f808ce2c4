"""Decoding and TuSimple's metric against the released code's numbers (tests/golden)."""

import json

import numpy as np
import pytest

from pydistill.recipes.lanes.culane import decode_culane
from pydistill.recipes.lanes.metric import Score, decode_lanes, find_peaks, lane_tolerance, mean_score, score_frame
from tests.golden import golden


@pytest.fixture(scope="module")
def metric():
    return golden("sad_tusimple_metric")


@pytest.fixture(scope="module")
def post():
    return golden("sad_postprocess")


def _frame(metric, i):
    prediction = metric["pred"][i, : metric["n_pred"][i]].tolist()
    truth = metric["gt"][i, : metric["n_gt"][i]].tolist()
    return prediction, truth, metric["y_samples"].tolist(), float(metric["run_time"][i])


@pytest.mark.parametrize("i", range(18))
def test_frame(metric, i):
    score = score_frame(*_frame(metric, i))
    got = [score.accuracy, score.false_positive, score.false_negative]
    np.testing.assert_allclose(got, metric["result_acc_fp_fn"][i], rtol=1e-12, err_msg=str(metric["names"][i]))


@pytest.mark.parametrize("i", range(18))
def test_tolerance(metric, i):
    _, truth, rows, _ = _frame(metric, i)
    got = [lane_tolerance(lane, rows) for lane in truth]
    np.testing.assert_allclose(got, metric["gt_thresh"][i, : len(truth)], rtol=1e-6)


def test_data_set(metric):
    score = mean_score([score_frame(*_frame(metric, i)) for i in range(18)])
    wanted = {entry["name"]: entry["value"] for entry in json.loads(str(metric["bench_one_submit_json"]))}
    got = {"Accuracy": score.accuracy, "FP": score.false_positive, "FN": score.false_negative}
    assert got == pytest.approx(wanted, rel=1e-12)


def test_f1():
    assert Score(0.9, 0.25, 0.5).f1 == pytest.approx(2 * 0.75 * 0.5 / 1.25, rel=1e-12)
    assert Score(0, 0, 1).f1 == 0 and Score(0, 1, 1).f1 == 0


def test_wrong_input():
    with pytest.raises(ValueError, match=r"expected lanes of 3 values, got \[2\]"):
        score_frame([[1, 2]], [[1, 2, 3]], [10, 20, 30])
    with pytest.raises(ValueError, match="expected at least one score"):
        mean_score([])
    with pytest.raises(ValueError, match=r"shape \(5, h, w\), got \[4, 8, 8\]"):
        decode_lanes(np.zeros((4, 8, 8), np.float32))


@pytest.mark.parametrize("smooth", [1, 9])
def test_decode_as_released(post, smooth):
    points = post[f"tusimple_small_smooth{int(smooth > 1)}"][:, ::-1, 0]  # from the lowest row up, -1 for none
    assert decode_lanes(post["prob_small"], smooth=smooth) == np.where(points > 0, points, -2).astype(int).tolist()


def test_decode_uses_existence_and_threshold():
    probabilities = np.zeros((5, 72, 128), np.float32)
    probabilities[1, :, 30], probabilities[3, 40:, 90], probabilities[4, :, 100] = 0.9, 0.31, 0.29
    lanes = decode_lanes(probabilities, smooth=1)
    assert len(lanes) == 2 and set(lanes[0]) == {300} and set(lanes[1]) == {-2, 900}
    assert sum(x == 900 for x in lanes[1]) == 32  # rows 400 to 710
    assert decode_lanes(probabilities, (0.5, 1, 1, 1), smooth=1) == lanes[1:]
    assert decode_lanes(probabilities, smooth=1, least=33) == lanes[:1]
    assert decode_lanes(probabilities, smooth=1, samples=range(240, 720, 10)) == [lane[8:] for lane in lanes]


@pytest.mark.parametrize(
    "decode, height, step, name", [(decode_lanes, 720, 10, "tusimple"), (decode_culane, 590, 20, "culane")]
)
def test_rows_as_released(post, decode, height, step, name):
    """In a map whose peak lies on column ``2 row + 1``, the decoded columns tell the rows that were read."""
    probabilities = np.zeros((5, 36, 100), np.float32)
    probabilities[1, range(36), range(1, 73, 2)] = 1
    lane = decode(probabilities, (1, 0, 0, 0), smooth=1)[0]
    xs = lane[::-1] if decode is decode_lanes else lane[:, 0]
    width = {"tusimple": 1280, "culane": 1640}[name]
    assert [round(float(x) / width * 100) // 2 for x in xs] == post[f"rows_{name}"].tolist()


def test_smoothing_as_released(post):
    """Column of the peak of each smoothed row, and whether thresholds between the peaks let it through."""
    wanted = post["blur9_lane1"]
    peaks = np.unique(wanted.max(1))
    for threshold in ((peaks[1:] + peaks[:-1]) / 2)[np.diff(peaks) > 1e-5 * peaks[1:]]:
        got = next(find_peaks(post["prob_small"], (1, 0, 0, 0), range(36), 9, float(threshold)))
        np.testing.assert_array_equal(got, np.where(wanted.max(1) > threshold, wanted.argmax(1), -1))
