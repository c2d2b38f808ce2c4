"""Flip, rotation and crop of pictures, labels and existence, on labels whose geometry is known."""

import numpy as np
import pytest

from pydistill.recipes.lanes.augment import IGNORED, MEAN, PRESETS, Augment, mirror, warp

KEEP = (0.5, 0.5)


def _item(label, existence=(1, 1, 1, 1)):
    """A picture that shows its own label."""
    picture = np.repeat(label[..., None] * np.uint8(40), 3, 2)
    return picture, label, np.array(existence, np.float32)


def _stripes(height=40, width=100, columns=(10, 35, 60, 85)):
    """Lanes 1..4 as upright stripes, five pixels wide, from left to right."""
    label = np.zeros((height, width), np.uint8)
    for lane, x in enumerate(columns, 1):
        label[:, x : x + 5] = lane
    return label


def test_mirror_swaps_lanes_and_existence():
    label = _stripes()
    label[:, 35:40] = 0  # no lane 2
    label[0, 0] = IGNORED
    picture, mirrored, existence = mirror(_item(label, (1, 0, 1, 1)), 5)
    assert existence.tolist() == [1, 1, 0, 1]
    assert {lane: np.flatnonzero(mirrored[5] == lane).tolist() for lane in range(1, 5)} == {
        1: [10, 11, 12, 13, 14],  # lane 4 was at 85..89
        2: [35, 36, 37, 38, 39],
        3: [],
        4: [85, 86, 87, 88, 89],
    }
    assert mirrored[0, 99] == IGNORED and (mirrored == IGNORED).sum() == 1
    assert np.array_equal(picture, _item(label)[0][:, ::-1])


def test_mirror_of_two_classes():
    label = (_stripes() > 0).astype(np.uint8)
    label[0] = IGNORED
    assert np.array_equal(mirror(_item(label), 2)[1], label[:, ::-1])


def test_mirror_twice_is_nothing():
    item = _item(_stripes(), (1, 0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(mirror(mirror(item, 5), 5), item))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_is_anticlockwise_about_the_centre(quarters):
    label = np.random.default_rng(0).integers(0, 5, (31, 31)).astype(np.uint8)
    _, turned, _ = warp(_item(label), 5, 90 * quarters, 1, KEEP)
    assert np.array_equal(turned, np.rot90(label, quarters))


@pytest.mark.parametrize("degrees", [-7, 3])
def test_rotation_tilts_a_line(degrees):
    label = np.zeros((101, 201), np.uint8)
    label[49:52] = 3
    picture, turned, _ = warp(_item(label), 5, degrees, 1, KEEP)
    columns = np.arange(20, 181)
    rows = np.array([np.flatnonzero(turned[:, x] == 3).mean() for x in columns])
    slope, offset = np.polyfit(columns - 100, rows, 1)
    assert slope == pytest.approx(-np.tan(np.radians(degrees)), abs=2e-3)  # up on the right, as y points down
    assert offset == pytest.approx(50, abs=0.05)
    rows = np.arange(15, 86)  # without what the edges are filled with
    bright = np.array([np.average(rows, weights=picture[rows, x, 0]) for x in columns])
    np.testing.assert_allclose(bright, 50 + slope * (columns - 100), atol=0.3)


def test_rotation_ignores_what_is_not_in_the_picture():
    label = np.ones((80, 120), np.uint8)
    picture, turned, _ = warp(_item(label), 5, 30, 1, KEEP)
    y, x = np.mgrid[:80, :120] - np.array([39.5, 59.5]).reshape(2, 1, 1)
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    across, down = cos * x - sin * y, sin * x + cos * y  # where a pixel comes from
    inside = (abs(across) < 59) & (abs(down) < 39)
    outside = (abs(across) > 61) | (abs(down) > 41)
    assert (turned[inside] == 1).all() and (turned[outside] == IGNORED).all() and outside.mean() > 0.1
    assert (picture[inside] == 40).all()
    np.testing.assert_allclose(picture[outside] / 255, np.tile(MEAN[::-1], (outside.sum(), 1)), atol=0.5 / 255)


@pytest.mark.parametrize("place, corner", [((0, 0), (0, 0)), ((1, 0), (0, 60)), ((0.5, 1), (40, 30))])
def test_crop_enlarges_a_part(place, corner):
    label = np.random.default_rng(0).integers(0, 5, (80, 120)).astype(np.uint8)
    _, cropped, _ = warp(_item(label), 5, 0, 0.5, place)
    part = label[corner[0] : corner[0] + 40, corner[1] : corner[1] + 60]
    assert np.array_equal(cropped, part.repeat(2, 0).repeat(2, 1))


def test_crop_above_one_shrinks():
    label = np.ones((60, 80), np.uint8)
    picture, shrunk, existence = warp(_item(label), 5, 0, 4 / 3, (0, 1))
    assert existence.tolist() == [1, 1, 1, 1]
    rows, columns = np.nonzero(shrunk == 1)
    # place (0, 1) puts the crop's left and lower edges on the picture's: what is beyond them is at the top right
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 59, 0, 59) and len(rows) == 45 * 60
    assert (shrunk[:15] == IGNORED).all() and (shrunk[:, 60:] == IGNORED).all()
    assert (picture[20:55, 5:55] == 40).all()


