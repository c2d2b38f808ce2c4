"""Object detection data in COCO's layout, as COCO and ``write_coco`` have it.

::

    root/annotations/instances_train2017.json, or instances_train.json
    root/train2017/*.jpg, root/images/train2017/*.jpg, or root/train/*.jpg

With ``malformed="raise"`` an image or annotation that is not as it should be, or a picture that is missing, is an
error that names it; with ``skip`` it is left out, with one warning that counts what is left out and names the first. A
file of annotations that is missing or no JSON is always an error. Pictures that do not decode show when they are read,
as ``UnreadablePicture``.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.faults import Faults, Malformed
from pydistill.recipes.pictures import read_picture

Target = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]  # boxes xyxy, labels, crowd
_SMALLEST = 1.0  # pixels; a box with a shorter side inside its picture is no target


class Annotation(NamedTuple):
    """An annotation as the file has it; ``box`` is x, y, width, height in pixels."""

    id: int
    category: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool


class _Image(NamedTuple):
    """An image of the file; height and width are None where the file does not say."""

    id: int
    file_name: str
    height: float | None
    width: float | None


class CocoDataset:
    """Pictures and boxes of a split.

    Attributes:
        classes: names of the classes, in the order of the categories' ids; the label of a class is its place here.
        categories: the ids.

    Args:
        root: folder of the data set.
        split: ``"train"`` or ``"val"``, of which COCO's own names end in 2017, or the whole name.
        malformed: see the module.
        filled: leaves out pictures without a box to learn from, as mmdetection's training does.

    Raises:
        FileNotFoundError: if there is no file of annotations; the message names what was looked for.
        ValueError: for a malformed file or entry, or if no picture is left.
    """

    def __init__(self, root: Path, split: str, *, malformed: Malformed = "raise", filled: bool = False):
        faults = Faults("CocoDataset", malformed)
        self.file, folders = _find(root, split)
        content = _read(self.file)
        names = _read_categories(content["categories"], self.file)
        self.classes, self.categories = tuple(names.values()), tuple(names)
        self._labels = {category: label for label, category in enumerate(self.categories)}
        images, self._paths = _read_images(content["images"], folders, self.file, faults)
        self._truth = _read_annotations(content["annotations"], images, names, self.file, faults)
        self._images = list(images.values())
        if filled:
            self._images = [image for image in self._images if _has_target(image, self._truth[image.id])]
        faults.warn()
        if not self._images:
            raise ValueError(f"CocoDataset: expected at least one picture in {self.file}, got none")

    def __len__(self) -> int:
        return len(self._images)

    def image_id(self, index: int) -> int:
        """The id of a picture in the file."""
        return self._images[index].id

    def name(self, index: int) -> str:
        """The file name of a picture as the file has it."""
        return self._images[index].file_name

    def picture(self, index: int) -> NDArray[np.uint8]:
        """A picture as it is on disk, (h, w, 3) uint8 BGR.

        Raises:
            UnreadablePicture: if it does not decode.
        """
        image = self._images[index]
        return read_picture(self._paths[image.id], f"{self.file}, image {image.id}")

    def target(self, index: int) -> Target:
        """What a detector is to find, inside the picture.

        Returns:
            boxes: (k, 4) float32, left, top, right, bottom in pixels, clipped to the picture. A box with a side below
                a pixel there is left out.
            labels: (k,) int64, places in ``classes``.
            crowd: (k,) bool, whether a box stands for a group or for what is hardly visible; it is not to be learnt.
        """
        image = self._images[index]
        clipped = [(_clip(annotation.box, image), annotation) for annotation in self._truth[image.id]]
        found = [(box, annotation) for box, annotation in clipped if box is not None]
        return (
            np.array([box for box, _ in found], np.float32).reshape(-1, 4),
            np.array([self._labels[a.category] for _, a in found], np.int64),
            np.array([a.crowd for _, a in found], np.bool_),
        )

    def annotations(self, index: int) -> list[Annotation]:
        """The annotations of a picture as they are in the file, which evaluation goes by."""
        return self._truth[self._images[index].id]


def _find(root: Path, split: str) -> tuple[Path, list[Path]]:
    """The file of annotations of a split, and the folders that its pictures may be in."""
    wanted = [root / "annotations" / f"instances_{name}.json" for name in (split, f"{split}2017")]
    for file in wanted:
        if file.is_file():
            name = file.stem.removeprefix("instances_")
            return file, [root / name, root / "images" / name]
    raise FileNotFoundError(f"CocoDataset: expected {' or '.join(map(str, wanted))}, got none")


def _read(file: Path) -> dict[str, list[Any]]:
    """The three lists of a file of annotations. Outlines, most of a file of COCO's, are dropped while it is read."""

    def without_outline(item: dict[str, Any]) -> dict[str, Any]:
        item.pop("segmentation", None)
        return item

    try:
        content = json.loads(file.read_bytes(), object_hook=without_outline)
    except ValueError as error:
        raise ValueError(f"CocoDataset: expected JSON in {file}, got: {error}") from error
    lists = {}
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(f"CocoDataset: expected a list of {name} in {file}, got none")
        lists[name] = content[name]
    return lists


