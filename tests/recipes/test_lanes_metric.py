"""Decoding and TuSimple's metric against the released code's numbers (tests/golden)."""

import json
from pathlib import Path

import numpy as np
import pytest

from pydistill.recipes.lanes.metric import Score, decode_lanes, lane_tolerance, mean_score, score_frame

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "sad_tusimple_metric.npz")


def _frame(golden, i):
    prediction = golden["pred"][i, : golden["n_pred"][i]].tolist()
    truth = golden["gt"][i, : golden["n_gt"][i]].tolist()
    return prediction, truth, golden["y_samples"].tolist(), float(golden["run_time"][i])


@pytest.mark.parametrize("i", range(18))
def test_frame(golden, i):
    score = score_frame(*_frame(golden, i))
    got = [score.accuracy, score.false_positive, score.false_negative]
    np.testing.assert_allclose(got, golden["result_acc_fp_fn"][i], rtol=1e-12, err_msg=str(golden["names"][i]))


@pytest.mark.parametrize("i", range(18))
def test_tolerance(golden, i):
    _, truth, rows, _ = _frame(golden, i)
    got = [lane_tolerance(lane, rows) for lane in truth]
    np.testing.assert_allclose(got, golden["gt_thresh"][i, : len(truth)], rtol=1e-6)


def test_data_set(golden):
    score = mean_score([score_frame(*_frame(golden, i)) for i in range(18)])
    wanted = {entry["name"]: entry["value"] for entry in json.loads(str(golden["bench_one_submit_json"]))}
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
def test_decode_as_released(smooth):
    golden = np.load(GOLDEN / "sad_postprocess.npz")
    points = golden[f"tusimple_small_smooth{int(smooth > 1)}"][:, ::-1, 0]  # from the lowest row up, -1 for none
    assert decode_lanes(golden["prob_small"], smooth=smooth) == np.where(points > 0, points, -2).astype(int).tolist()


def test_decode_uses_existence_and_threshold():
    probabilities = np.zeros((5, 72, 128), np.float32)
    probabilities[1, :, 30], probabilities[3, 40:, 90], probabilities[4, :, 100] = 0.9, 0.31, 0.29
    lanes = decode_lanes(probabilities, smooth=1)
    assert len(lanes) == 2 and set(lanes[0]) == {300} and set(lanes[1]) == {-2, 900}
    assert sum(x == 900 for x in lanes[1]) == 32  # rows 400 to 710
    assert decode_lanes(probabilities, (0.5, 1, 1, 1), smooth=1) == lanes[1:]
    assert decode_lanes(probabilities, smooth=1, least=33) == lanes[:1]