def test_lane_that_leaves_exists_no_longer():
    item = _item(_stripes(), (1, 1, 0, 1))
    _, cropped, existence = warp(item, 5, 0, 0.5, (0, 0.5))  # the left half has lanes 1 and 2
    assert set(np.unique(cropped)) == {0, 1, 2}
    assert existence.tolist() == [1, 1, 0, 0]
    assert item[2].tolist() == [1, 1, 0, 1]
    hidden = _stripes()
    hidden[hidden == 1] = 0  # said to exist, though the label shows nothing of it: that is not for a crop to change
    assert warp(_item(hidden), 5, 0, 0.5, (0, 0.5))[2].tolist() == [1, 1, 0, 0]


def test_existence_of_a_single_lane_class_stays():
    """BDD100K: one class for all lanes says nothing about which of them is left."""
    label = np.zeros((20, 40), np.uint8)
    label[:, 30:33] = 1
    _, cropped, existence = warp(_item(label), 2, 0, 0.5, (0, 0))
    assert not cropped.any() and existence.tolist() == [1, 1, 1, 1]


def test_picture_and_label_move_alike():
    rng = np.random.default_rng(3)
    label = _stripes(120, 200, (20, 70, 120, 170))
    augment = Augment(flip=0.5, rotate=10, crop=(0.7, 1.1))
    for _ in range(10):
        picture, moved, existence = augment(_item(label), 5, rng)
        assert picture.shape == (120, 200, 3) and moved.shape == (120, 200) and existence.shape == (4,)
        # the stripes swap their names in a mirror, so the picture shows which lane lies where, not which class
        lanes = (moved > 0) & (moved != IGNORED)
        shown = picture[..., 0] > 20
        known = moved != IGNORED
        assert (lanes[known] != shown[known]).mean() < 0.04  # edges, rounded otherwise
        assert lanes[known].mean() > 0.05


def test_share_of_flips_and_range_of_angles():
    label = np.zeros((101, 101), np.uint8)
    label[50, :50] = 2
    rng, angles, flips = np.random.default_rng(0), [], 0
    for _ in range(300):
        _, moved, _ = Augment(flip=0.3, rotate=20, crop=(1, 1))(_item(label), 5, rng)
        flipped = (moved == 3).any()
        y, x = np.nonzero(moved == (3 if flipped else 2))
        flips += flipped
        angles.append(np.degrees(np.arctan((50 - y).sum() / (x - 50).sum())))
    assert 0.23 < flips / 300 < 0.37
    assert 18 < max(angles) < 20.5 and -20.5 < min(angles) < -18 and abs(np.mean(angles)) < 2


def test_draws_do_not_depend_on_the_settings():
    item = _item(_stripes())
    after = set()
    for augment in (Augment(), Augment(flip=0), PRESETS["flip"], PRESETS["enet-label"]):
        rng = np.random.default_rng(5)
        augment(item, 5, rng)
        after.add(rng.random())
    assert len(after) == 1


def test_nothing_to_do():
    item = _item(_stripes())
    same = Augment(flip=0, rotate=0, crop=(1, 1))(item, 5, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(item, same))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(flip=1.5), r"expected flip in 0\.\.1, got 1\.5"),
        (dict(rotate=-1), r"expected rotate in 0\.\.180 degrees, got -1"),
        (dict(crop=(0, 1)), r"expected 0 < low <= high <= 2 as crop, got \(0, 1\)"),
        (dict(crop=(1, 0.9)), r"expected 0 < low <= high"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=f"Augment: {message}"):
        Augment(**wrong)
