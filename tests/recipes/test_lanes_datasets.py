"""The three readers on tiny data sets in their real layouts, whole and damaged."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from pydistill.recipes.lanes.datasets import BDD100K, CULane, LaneDataset, TuSimple, UnreadablePicture

DRIVER = "driver_23_30frame/05151649_0422.MP4"
SIZES = {TuSimple: (72, 128), CULane: (59, 164), BDD100K: (72, 128)}  # a tenth of the true ones


@dataclass
class Layout:
    """A data set of three pictures on disk: how to open it, its list file, pictures and label pictures."""

    reader: type
    root: Path
    list_file: Path
    names: list[str]
    labels: list[Path]

    def open(self, **options) -> LaneDataset:
        file = str(self.list_file.relative_to(self.root))
        return self.reader(self.root, [file] if self.reader is TuSimple else file, **options)

    def picture(self, index: int) -> Path:
        return self.root / self.names[index]


def _write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def _picture(reader, index):
    """Grey of a level that tells the index, so that JPEG keeps it, with a blue half on the left."""
    picture = np.full((*SIZES[reader], 3), 40 + 60 * index, np.uint8)
    picture[:, : SIZES[reader][1] // 2, 0] = 250
    return picture


def _tusimple(root):
    names = [f"clips/0313-1/{60 * i}/20.jpg" for i in range(3)]
    h_samples = list(range(240, 720, 10))
    left, right = ([x + s * 8 * i for i in range(48)] for x, s in ((600, -1), (660, 1)))
    lanes = [[left, right], [right], []]
    records = ({"lanes": v, "h_samples": h_samples, "raw_file": n} for n, v in zip(names, lanes))
    (root / "label_data_0313.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    return Layout(TuSimple, root, root / "label_data_0313.json", names, [])


def _listed(reader, root, list_file, names, labels, bits):
    path = root / list_file
    path.parent.mkdir()
    path.write_text("".join(f"/{n} /{m} {b}\n" for n, m, b in zip(names, labels, bits)))
    return Layout(reader, root, path, names, [root / label for label in labels])


def _culane(root):
    names = [f"{DRIVER}/{30 * i:05d}.jpg" for i in range(3)]
    labels = [f"laneseg_label_w16/{DRIVER}/{30 * i:05d}.png" for i in range(3)]
    for i, label in enumerate(labels):
        mask = np.zeros(SIZES[CULane], np.uint8)
        for lane in range(1, 5 - i):  # 4, 3 and 2 lanes
            mask[20:, 30 * lane : 30 * lane + 8] = lane
        _write(root / label, mask)
    return _listed(CULane, root, "list/train_gt.txt", names, labels, ["1 1 1 1", "1 1 1 0", "1 1 0 0"])


def _bdd100k(root):
    stems = ["0000f77c-6257be58", "0000f77c-62c2a288", "0000f77c-cb820c98"]
    labels = [f"train_label/final_train/{stem}.png" for stem in stems]
    for i, label in enumerate(labels):
        mask = np.zeros(SIZES[BDD100K], np.uint8)
        mask[30:, 20 : 28 + 8 * i] = 255
        _write(root / label, mask)
    names = [f"train_img/train/{stem}.jpg" for stem in stems]
    return _listed(BDD100K, root, "list/train_gt_bdd.txt", names, labels, ["1 1 1 1"] * 3)


def _with_pictures(layout):
    for i, name in enumerate(layout.names):
        _write(layout.root / name, _picture(layout.reader, i))
    return layout


@pytest.fixture(params=[_tusimple, _culane, _bdd100k], ids=["tusimple", "culane", "bdd100k"])
def layout(request, tmp_path):
    return _with_pictures(request.param(tmp_path))


@pytest.fixture(params=[_culane, _bdd100k], ids=["culane", "bdd100k"])
def labelled(request, tmp_path):
    """The layouts with label pictures; those of TuSimple are drawn."""
    return _with_pictures(request.param(tmp_path))


@pytest.fixture
def tusimple(tmp_path):
    return _with_pictures(_tusimple(tmp_path))


@pytest.fixture
def culane(tmp_path):
    return _with_pictures(_culane(tmp_path))


def _order(data):
    """Which of the three pictures are left, by their grey."""
    return [round((float(data.picture(i)[..., 1].mean()) - 40) / 60) for i in range(len(data))]


def test_pictures(layout):
    data = layout.open()
    assert [data.name(i) for i in range(len(data))] == layout.names and _order(data) == [0, 1, 2]
    picture = data.picture(0)
    assert picture.shape == (*SIZES[layout.reader], 3) and picture.dtype == np.uint8
    assert picture[:, 20, 0].min() > 230 and picture[:, -20].max() < 60  # blue comes first
    frames = {TuSimple: ((720, 1280), 5), CULane: ((590, 1640), 5), BDD100K: ((720, 1280), 2)}
    assert (data.frame, data.classes) == frames[layout.reader]


def test_tusimple_labels(tusimple):
    data = tusimple.open()
    label, existence = data.label(0, (90, 160), 32)
    assert existence.tolist() == [0, 1, 1, 0] and existence.dtype == np.float32
    # At y = 480 the lanes are at x = 600 - 8 * 24 and 660 + 8 * 24; here that is an eighth, and 4 pixels across a lane.
    row = label[60]
    assert abs(np.flatnonzero(row == 2).mean() - 408 / 8) < 1 and abs(np.flatnonzero(row == 3).mean() - 852 / 8) < 1
    assert 4 <= (row == 2).sum() <= 7 and not label[:27].any()
    assert data.label(1, (90, 160), 32)[1].tolist() == [0, 0, 1, 0]
    assert not data.label(2, (90, 160), 32)[0].any()


def test_tusimple_reads_several_files(tusimple):
    root, lines = tusimple.root, tusimple.list_file.read_text().splitlines()
    assert TuSimple.SPLITS["train"] == ("label_data_0313.json", "label_data_0601.json")
    for file, line in zip((*TuSimple.SPLITS["train"], *TuSimple.SPLITS["test"]), lines, strict=True):
        (root / file).write_text(line)
    assert _order(TuSimple(root, TuSimple.SPLITS["train"])) == [0, 1]
    assert _order(TuSimple(root, TuSimple.SPLITS["test"])) == [2]


@pytest.mark.parametrize("size", [(59, 164), (118, 328), (32, 100)])
def test_culane_labels_keep_their_classes(culane, size):
    label, existence = culane.open().label(1, size)
    assert label.shape == size and set(np.unique(label)) == {0, 1, 2, 3} and existence.tolist() == [1, 1, 1, 0]
    truth = cv2.imread(str(culane.labels[1]), cv2.IMREAD_UNCHANGED)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, truth.shape))  # the nearest source pixel
    np.testing.assert_array_equal(label, truth[np.ix_(rows, columns)])


def test_culane_lanes(culane):
    data = culane.open()
    culane.picture(0).with_suffix(".lines.txt").write_text("-12.5 590 10.25 570 33 550 \n1650.5 590 1600 570\n")
    assert [lane.tolist() for lane in data.lanes(0)] == [
        [[-12.5, 590], [10.25, 570], [33, 550]],
        [[1650.5, 590], [1600, 570]],
    ]
    assert data.lanes(1) == []
    culane.picture(1).with_suffix(".lines.txt").write_text("1 590\n2 590 x\n")
    with pytest.raises(ValueError, match=r"00030.lines.txt, line 2, got '2 590 x'"):
        data.lanes(1)
    with pytest.warns(UserWarning, match=r"left out 1; .*00030.lines.txt, line 2"):
        assert len(culane.open(malformed="skip").lanes(1)) == 1


def test_culane_test_split(culane):
    """A category lists pictures alone: they and their lanes are read, and labels refused."""
    split = culane.root / "list" / "test_split"
    split.mkdir()
    (split / "test0_normal.txt").write_text("".join(f"{name}\n" for name in culane.names[1:]))
    data = CULane(culane.root, "list/test_split/test0_normal.txt")
    assert _order(data) == [1, 2] and data.lanes(0) == []
    with pytest.raises(ValueError, match=r"^CULane: expected a list with labels.*test0_normal.txt, line 2 without one"):
        data.label(1, (59, 164))


def test_bdd100k_labels(tmp_path):
    layout = _bdd100k(tmp_path)
    moved = [tmp_path / "images" / "100k" / "train" / Path(name).name for name in layout.names]
    for i, path in enumerate(moved):  # as distributed, not as listed
        _write(path, _picture(BDD100K, i))
    data = layout.open()
    assert _order(data) == [0, 1, 2] and data.name(0) == layout.names[0]
    label, existence = data.label(1, (36, 64), 1)
    wanted = np.zeros((36, 64), np.uint8)
    wanted[15:, 10:18] = 1
    np.testing.assert_array_equal(label, wanted)
    assert existence.tolist() == [1, 1, 1, 1]
    layout.list_file.write_text(layout.list_file.read_text().replace("/train_img/", "/images/100k/"))
    assert _order(layout.open()) == [0, 1, 2]


def _refused(layout, kind, message):
    """Both options: an error that says ``message``, and the other two pictures with one warning that says it."""
    reader = layout.reader.__name__
    with pytest.raises(kind, match=f"^{reader}: expected {message}"):
        layout.open()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = layout.open(malformed="skip")
    assert len(caught) == 1 and str(caught[0].message).startswith(f"{reader}: left out 1; the first: expected ")
    assert _order(data) == [0, 2]
    with pytest.raises(ValueError, match=f"^{reader}: expected malformed to be raise or skip, got 'ignore'"):
        layout.open(malformed="ignore")


def test_malformed_line(layout):
    lines = layout.list_file.read_text().splitlines()
    lines[1] = lines[1][:-9]  # cut off
    layout.list_file.write_text("\n".join(lines))
    form = "a JSON object" if layout.reader is TuSimple else "a picture, or a picture, a label and four of 0 and 1"
    _refused(layout, ValueError, f"{form} in {layout.list_file}, line 2, got")


def test_missing_picture(layout):
    layout.picture(1).unlink()
    _refused(layout, FileNotFoundError, f".*{Path(layout.names[1]).name} of {layout.list_file}, line 2, got no such")


def test_missing_label(labelled):
    labelled.labels[1].unlink()
    _refused(labelled, FileNotFoundError, f"{labelled.labels[1]} of {labelled.list_file}, line 2, got no such file")


def test_missing_list(layout):
    layout.list_file.unlink()
    for malformed in ("raise", "skip"):
        with pytest.raises(FileNotFoundError, match=str(layout.list_file)):
            layout.open(malformed=malformed)


def test_nothing_left(layout):
    for i in range(3):
        layout.picture(i).unlink()
    with (
        pytest.warns(UserWarning, match="left out 3"),
        pytest.raises(ValueError, match="at least one picture in .*got none"),
    ):
        layout.open(malformed="skip")


@pytest.mark.parametrize("malformed", ["raise", "skip"])
@pytest.mark.parametrize("damage", ["text", "truncated", "empty", "gone"])
def test_unreadable_picture(layout, malformed, damage):
    """Shows when it is read; the others stay readable."""
    data, path = layout.open(malformed=malformed), layout.picture(1)
    contents = {"text": b"no picture", "truncated": path.read_bytes()[:-200], "empty": b""}
    path.write_bytes(contents[damage]) if damage in contents else path.unlink()
    reason = "got: No such file" if damage == "gone" else f"got {len(contents[damage])} bytes that do not decode"
    with pytest.raises(UnreadablePicture, match=f"{path} of {layout.list_file}, line 2, {reason}"):
        data.picture(1)
    assert data.picture(0).shape == data.picture(2).shape


def test_unreadable_label(labelled):
    data, path = labelled.open(), labelled.labels[1]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadablePicture, match=f"{path} of {labelled.list_file}, line 2, got .* do not decode"):
        data.label(1, (30, 40))


def test_label_of_other_classes(culane):
    _write(culane.labels[0], np.full(SIZES[CULane], 255, np.uint8))
    with pytest.raises(UnreadablePicture, match=f"classes below 5 in {culane.labels[0]} of .*, line 1, got 255"):
        culane.open().label(0, (59, 164))


def test_label_of_several_channels(labelled):
    """Of a label picture with three channels the first counts, as in the released code."""
    data, path = labelled.open(), labelled.labels[0]
    before = data.label(0, (30, 40))[0]
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    _write(path, np.stack([label, np.zeros_like(label), np.full_like(label, 255)], -1))
    np.testing.assert_array_equal(data.label(0, (30, 40))[0], before)
