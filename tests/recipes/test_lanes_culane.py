"""CULane's decoding, files and metric against the released code's numbers (tests/golden)."""

import re
from functools import partial

import cv2
import numpy as np
import pytest

from pydistill.recipes.lanes.culane import (
    CATEGORIES,
    Counts,
    category_table,
    decode_culane,
    draw_lane,
    interpolate_lane,
    lane_similarities,
    lines_path,
    match_lanes,
    read_lines,
    score_categories,
    score_lanes,
    score_pictures,
    write_lines,
)
from tests.golden import golden

FRAMES = range(9)


@pytest.fixture(scope="module")
def metric():
    return golden("sad_culane_metric")


@pytest.fixture(scope="module")
def folders(metric, tmp_path_factory):
    """The golden files as they were given to the released evaluator; frame 5 has no prediction file."""
    root = tmp_path_factory.mktemp("culane")
    for side in ("anno", "det"):
        (root / side / "d").mkdir(parents=True)
        for i in FRAMES:
            (root / side / "d" / f"{i:05d}.lines.txt").write_text(str(metric[f"{side}_txt"][i]))
    assert not str(metric["det_txt"][5])
    (root / "det" / "d" / "00005.lines.txt").unlink()
    return root / "anno", root / "det"


def _lanes(metric, side, i):
    lanes = metric[side][i, : metric[f"n_{side}"][i]]
    return [lane[np.isfinite(lane).all(1)] for lane in lanes]


def _counts(counts):
    return [counts.true_positive, counts.false_positive, counts.false_negative]


def test_spline_as_released(metric):
    wanted = metric["spline_f0_anno0"]
    got = interpolate_lane(_lanes(metric, "anno", 0)[0])
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("i", FRAMES)
def test_frame_as_released(metric, i):
    truth, prediction = _lanes(metric, "anno", i), _lanes(metric, "det", i)
    wanted = metric["iou_cpp"][i, : len(truth), : len(prediction)]
    np.testing.assert_allclose(lane_similarities(truth, prediction), wanted, rtol=1e-12)
    assert match_lanes(truth, prediction) == np.maximum(metric["match_cpp"][i, : len(truth)], -1).tolist()
    assert _counts(score_lanes(truth, prediction)) == metric["tp_fp_fn_cpp"][i].tolist()


@pytest.mark.parametrize("copy", [0, 1])
def test_python_copies_differ_little(metric, copy):
    """The copies in lanedet and pytorch-auto-drive sample and round otherwise, and do not count blank lines."""
    for i in FRAMES:
        truth, prediction = ([lane for lane in _lanes(metric, side, i) if len(lane) > 1] for side in ("anno", "det"))
        theirs = metric["iou_py"][copy, i, : len(truth), : len(prediction)]
        difference = np.abs(lane_similarities(truth, prediction) - theirs)
        assert (difference <= (0.0091, 0.0072)[copy]).all()
        assert _counts(score_lanes(truth, prediction)) == metric["tp_fp_fn_py"][copy, i].tolist()


@pytest.mark.parametrize("workers", [1, 3])
def test_files_as_released(metric, folders, workers):
    total = score_pictures([f"/d/{i:05d}.jpg" for i in FRAMES], *folders, workers=workers)
    printed = {k: float(v) for k, v in re.findall(r"(\w+): (-?[\d.]+)", str(metric["evaluate_out"]))}
    assert _counts(total) == [printed["tp"], printed["fp"], printed["fn"]] == [12, 8, 9]
    got = {"precision": total.precision, "recall": total.recall, "Fmeasure": total.f1}
    assert got == pytest.approx({k: printed[k] for k in got}, rel=1e-5)


def test_crossroad_as_released(metric, folders):
    counts = score_pictures(["d/00004.jpg"], *folders)
    printed = dict(re.findall(r"(\w+): (-?[\d.]+)", str(metric["evaluate_out_crossroad"])))
    got = [*_counts(counts), counts.precision, counts.recall, counts.f1]
    assert got == [float(printed[k]) for k in ("tp", "fp", "fn", "precision", "recall", "Fmeasure")]


def test_undefined_scores():
    assert (Counts().precision, Counts().recall) == (-1, -1)
    assert np.isnan(Counts(0, 1, 1).f1)
    assert Counts(1, 2, 3) + Counts(4, 5, 6) == Counts(5, 7, 9)


def _line(x, bottom=560):
    return np.array([[x, 100], [x, bottom]], np.float32)


def test_assigned_one_to_one():
    assert _counts(score_lanes([_line(400)], [_line(400), _line(401)])) == [1, 1, 0]
    # The best pair first would leave the others below 0.5: 400 with 403, and nothing for 393.
    truth, prediction = [_line(400), _line(409)], [_line(393), _line(403)]
    similarities = lane_similarities(truth, prediction)
    assert similarities[0, 1] == similarities.max() and similarities[1, 0] < 0.5
    assert _counts(score_lanes(truth, prediction)) == [2, 0, 0]


