"""TuSimple, CULane and BDD100K as they lie on disk: pictures, and labels at the size that a network is trained at.

::

    TuSimple    clips/<date>/<id>/20.jpg, label_data_0313.json, label_data_0531.json, label_data_0601.json,
                test_label.json
    CULane      driver_*/*.MP4/*.jpg with *.lines.txt beside them, laneseg_label_w16/**/*.png, list/*.txt,
                list/test_split/*.txt
    BDD100K     train_img/, val_img/ or images/100k/, train_label/, val_label/, list/*_gt_bdd.txt

All readers have ``malformed``: with ``raise`` a malformed line, a missing picture or a missing label is an error that
names it with the file and the line that ask for it; with ``skip`` they are left out, with one warning that counts them
and names the first. A list file that is missing is always an error. Pictures that do not decode show when they are
read, as ``UnreadablePicture``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.faults import Faults, Malformed
from pydistill.recipes.lanes import bdd100k, culane, road
from pydistill.recipes.lanes.lists import Entry, parse_list
from pydistill.recipes.lanes.tusimple import Record, draw_label, parse_labels
from pydistill.recipes.pictures import UnreadablePicture, read_label, read_picture

__all__ = ["BDD100K", "CULane", "LaneDataset", "Malformed", "TuSimple", "UnreadablePicture"]

_MOVED = ("train_img", "val_img")  # folders of BDD100K's lists that its distribution calls images/100k
Label = tuple[NDArray[np.uint8], NDArray[np.float32]]


class LaneDataset(Protocol):
    """What training, evaluation and prediction know of a data set."""

    frame: tuple[int, int]
    """Height and width of the coordinates that its lanes use."""
    classes: int
    """Of the segmentation, background among them."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The picture's path below the root as the data set's files write it, without a leading slash."""

    def picture(self, index: int) -> NDArray[np.uint8]:
        """The picture as it is on disk, (h, w, 3) BGR.

        Raises:
            UnreadablePicture: if it does not decode.
        """

    def label(self, index: int, size: tuple[int, int], line_width: int = 15) -> Label:
        """Classes (H, W), 255 where the loss is to look away, and existence (4,) of 0 and 1.

        Args:
            index: of the picture.
            size: height and width of the label.
            line_width: of the lanes in pixels of ``frame``, where the data set has lanes and no label pictures.

        Raises:
            UnreadablePicture: if a label picture does not decode.
        """


class TuSimple:
    """TuSimple's layout, which generated scenes have too; labels are drawn.

    Args:
        root: folder of the data set.
        files: label files below it; ``SPLITS`` has those of InhwanBae/ENet-SAD_Pytorch.
        malformed: see the module.
    """

    SPLITS: Mapping[str, Sequence[str]] = {
        "train": ("label_data_0313.json", "label_data_0601.json"),
        "val": ("label_data_0531.json",),
        "test": ("test_label.json",),
    }
    frame, classes = road.FRAME, 5

    def __init__(self, root: Path, files: Sequence[str], *, malformed: Malformed = "raise"):
        faults = Faults("TuSimple", malformed)
        self.root = root
        records = parse_labels([root / file for file in files], faults)
        self.records: list[Record] = [r for r in records if _is_there(root / r.raw_file.lstrip("/"), r.source, faults)]
        _finish(faults, len(self), ", ".join(files))

    def __len__(self) -> int:
        return len(self.records)

    def name(self, index: int) -> str:
        """See ``LaneDataset``."""
        return self.records[index].raw_file.lstrip("/")

    def picture(self, index: int) -> NDArray[np.uint8]:
        """See ``LaneDataset``."""
        return read_picture(self.root / self.name(index), self.records[index].source)

    def label(self, index: int, size: tuple[int, int], line_width: int = 15) -> Label:
        """Draws the lanes; see ``LaneDataset``."""
        return draw_label(self.records[index], size, line_width)


