"""BDD100K's two shares, by hand."""

import numpy as np
import pytest

from pydistill.recipes.lanes.bdd100k import (
    FRAME,
    Overlap,
    decode_mask,
    mask_path,
    mean_overlap,
    score_masks,
    score_pictures,
    write_mask,
)
from pydistill.recipes.pictures import UnreadablePicture


def _mask(*pixels):
    mask = np.zeros((4, 6), np.uint8)
    mask.ravel()[list(pixels)] = 255
    return mask


@pytest.mark.parametrize(
    "prediction, truth, accuracy, iou",
    [
        ((0, 1, 2), (1, 2, 3, 4, 5), 2 / 5, 2 / 6),
        (range(24), (7, 8), 1, 2 / 24),  # lanes everywhere: all are found
        ((), (7, 8), 0, 0),
        ((1, 2), (), 0, 0),
        ((), (), 0, 0),
        ((3,), (3,), 1, 1),
    ],
)
def test_score(prediction, truth, accuracy, iou):
    assert score_masks(_mask(*prediction) > 0, _mask(*truth)) == Overlap(accuracy, iou)


def test_mean_counts_empty_pictures():
    scores = [score_masks(_mask(*p), _mask(*t)) for p, t in (((0, 1, 2), (1, 2, 3, 4, 5)), ((), ()), ((3,), (3,)))]
    mean = mean_overlap(scores)
    assert (mean.accuracy, mean.iou) == pytest.approx(((2 / 5 + 1) / 3, (2 / 6 + 1) / 3), rel=1e-12)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"same shape \(H, W\), got \[4, 6\] and \[6, 4\]"):
        score_masks(_mask(), _mask().T)
    with pytest.raises(ValueError, match=r"got \[1, 4, 6\] and \[1, 4, 6\]"):
        score_masks(_mask()[None], _mask()[None])
    with pytest.raises(ValueError, match="expected at least one score"):
        mean_overlap([])


def test_decoded_at_full_size():
    probability = np.zeros((9, 16), np.float32)
    probability[:, 5] = 1
    mask = decode_mask(probability)
    assert mask.shape == FRAME and set(np.unique(mask)) == {0, 255}
    # Between pixel centres 80 apart, from 0 to 1 and back: above one half within 40 of column 440 - 0.5.
    assert np.flatnonzero(mask[300]).tolist() == list(range(400, 480))
    assert decode_mask(np.full((9, 16), 0.5, np.float32)).sum() == 0


@pytest.fixture
def folders(tmp_path):
    """A root with two labels of 8-pixel lanes, and predictions shifted by 2 pixels, and nothing."""
    root, prediction = tmp_path / "bdd", tmp_path / "out"
    (root / "list").mkdir(parents=True)
    lines = [f"/val_img/val/{n}.jpg /val_label/{n}.png 1 1 1 1" for n in "ab"]
    (root / "list" / "test_gt_bdd.txt").write_text("\n".join(lines))
    label, shifted = np.zeros(FRAME, np.uint8), np.zeros(FRAME, np.uint8)
    label[:, 600:608], shifted[:, 602:610] = 255, 255
    for n, mask in zip("ab", (shifted, np.zeros_like(label))):
        write_mask(root / "val_label" / f"{n}.png", label)
        write_mask(mask_path(prediction, f"/val_img/val/{n}.jpg"), mask)
    return root, prediction


@pytest.mark.parametrize("workers", [1, 2])
def test_files(folders, workers):
    score = score_pictures(*folders, workers=workers)
    assert (score.accuracy, score.iou) == pytest.approx((6 / 8 / 2, 6 / 10 / 2), rel=1e-12)


def test_wrong_files(folders):
    root, prediction = folders
    source = rf"{root}/list/test_gt_bdd.txt, line 2"
    mask = mask_path(prediction, "val_img/val/b.jpg")
    write_mask(mask, np.zeros((360, 640), np.uint8))
    with pytest.raises(ValueError, match=rf"\[720, 1280\] for {source}, got \[360, 640\]"):
        score_pictures(*folders)
    mask.write_bytes(mask.read_bytes()[:-20])
    with pytest.raises(UnreadablePicture, match=f"expected a picture in {mask} of {source}, got .* do not decode"):
        score_pictures(*folders)
    mask.unlink()
    with pytest.raises(UnreadablePicture, match=f"expected {mask} of {source}, got: No such file"):
        score_pictures(*folders)
    (root / "list" / "test_gt_bdd.txt").write_text("/val_img/val/a.jpg")
    with pytest.raises(ValueError, match="a picture and a label in .*, line 1, got val_img/val/a.jpg"):
        score_pictures(*folders)
