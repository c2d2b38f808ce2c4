"""Batches of a data set."""

import warnings

import numpy as np
import pytest
import torch

from pydistill.recipes.lanes.augment import PRESETS, Augment
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.datasets import TuSimple, UnreadablePicture
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.road import SIZE


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tusimple(tmp_path_factory.mktemp("lanes"), seed=3, train=6, test=2)


class Memory:
    """A data set of ``count`` pictures of one brightness each; those in ``broken`` cannot be read."""

    frame, classes = (60, 100), 5

    def __init__(self, count, broken=(), broken_labels=()):
        self.count, self.broken, self.broken_labels = count, set(broken), set(broken_labels)
        self.reads = []

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{index}.jpg"

    def picture(self, index):
        self.reads.append(index)
        if index in self.broken:
            raise UnreadablePicture(f"expected a picture in {index}.jpg of list.txt, line {index + 1}, got 3 bytes")
        return np.full((60, 100, 3), 10 * index, np.uint8)

    def label(self, index, size, line_width=15):
        if index in self.broken_labels:
            raise UnreadablePicture(f"expected a label in {index}.png of list.txt, line {index + 1}, got 3 bytes")
        label = np.zeros(size, np.uint8)
        label[:, : size[1] // 4] = 1 + index % 4
        label[0] = line_width
        return label, np.eye(4, dtype=np.float32)[index % 4]


SIZE_OF_BATCH = (12, 20)


def _indices(batch):
    """Which pictures of ``Memory`` a batch has."""
    red = batch.pictures[:, 0].flatten(1).mean(1) * 0.2573 + 0.3598
    return (red * 25.5).round().int().tolist()


def _same(a, b):
    return a.pictures.equal(b.pictures) and a.labels.equal(b.labels) and a.existence.equal(b.existence)


def test_batch():
    data = LaneData(Memory(9), SIZE_OF_BATCH, line_width=7)
    batch = data.batch([2, 5])
    assert _indices(batch) == [2, 5] and len(data) == 9
    assert batch.pictures.shape == (2, 3, 12, 20) and batch.labels.shape == (2, 12, 20)
    assert [t.dtype for t in (batch.pictures, batch.labels, batch.existence)] == [
        torch.float32,
        torch.int64,
        torch.float32,
    ]
    assert batch.existence.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    for label, lane in zip(batch.labels, (3, 2)):
        assert (label[1:, :5] == lane).all() and (label[1:, 5:] == 0).all() and (label[0] == 7).all()
    assert data.pictures([2, 5]).equal(batch.pictures)
    assert data.original(2).shape == (60, 100, 3)


def test_pictures_are_normalised_rgb(root):
    dataset = TuSimple(root, ["test_label.json"])
    data = LaneData(dataset, SIZE)
    original = data.original(0).astype(np.float64)
    for channel, mean, std in ((0, 0.3598, 0.2573), (1, 0.3653, 0.2663), (2, 0.3662, 0.2756)):
        expected = (original[..., 2 - channel] / 255 - mean) / std
        np.testing.assert_allclose(data.pictures([0])[0, channel], expected, rtol=0, atol=1e-6)
    label, existence = dataset.label(0, SIZE)
    batch = data.batch([0])
    assert np.array_equal(batch.labels[0], label) and np.array_equal(batch.existence[0], existence)


def test_pictures_need_no_labels():
    data = LaneData(Memory(3, broken_labels=[1]), SIZE_OF_BATCH)
    assert data.pictures([1]).shape == (1, 3, 12, 20)


def test_training_batch_depends_on_its_arguments_alone():
    def fresh(**options):
        return LaneData(Memory(9), SIZE_OF_BATCH, augment=Augment(), **options)

    data = fresh()
    batches = [data.training_batch(7, step, 2) for step in range(9)]  # more than two epochs of four
    for step in reversed(range(9)):
        assert _same(fresh(cache=False).training_batch(7, step, 2), batches[step])
        assert _same(data.training_batch(7, step, 2), batches[step])
    assert not _same(fresh().training_batch(8, 0, 2), batches[0])


def test_epochs():
    data = LaneData(Memory(9), SIZE_OF_BATCH)
    epochs = [[i for s in range(4) for i in _indices(data.training_batch(0, 4 * e + s, 2))] for e in range(3)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)  # no picture twice, the ninth left out
    assert len({tuple(epoch) for epoch in epochs}) == 3
    with pytest.raises(ValueError, match="LaneData: expected at least 10 pictures for one batch, got 9"):
        data.training_batch(0, 0, 10)


def test_changes_follow_the_picture_and_the_epoch():
    """The same picture changes alike wherever in the epoch its batch is, and otherwise in the next epoch."""
    data = LaneData(Memory(8), SIZE_OF_BATCH, augment=Augment(flip=0.5, rotate=20, crop=(0.5, 0.9)))
    by_size = [
        {i: label for s in range(8 // size) for b in [data.training_batch(1, s, size)]
         for i, label in zip(_shown(b), b.labels)}
        for size in (2, 4)
    ]  # fmt: skip
    assert all(by_size[0][i].equal(by_size[1][i]) for i in range(8))
    later = {i: label for b in [data.training_batch(1, 1, 8)] for i, label in zip(_shown(b), b.labels)}
    assert not any(later[i].equal(by_size[0][i]) for i in range(8))


def test_pictures_of_a_batch_change_each_on_its_own():
    data = LaneData(Memory(8), SIZE_OF_BATCH, augment=PRESETS["flip"])
    flips = torch.stack([data.training_batch(1, epoch, 8).labels[:, 6, 0] == 0 for epoch in range(20)])
    assert 0.35 < flips.float().mean() < 0.65
    assert (flips.any(1) & ~flips.all(1)).float().mean() > 0.9


def _shown(batch):
    """``_indices`` by the pixel in the middle, which augmentation leaves alone."""
    return ((batch.pictures[:, 0, 6, 10] * 0.2573 + 0.3598) * 25.5).round().int().tolist()


def test_only_training_is_augmented():
    plain, changed = (LaneData(Memory(8), SIZE_OF_BATCH, augment=a) for a in (None, Augment(flip=1)))
    assert _same(plain.batch(range(8)), changed.batch(range(8)))
    before, after = plain.training_batch(0, 0, 8), changed.training_batch(0, 0, 8)
    assert _shown(before) == _shown(after) and after.existence.equal(before.existence.flip(1))
    assert _same(plain.batch(range(8)), changed.batch(range(8)))  # the cache keeps what was read


def test_cache():
    for cache, reads in ((True, [3]), (False, [3, 3])):
        dataset = Memory(9)
        data = LaneData(dataset, SIZE_OF_BATCH, cache=cache)
        data.batch([3])
        data.pictures([3])
        assert dataset.reads == reads


@pytest.mark.parametrize("workers", [0, 2])
def test_loader(workers):
    data = LaneData(Memory(9), SIZE_OF_BATCH, augment=Augment(), cache=False)
    steps = range(1, 8, 3)
    batches = list(data.loader(5, 2, steps, workers))
    assert len(batches) == 3
    assert all(_same(batch, data.training_batch(5, step, 2)) for batch, step in zip(batches, steps))


@pytest.mark.parametrize("broken", [dict(broken=[3, 4]), dict(broken_labels=[3, 4])])
def test_unreadable(broken):
    with pytest.raises(UnreadablePicture, match=r"3\....? of list.txt, line 4"):
        LaneData(Memory(4, **broken), SIZE_OF_BATCH).training_batch(0, 0, 4)
    data = LaneData(Memory(9, **broken), SIZE_OF_BATCH, unreadable="skip")
    with pytest.warns(UserWarning, match="takes the place") as warned:
        seen = sorted(i for step in range(3) for i in _indices(data.training_batch(0, step, 3)))
    assert seen == [0, 1, 2, 5, 5, 5, 6, 7, 8]
    messages = [str(w.message) for w in warned]
    assert len(messages) == 2 and all(sum(f"line {n}," in m for m in messages) == 1 for n in (4, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once per file
        data.training_batch(0, 3, 9)
    with pytest.raises(UnreadablePicture, match="list.txt, line 4"):  # a score over other pictures would be no score
        data.batch([3])


def test_unreadable_last_is_followed_by_the_first():
    data = LaneData(Memory(5, broken=[4]), SIZE_OF_BATCH, unreadable="skip")
    with pytest.warns(UserWarning, match="line 5"):
        assert sorted(_indices(data.training_batch(0, 0, 5))) == [0, 0, 1, 2, 3]


def test_nothing_readable():
    data = LaneData(Memory(2, broken=[0, 1]), SIZE_OF_BATCH, unreadable="skip")
    with (
        pytest.warns(UserWarning, match="takes the place"),
        pytest.raises(UnreadablePicture, match="expected a picture that can be read, got none among 2"),
    ):
        data.training_batch(0, 0, 1)


def test_wrong_option():
    with pytest.raises(ValueError, match="LaneData: expected unreadable to be raise or skip, got 'ignore'"):
        LaneData(Memory(2), SIZE_OF_BATCH, unreadable="ignore")