class _Listed:
    """A data set whose list file has a picture, its label picture and the lanes that exist on each line."""

    frame: tuple[int, int]
    classes: int

    def __init__(self, root: Path, list_file: str, *, malformed: Malformed = "raise"):
        faults = Faults(type(self).__name__, malformed)
        self.root = root
        entries = parse_list(root / list_file, faults)
        self.entries: list[Entry] = [entry for entry in entries if self._is_complete(entry, faults)]
        _finish(faults, len(self), list_file)

    def _is_complete(self, entry: Entry, faults: Faults) -> bool:
        """Whether the picture of a line is there, and the label if the line has one."""
        files = [self._place(entry.picture)] + ([self.root / entry.label] if entry.label is not None else [])
        return all(_is_there(file, entry.source, faults) for file in files)

    def _place(self, picture: str) -> Path:
        """The file of a picture."""
        return self.root / picture

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """See ``LaneDataset``."""
        return self.entries[index].picture

    def picture(self, index: int) -> NDArray[np.uint8]:
        """See ``LaneDataset``."""
        return read_picture(self._place(self.name(index)), self.entries[index].source)

    def label(self, index: int, size: tuple[int, int], line_width: int = 15) -> Label:
        """The label picture at ``size`` (nearest pixel); see ``LaneDataset``.

        Raises:
            UnreadablePicture: if the label picture does not decode, or has other classes.
            ValueError: if the list has no labels.
        """
        entry, reader = self.entries[index], type(self).__name__
        if entry.label is None:
            raise ValueError(f"{reader}: expected a list with labels, such as train_gt, got {entry.source} without one")
        label = self._to_classes(read_label(self.root / entry.label, entry.source))
        if label.max() >= self.classes:
            expected = f"classes below {self.classes} in {self.root / entry.label} of {entry.source}"
            raise UnreadablePicture(f"{reader}: expected {expected}, got {label.max()}")
        resized = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, np.uint8), np.array(entry.existence, np.float32)

    def _to_classes(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The classes that a label picture stands for."""
        return label


class CULane(_Listed):
    """CULane's layout. Labels come from ``laneseg_label_w16`` with its line width, whatever ``line_width`` says.

    Args:
        root: folder of the data set.
        list_file: list below it. ``list/train_gt.txt`` and ``list/val_gt.txt`` have labels. ``list/test.txt`` and the
            categories in ``list/test_split/`` have pictures alone: ``label`` refuses, while ``lanes`` is all that the
            metric needs.
        malformed: see the module.
    """

    SPLITS: Mapping[str, str] = {"train": "list/train_gt.txt", "val": "list/val_gt.txt", "test": "list/test.txt"}
    frame, classes = culane.FRAME, 5

    def __init__(self, root: Path, list_file: str = "list/train_gt.txt", *, malformed: Malformed = "raise"):
        super().__init__(root, list_file, malformed=malformed)
        self.malformed: Malformed = malformed

    def lanes(self, index: int) -> list[culane.Lane]:
        """The lanes of the picture's ``.lines.txt``; none if there is no such file, as in the released evaluator."""
        file = culane.lines_path(self.root, self.name(index))
        return culane.read_lines(file, malformed=self.malformed) if file.exists() else []


class BDD100K(_Listed):
    """BDD100K in the layout of SAD's authors: one lane class, labels of 0 and 255 whatever ``line_width`` says.

    Existence comes from the list, where it is always 1.

    Args:
        root: folder of the data set. Pictures that the list has in ``train_img/`` or ``val_img/`` may also lie in
            ``images/100k/``, as BDD100K is distributed.
        list_file: list below it.
        malformed: see the module.
    """

    SPLITS: Mapping[str, str] = {s: f"list/{s}_gt_bdd.txt" for s in ("train", "val", "test")}
    frame, classes = bdd100k.FRAME, 2

    def __init__(self, root: Path, list_file: str = "list/train_gt_bdd.txt", *, malformed: Malformed = "raise"):
        super().__init__(root, list_file, malformed=malformed)

    def _place(self, picture: str) -> Path:
        folder, _, rest = picture.partition("/")
        moved = self.root / "images" / "100k" / rest
        return moved if folder in _MOVED and moved.is_file() else self.root / picture

    def _to_classes(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return (label > 0).astype(np.uint8)


def _is_there(file: Path, source: str, faults: Faults) -> bool:
    """Whether a file exists; a fault if not."""
    there = file.is_file()
    if not there:
        faults.add(f"expected {file} of {source}, got no such file", FileNotFoundError)
    return there


def _finish(faults: Faults, count: int, files: str) -> None:
    """Warns of what was left out, and refuses a data set without pictures."""
    faults.warn()
    if count == 0:
        raise ValueError(f"{faults.reader}: expected at least one picture in {files}, got none")