def test_half_is_not_above_half(monkeypatch):
    for similarity, found in ((0.5, 0), (np.nextafter(0.5, 1), 1)):
        monkeypatch.setattr(
            "pydistill.recipes.lanes.culane.lane_similarities", lambda *_, s=similarity: np.array([[s]])
        )
        assert score_lanes([_line(1)], [_line(1)]).true_positive == found


def test_lanes_that_draw_little():
    outside, point = _line(-500), _line(700)[:1]
    assert _counts(score_lanes([outside, point], [outside, point])) == [0, 2, 2]
    twice = np.repeat(np.array([[100, 100], [200, 200], [250, 300]], np.float32), 2, 0)
    np.testing.assert_array_equal(interpolate_lane(twice), interpolate_lane(twice[::2]))
    disc = cv2.line(np.zeros((590, 1640), np.uint8), (100, 100), (100, 100), 1, 30)
    np.testing.assert_array_equal(draw_lane(twice[:2]), disc)
    assert disc.sum() > 600 and draw_lane(twice[:0]).sum() == 0


@pytest.mark.parametrize("smooth", [1, 9])
def test_decode_as_released(smooth):
    post = golden("sad_postprocess")
    wanted, counts = (post[f"culane_small_smooth{int(smooth > 1)}{end}"] for end in ("", "_n"))
    decode = partial(decode_culane, post["prob_small"], smooth=smooth)
    for lanes, kept in ((decode(blank=True), range(4)), (decode(), np.flatnonzero(counts))):
        assert len(lanes) == len(kept)
        for lane, i in zip(lanes, kept):
            np.testing.assert_array_equal(lane, wanted[i, : counts[i]])


def test_decode_uses_existence_and_threshold():
    probabilities = np.zeros((5, 59, 164), np.float32)
    probabilities[1, :, 30], probabilities[3, 50:, 90], probabilities[4, :, 100] = 0.9, 0.31, 0.29
    lanes = decode_culane(probabilities, smooth=1)
    assert [lane.tolist() for lane in lanes] == [
        [[300, 589 - 20 * i] for i in range(18)],
        [[900, 589 - 20 * i] for i in range(5)],
    ]
    assert len(decode_culane(probabilities, (0.5, 1, 1, 1), smooth=1)) == 1
    assert len(decode_culane(probabilities, smooth=1, least=6)) == 1
    assert [len(lane) for lane in decode_culane(probabilities, (0, 1, 1, 1), smooth=1, blank=True)] == [0, 5, 0]


def test_files_round_trip(tmp_path):
    file = lines_path(tmp_path, "/d/0.jpg")
    assert file == tmp_path / "d" / "0.lines.txt"
    lanes = [np.array([[-3.5, 590], [1643.25, 320]], np.float32), np.zeros((0, 2), np.float32)]
    write_lines(file, lanes)
    assert file.read_text() == "-3.5 590 1643.25 320\n"
    write_lines(file, lanes, blank=True)
    assert file.read_text() == "-3.5 590 1643.25 320\n\n"
    for got, wanted in zip(read_lines(file), lanes, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("line", ["1 2 3", "1 2 x 4", "1 nan", "1 1e99"])
def test_malformed_line(tmp_path, line):
    file = tmp_path / "0.lines.txt"
    file.write_text(f"1 2 3 4\n{line}\n5 6 7 8\n")
    with pytest.raises(ValueError, match=rf"pairs of numbers in {file}, line 2, got '{line}'"):
        read_lines(file)
    with pytest.warns(UserWarning, match=rf"left out 1; the first: expected .* {file}, line 2, got"):
        assert [lane[0, 0] for lane in read_lines(file, malformed="skip")] == [1, 5]
    with pytest.raises(ValueError, match="expected malformed to be raise or skip, got 'ignore'"):
        read_lines(file, malformed="ignore")


def test_missing_folder(tmp_path):
    with pytest.raises(NotADirectoryError, match=f"folder of .lines.txt files, got {tmp_path / 'none'}"):
        score_pictures(["0.jpg"], tmp_path, tmp_path / "none")


def test_categories(tmp_path):
    truth, prediction = tmp_path / "data", tmp_path / "out"
    (truth / "list" / "test_split").mkdir(parents=True)
    for i, (file, category) in enumerate(CATEGORIES.items()):
        (truth / "list" / "test_split" / f"{file}.txt").write_text(f"d/{i}.jpg\n")
        write_lines(truth / "d" / f"{i}.lines.txt", [] if category == "crossroad" else [_line(300), _line(900)])
        write_lines(prediction / "d" / f"{i}.lines.txt", [_line(900)] * (1 + (category in ("crossroad", "night"))))
    scores = score_categories(truth, prediction)
    assert list(scores) == list(CATEGORIES.values())
    assert scores["normal"] == Counts(1, 0, 1) and scores["night"] == Counts(1, 1, 1)
    rows = dict(row.strip("| ").split(" | ", 1) for row in category_table(scores).splitlines()[2:])
    assert len(rows) == 10 and rows["normal"] == "66.67 | 1 | 0 | 1" and rows["crossroad"] == " |  | 2"
    assert rows["total"] == "59.26 | 8 | 3 | 8"  # 2 * 8 / (2 * 8 + 3 + 8)
    assert "| night | - | 0 | 0 | 0 |" in category_table({"night": Counts()})