def _read_categories(entries: Iterable[Any], file: Path) -> dict[int, str]:
    """Names by id, in the order of the ids, which may have gaps."""
    names: dict[int, str] = {}
    for entry in entries:
        if not (isinstance(entry, dict) and _is_id(entry.get("id")) and isinstance(entry.get("name"), str)):
            raise ValueError(f"CocoDataset: expected categories with id and name in {file}, got {_show(entry)}")
        if entry["id"] in names:
            raise ValueError(f"CocoDataset: expected each category once in {file}, got {_show(entry)} again")
        names[entry["id"]] = entry["name"]
    if not names:
        raise ValueError(f"CocoDataset: expected at least one category in {file}, got none")
    return dict(sorted(names.items()))


def _read_images(
    entries: Iterable[Any], folders: list[Path], file: Path, faults: Faults
) -> tuple[dict[int, _Image], dict[int, Path]]:
    """The images by id in the file's order, and where their pictures are."""
    images: dict[int, _Image] = {}
    paths = {}
    for entry in entries:
        if not (isinstance(entry, dict) and _is_id(entry.get("id")) and isinstance(entry.get("file_name"), str)):
            faults.add(f"expected images with id and file_name in {file}, got {_show(entry)}")
            continue
        image = _Image(entry["id"], entry["file_name"], *(_number(entry.get(side)) for side in ("height", "width")))
        found = [path for folder in folders if (path := folder / image.file_name).is_file()]
        if image.id in images:
            faults.add(f"expected each image once in {file}, got {_show(entry)} again")
        elif not found:
            what = f"{folders[0] / image.file_name} of {file}, image {image.id}"
            faults.add(f"expected {what}, got no such file", FileNotFoundError)
        else:
            images[image.id], paths[image.id] = image, found[0]
    return images, paths


def _read_annotations(
    entries: Iterable[Any], images: dict[int, _Image], names: dict[int, str], file: Path, faults: Faults
) -> dict[int, list[Annotation]]:
    """The annotations by image. Those of a picture that was left out before go without a word."""
    truth: dict[int, list[Annotation]] = {image: [] for image in images}
    left_out = faults.count > 0
    for entry in entries:
        annotation = _to_annotation(entry)
        if annotation is None or annotation.category not in names:
            expected = "annotations with id, image_id, bbox of four numbers and a category of the file"
            faults.add(f"expected {expected} in {file}, got {_show(entry)}")
        elif entry["image_id"] in truth:
            truth[entry["image_id"]].append(annotation)
        elif not left_out:
            faults.add(f"expected annotations of images of the file in {file}, got {_show(entry)}")
    return truth


def _to_annotation(entry: Any) -> Annotation | None:
    """An entry of the file, None if it is malformed."""
    if not isinstance(entry, dict) or not all(_is_id(entry.get(key)) for key in ("id", "image_id", "category_id")):
        return None
    box = entry.get("bbox")
    sides = [_number(value) for value in box] if isinstance(box, list) else []
    if len(sides) != 4 or None in sides:
        return None
    x, y, w, h = (float(side) for side in sides if side is not None)
    area = _number(entry.get("area"))
    crowd = bool(entry.get("iscrowd", 0))
    return Annotation(entry["id"], entry["category_id"], (x, y, w, h), w * h if area is None else area, crowd)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fine else None


def _show(entry: Any) -> str:
    return str(entry)[:120]


def _clip(box: tuple[float, float, float, float], image: _Image) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom inside the picture; None if hardly anything is left."""
    x, y, w, h = box
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), x + w, y + h
    right = right if image.width is None else min(right, image.width)
    bottom = bottom if image.height is None else min(bottom, image.height)
    return None if right - left < _SMALLEST or bottom - top < _SMALLEST else (left, top, right, bottom)


def _has_target(image: _Image, annotations: list[Annotation]) -> bool:
    return any(not a.crowd and _clip(a.box, image) is not None for a in annotations)
