"""The TuSimple layout, labels."""

import numpy as np
import pytest

from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.road import SIZE


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tusimple(tmp_path_factory.mktemp("lanes"), seed=3, train=6, test=2)


def test_mirror_swaps_lanes_and_existence(root):
    data = LaneData(root, ["label_data_0313.json"], (96, 160))
    existence = data.batch(range(6)).existence
    uneven = next(i for i in range(6) if not existence[i].equal(existence[i].flip(0)))
    plain, mirrored = data.batch([uneven, 1]), data.batch([uneven, 1], [True, False])
    assert plain.pictures[1].equal(mirrored.pictures[1]) and plain.labels[1].equal(mirrored.labels[1])
    assert mirrored.pictures[0].equal(plain.pictures[0].flip(-1))
    assert mirrored.existence[0].equal(plain.existence[0].flip(0))
    for lane in range(1, 5):
        assert (mirrored.labels[0] == lane).equal((plain.labels[0] == 5 - lane).flip(-1))


def test_pictures_are_normalised_rgb(root):
    data = LaneData(root, ["test_label.json"], SIZE)
    blue = data.original(0)[..., 0].astype(np.float64)
    np.testing.assert_allclose(data.batch([0]).pictures[0, 2], (blue / 255 - 0.3662) / 0.2756, rtol=0, atol=1e-5)


def test_training_batches(root):
    data = LaneData(root, ["label_data_0313.json"], (48, 80))
    again = data.training_batch(7, 4, 2)
    assert data.training_batch(7, 4, 2).pictures.equal(again.pictures)
    assert not data.training_batch(8, 4, 2).pictures.equal(again.pictures)
    seen = [{p.flatten().sort().values.sum().item() for p in data.training_batch(0, s, 2).pictures} for s in range(3)]
    assert len(set().union(*seen)) == 6  # an epoch shows every picture once
    with pytest.raises(ValueError, match="at least 7 pictures for one batch, got 6"):
        data.training_batch(0, 0, 7)


def test_missing_picture(root, tmp_path):
    (tmp_path / "label.json").write_text((root / "test_label.json").read_text())
    with pytest.raises(FileNotFoundError, match="expected a picture, got"):
        LaneData(tmp_path, ["label.json"], (48, 80))
