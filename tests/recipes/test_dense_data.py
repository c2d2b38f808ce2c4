"""Batches of pictures with boxes, and their augmentation."""

import numpy as np
import pytest
import torch

from pydistill.recipes.dense.augment import PRESETS, Augment, Item, crop, rescale
from pydistill.recipes.dense.coco import CocoDataset
from pydistill.recipes.dense.data import MEAN, STD, DenseData
from pydistill.recipes.pictures import UnreadablePicture
from tests.recipes.dense import write_dataset

SIZES = [(60, 80), (80, 60), (100, 100), (30, 40), (64, 128), (50, 50)]
BOXES = [
    (1, 1, (8, 4, 20, 40), 0),
    (1, 2, (40, 20, 30, 20), 0),
    (1, 2, (60, 0, 10, 10), 1),
    (2, 2, (10, 60, 40, 16), 0),
    (3, 1, (50, 50, 50, 50), 0),
    (5, 2, (0, 0, 128, 64), 0),
    (6, 1, (10, 10, 20, 20), 0),
]


def _picture(size, boxes, level):
    """Dark, with bright boxes."""
    picture = np.full((*size, 3), level, np.uint8)
    for x, y, w, h in boxes:
        picture[y : y + h, x : x + w] = 255
    return picture


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    shown = [[b for image, _, b, crowd in BOXES if image == i and not crowd] for i in range(1, len(SIZES) + 1)]
    pictures = [_picture(size, boxes, 10 * i) for i, (size, boxes) in enumerate(zip(SIZES, shown))]
    return CocoDataset(write_dataset(tmp_path_factory.mktemp("dense"), SIZES, BOXES, pictures=pictures), "val")


def _same(a, b):
    return all(getattr(a, name).equal(getattr(b, name)) for name in ("pictures", "boxes", "labels", "counts", "sizes"))


def _bright(picture):
    """Left, top, right, bottom of what is bright in (3, H, W), to about a tenth of a pixel."""
    level = (picture[0] * STD[0] + MEAN[0]).double().numpy()
    dark = 0.15
    sides = []
    for axis in (0, 1):
        most = np.clip((level.max(axis) - dark) / (1 - dark), 0, 1)
        inside = np.nonzero(most > 0.5)[0]
        sides.append((inside[0], inside[-1] + 1))
    return np.array([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], float)


def test_batch(dataset):
    data = DenseData(dataset, (48, 64))
    batch = data.batch([0, 1, 3])
    assert batch.pictures.shape == (3, 3, 48, 64) and batch.pictures.dtype == torch.float32
    assert batch.boxes.shape == (3, 2, 4) and data.max_boxes == 2 and len(data) == 6
    assert batch.sizes.tolist() == [[48, 64], [48, 36], [48, 64]]  # (60, 80) by 0.8, (80, 60) by 0.6, (30, 40) by 1.6
    assert batch.counts.tolist() == [2, 1, 0] and batch.labels.tolist() == [[0, 1], [1, 0], [0, 0]]
    expected = torch.zeros(3, 2, 4)
    expected[0] = torch.tensor([[8, 4, 28, 44], [40, 20, 70, 40]]) * 0.8
    expected[1, 0] = torch.tensor([10, 60, 50, 76]) * 0.6
    torch.testing.assert_close(batch.boxes, expected, rtol=1e-6, atol=0)
    assert (batch.pictures[1, :, :, 36:] == 0).all() and (batch.pictures[1, :, :, :36] != 0).all()
    pictures, scales, sizes = data.pictures([0, 1, 3])
    assert pictures.equal(batch.pictures) and scales.tolist() == pytest.approx([0.8, 0.6, 1.6])
    assert data.original(1).shape == (80, 60, 3)


