"""Generated scenes of digits: boxes, occlusion, splits."""

import numpy as np
import pytest

from pydistill.recipes.dense import scenes
from pydistill.recipes.dense.scenes import Difficulty, generate_scene
from pydistill.recipes.dense.textures import cut_photograph, digit_shape, digits, photographs

PLAIN = Difficulty(
    objects=(1, 1), soft=(1e-4, 1e-4), fade=(1, 1), contrast=(0.4, 0.4), texture=0, outside=0,
    defocus=(0, 0), blur=(0, 0), noise=(0, 0), length=(76, 80),
)  # fmt: skip


def test_scenes_are_a_function_of_seed_and_index():
    first, again = generate_scene(3, 5, "train"), generate_scene(3, 5, "train")
    assert np.array_equal(first.picture, again.picture) and first.digits == again.digits
    for other in (generate_scene(3, 6, "train"), generate_scene(4, 5, "train"), generate_scene(3, 5, "val")):
        assert first.digits != other.digits


def test_boxes_are_the_extent_of_the_ink(monkeypatch):
    monkeypatch.setattr(scenes, "cut_photograph", lambda rng, split, size: np.full((*size, 3), 0.5, np.float32))
    errors = []
    for index in range(40):
        scene = generate_scene(1, index, "train", difficulty=PLAIN)
        change = np.abs(scene.picture.astype(float) - 127.5).max(2)
        rows, columns = (np.nonzero((change > change.max() / 2).any(axis))[0] for axis in (1, 0))
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        errors.append(found - np.array(scene.digits[0].box))
    assert len(errors) == 40 and np.abs(errors).max() < 1.2  # of whole pixels
    shift = np.mean(errors, 0).reshape(2, 2).mean(0)
    assert np.abs(shift).max() < 0.12  # and to no side


def test_hidden_is_the_share_under_later_digits_or_outside(monkeypatch):
    def fill(rng, shape, matrix, box, size, hard):
        left, top, right, bottom = np.round(box).astype(int)
        ink = np.zeros((400, 400), np.float32)
        ink[100 + top : 100 + bottom, 100 + left : 100 + right] = 1
        return ink[100 : 100 + size[0], 100 : 100 + size[1]], float(ink.sum())

    monkeypatch.setattr(scenes, "_draw_ink", fill)
    seen = 0
    for index in range(20):
        hard = Difficulty(objects=(4, 4), near=1, covered=0.9)
        scene = generate_scene(2, index, "val", difficulty=hard)
        owner = np.full(scene.picture.shape[:2], -1)
        for number, digit in enumerate(scene.digits):
            left, top, right, bottom = np.round(digit.box).astype(int)
            owner[top:bottom, left:right] = number
        for number, digit in enumerate(scene.digits):
            left, top, right, bottom = digit.box
            if min(left, top) > 1 and right < owner.shape[1] - 1 and bottom < owner.shape[0] - 1:
                area = (round(right) - round(left)) * (round(bottom) - round(top))
                assert digit.hidden == pytest.approx(1 - (owner == number).sum() / area, abs=1e-5)
                seen += digit.hidden > 0.1
    assert seen > 10


def test_scenes_are_as_the_manual_says():
    found = [generate_scene(0, index, "val", classes=4) for index in range(60)]
    hard = Difficulty()
    for scene in found:
        h, w = scene.picture.shape[:2]
        assert 112 <= min(h, w) <= max(h, w) <= 128 and 1 <= len(scene.digits) <= 4
        for digit in scene.digits:
            left, top, right, bottom = digit.box
            assert 0 <= left < right <= w and 0 <= top < bottom <= h
            sides = max(right - left, bottom - top)
            inside = min(left, top) > 0 and right < w and bottom < h
            assert sides <= hard.length[1] + 0.01 and (sides >= hard.length[0] - 0.01 or not inside)
    shown = [digit for scene in found for digit in scene.digits]
    assert {digit.label for digit in shown} == {0, 1, 2, 3}
    assert 0.01 < np.mean([digit.hidden > hard.hidden for digit in shown]) < 0.1
    assert 0.15 < np.mean([digit.hidden > 0.15 for digit in shown]) < 0.35
    assert (hard.hidden, hard.turn, hard.sides, hard.objects) == (0.4, 10, (112, 128), (1, 4))


def test_splits_share_neither_digits_nor_photographs():
    (train, labels), (val, others) = digits("train"), digits("val")
    assert len(train) + len(val) == len(np.union1d(train, val)) == 1797
    assert all((split == label).sum() >= 55 for split in (labels, others) for label in range(10))
    for left, right in zip(photographs("train"), photographs("val"), strict=True):
        assert left.shape[0] == right.shape[0] and left.shape[1] == round(0.65 * (left.shape[1] + right.shape[1]))
    for split, own in (("train", train), ("val", val)):
        used = {digit.sample for index in range(20) for digit in generate_scene(0, index, split).digits}
        assert len(used) > 20 and used <= set(own)


def test_textures():
    for place in (0, 1, 500):
        shape = digit_shape(place)
        assert shape.shape == (64, 64) and shape.min() == 0 and shape.max() == 1
        assert shape[0].max() < 0.5 > shape[:, 0].max()  # the outline is closed
    cuts = [cut_photograph(np.random.default_rng(seed), "val", (112, 128)) for seed in range(30)]
    assert all(cut.shape == (112, 128, 3) and cut.dtype == np.float32 and cut.min() >= 0 for cut in cuts)
    assert max(cut.max() for cut in cuts) <= 1 and np.mean([cut.std() for cut in cuts]) > 0.1