def test_pictures_are_normalised_rgb(dataset, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    data = DenseData(CocoDataset(write_dataset(tmp_path, [(20, 30)], [], pictures=[picture]), "val"), (20, 30))
    expected = (picture[..., ::-1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(data.pictures([0])[0][0], expected.transpose(2, 0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(100, 100), (77, 91), (33, 40)])
def test_boxes_follow_the_pictures(dataset, size):
    batch = DenseData(dataset, size).batch([1, 2, 5])
    for picture, boxes in zip(batch.pictures, batch.boxes):
        np.testing.assert_allclose(_bright(picture), boxes[0], rtol=0, atol=0.75)  # of whole pixels


def test_augmented_boxes_follow_the_pictures(dataset):
    data = DenseData(dataset, (80, 80), Augment(flip=0.5, zoom=(0.5, 2), visible=0.01))
    errors = []
    for step in range(60):
        batch = data.training_batch(1, step, 6)
        for picture, box, count in zip(batch.pictures, batch.boxes, batch.counts):
            if count == 1 and box[0, 2] - box[0, 0] > 4 and box[0, 3] - box[0, 1] > 4:
                errors.append(_bright(picture) - box[0].numpy())
    assert len(errors) > 200 and np.abs(errors).max() < 1.05
    assert np.abs(np.mean(errors, 0)).max() < 0.1


def test_training_batch_depends_on_its_arguments_alone(dataset):
    def fresh(**options):
        return DenseData(dataset, (48, 64), PRESETS["digits"], **options)

    data = fresh()
    batches = [data.training_batch(7, step, 2) for step in range(7)]
    for step in reversed(range(7)):
        assert _same(fresh(cache=False).training_batch(7, step, 2), batches[step])
        assert _same(data.training_batch(7, step, 2), batches[step])
    assert not _same(fresh().training_batch(8, 0, 2), batches[0])
    for workers in (0, 2):
        loaded = list(data.loader(7, 2, range(1, 7, 3), workers))
        assert len(loaded) == 2 and _same(loaded[0], batches[1]) and _same(loaded[1], batches[4])


def test_only_training_is_augmented(dataset):
    plain, changed = (DenseData(dataset, (64, 64), augment) for augment in (False, True))
    assert plain.augment is None and changed.augment == Augment()
    assert _same(plain.batch(range(6)), changed.batch(range(6)))
    flipped = DenseData(dataset, (64, 64), Augment(flip=1)).training_batch(0, 0, 6)
    before = plain.training_batch(0, 0, 6)
    for old, new, count, (_, w) in zip(before.boxes, flipped.boxes, before.counts, before.sizes):
        expected = torch.stack([w - old[:, 2], old[:, 1], w - old[:, 0], old[:, 3]], 1)[:count]
        torch.testing.assert_close(new[:count], expected)
    assert before.sizes.equal(flipped.sizes) and before.counts.equal(flipped.counts)
    for old, new, (_, w) in zip(before.pictures, flipped.pictures, before.sizes):
        assert new[..., :w].equal(old[..., :w].flip(-1)) and new[..., w:].equal(old[..., w:])


def test_steps_of_augmentation():
    rng = np.random.default_rng(0)
    boxes = np.array([[0, 0, 10, 10], [20, 10, 40, 30], [35, 25, 40, 30]], np.float32)
    item = Item(rng.integers(0, 256, (30, 40, 3), np.uint8), boxes, np.arange(3))
    part = crop(item, (20, 25), (1.0 - 1e-9, 0.5), visible=0.5)  # rows 10 to 30, columns 8 to 33
    assert np.array_equal(part.picture, item.picture[10:30, 8:33])
    assert part.boxes.tolist() == [[12, 0, 25, 20]] and part.labels.tolist() == [1]  # 65 % of it
    assert crop(item, (20, 25), (1.0 - 1e-9, 0.5), visible=0.66).boxes.shape == (0, 4)
    for whole in (crop(item, (30, 40), (0.3, 0.9), 0.5), rescale(item, 1)):
        assert np.array_equal(whole.picture, item.picture) and np.array_equal(whole.boxes, boxes)
    grown = rescale(item, 1.35)
    assert grown.picture.shape == (40, 54, 3) and np.allclose(grown.boxes, boxes * 1.35)
    assert rescale(Item(np.zeros((1, 200, 3), np.uint8), boxes, item.labels), 0.25).picture.shape == (1, 50, 3)


def test_colours():
    item = Item(np.full((4, 4, 3), 100, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    augment = Augment(flip=0, colour=0.2, brightness=0.3)
    seen = np.array([augment(item, (4, 4), np.random.default_rng(i)).picture[0, 0] for i in range(400)]) / 100
    assert seen.min() > np.exp(-0.5) - 0.01 and seen.max() < np.exp(0.5) + 0.01
    assert np.log(seen).std() == pytest.approx(np.sqrt((0.3**2 + 0.2**2) / 3), rel=0.1)
    assert np.corrcoef(np.log(seen).T)[0, 1] == pytest.approx(0.3**2 / (0.3**2 + 0.2**2), abs=0.1)


def test_digits_are_not_mirrored(dataset):
    assert PRESETS["digits"].flip == 0 and PRESETS["flip"].flip == 0.5 and PRESETS["none"] is None


def test_max_boxes(dataset):
    assert DenseData(dataset, (48, 64), max_boxes=5).batch([0]).boxes.shape == (1, 5, 4)
    with pytest.raises(ValueError, match="DenseData: expected max_boxes of at least 2, got 1"):
        DenseData(dataset, (48, 64), max_boxes=1)


def test_unreadable(tmp_path):
    data = CocoDataset(write_dataset(tmp_path, [(20, 20)] * 3, []), "val")
    (tmp_path / "val" / "2.png").write_bytes(b"abc")
    with pytest.raises(UnreadablePicture, match="image 2"):
        DenseData(data, (20, 20)).training_batch(0, 0, 3)
    lenient = DenseData(data, (20, 20), unreadable="skip")
    assert lenient.max_boxes == 1  # at least
    with pytest.warns(UserWarning, match="DenseData: the next picture takes the place of one: .*image 2"):
        batch = lenient.training_batch(0, 0, 3)
    levels = (batch.pictures[:, 0, 0, 0] * STD[0] + MEAN[0]) * 255
    assert sorted(levels.round().int().tolist()) == [40, 120, 120]
    with pytest.raises(UnreadablePicture, match="image 2"):
        lenient.pictures([1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(flip=1.5), r"expected flip in 0\.\.1, got 1.5"),
        (dict(zoom=(1.2, 1)), r"as zoom, got \(1.2, 1\)"),
        (dict(zoom=(0.1, 1)), r"as zoom, got \(0.1, 1\)"),
        (dict(visible=0), r"expected visible in \(0, 1\], got 0"),
        (dict(colour=-1), r"expected colour and brightness in 0\.\.2, got -1 and 0.0"),
    ],
)
def test_wrong_augment(options, message):
    with pytest.raises(ValueError, match=f"Augment: .*{message}"):
        Augment(**options)


def test_wrong_size(dataset):
    with pytest.raises(ValueError, match="DenseData: expected a size of at least 1 x 1, got 0 x 5"):
        DenseData(dataset, (0, 5))
    with pytest.raises(ValueError, match="DenseData: expected unreadable to be raise or skip"):
        DenseData(dataset, (5, 5), unreadable="ignore")
