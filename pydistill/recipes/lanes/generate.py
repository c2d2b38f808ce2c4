"""Writes generated scenes to disk in the layout of TuSimple or of CULane, whose readers and evaluators then work.

::

    root/clips/<date>/<id>/20.jpg                            TuSimple: the picture
    root/label_data_<date>.json, test_label.json             one JSON object a line: lanes, h_samples, raw_file
    root/categories.json                                     raw_file to category, which TuSimple itself does not have

    root/driver_*_30frame/<id>.MP4/<frame>.jpg, .lines.txt   CULane: the picture, its lanes as x y x y ...
    root/laneseg_label_w16/driver_*_30frame/...png           for training and validation: classes 0 to 4
    root/list/train_gt.txt, val_gt.txt, test.txt             lists of pictures
    root/list/test_split/test0_normal.txt ...                the test pictures by category

Pictures are smaller than those of the data sets; the coordinates of the lanes are those of the data sets' own pictures.
``generated.json`` says what a folder holds and whether that is complete.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pydistill.recipes.generated import check_counts, encode_picture, generated_folder, map_threads, write_file
from pydistill.recipes.lanes import culane
from pydistill.recipes.lanes.canvas import Bytes
from pydistill.recipes.lanes.road import CULANE, H_SAMPLES, NONE, Floats
from pydistill.recipes.lanes.scenes import CATEGORIES, Scene, draw_category, generate_scene

_GENERATOR = 2  # raised when the same arguments give other files than before
_DATE = "0313"
_VAL, _TEST = 500_000, 1_000_000  # validation and test scenes are other indices of the same world
_LINE_WIDTH = 16  # of CULane's label pictures, in pixels of 1640 x 590


def write_tusimple(
    root: Path, seed: int, train: int, test: int, *, categories: Sequence[str] | None = None, workers: int = 1
) -> Path:
    """Generates scenes below ``root`` in the TuSimple layout, unless they are there already.

    Args:
        root: folder, made where missing; it must be empty, or hold scenes generated before, which are replaced.
        seed: names the world that the scenes are taken from.
        train: number of scenes to train on.
        test: number of scenes to test on, none of which is among the others.
        categories: these in turn; None for the mix of all but crossroads, which have no lane: whatever is predicted,
            TuSimple's accuracy is 0 there.
        workers: threads that draw; the files do not depend on it.

    Returns:
        ``root``.

    Raises:
        FileExistsError: if ``root`` holds files that were not generated.
        ValueError: for no scene at all, or an unknown category.
        OSError: if a file cannot be written, with its path. The next call starts again.
    """
    with _folder(root, "tusimple", seed, train, test, categories) as complete:
        if not complete:
            named: dict[str, str] = {}
            for name, first, count in ((f"label_data_{_DATE}.json", 0, train), ("test_label.json", _TEST, test)):
                write = partial(_write_tusimple_scene, root, seed, first, categories)
                lines = map_threads(write, range(count), workers)
                named.update(category for _, category in lines)
                write_file(root / name, "".join(line for line, _ in lines))
            write_file(root / "categories.json", json.dumps(named, indent=0))
    return root


def write_culane(
    root: Path, seed: int, train: int, test: int, *, categories: Sequence[str] | None = None, workers: int = 1
) -> Path:
    """Generates scenes below ``root`` in the CULane layout, unless they are there already.

    Args:
        root: folder, made where missing; it must be empty, or hold scenes generated before, which are replaced.
        seed: names the world that the scenes are taken from.
        train: number of scenes to train on; a tenth as many others are written for validation.
        test: number of scenes to test on, none of which is among the others.
        categories: these in turn; None for the mix of all.
        workers: threads that draw; the files do not depend on it.

    Returns:
        ``root``.

    Raises:
        FileExistsError: if ``root`` holds files that were not generated.
        ValueError: for no scene at all, or an unknown category.
        OSError: if a file cannot be written, with its path. The next call starts again.
    """
    with _folder(root, "culane", seed, train, test, categories) as complete:
        if not complete:
            for name, first, count in (("train_gt", 0, train), ("val_gt", _VAL, -(-train // 10))):
                write = partial(_write_culane_scene, root, seed, first, categories, True)
                lines = [f"/{picture} {label}\n" for picture, label, _ in map_threads(write, range(count), workers)]
                write_file(root / "list" / f"{name}.txt", "".join(lines))
            write = partial(_write_culane_scene, root, seed, _TEST, categories, False)
            pictures = [(picture, category) for picture, _, category in map_threads(write, range(test), workers)]
            write_file(root / "list/test.txt", "".join(f"/{picture}\n" for picture, _ in pictures))
            for name, category in culane.CATEGORIES.items():
                lines = [f"{picture}\n" for picture, other in pictures if other == category]
                write_file(root / "list/test_split" / f"{name}.txt", "".join(lines))
    return root


def _folder(
    root: Path, layout: str, seed: int, train: int, test: int, categories: Sequence[str] | None
) -> AbstractContextManager[bool]:
    """Yields whether ``root`` is complete already."""
    check_counts(f"write_{layout}", train, test)
    if categories is not None and not (categories and set(categories) <= set(CATEGORIES)):
        raise ValueError(f"write_{layout}: expected categories of {', '.join(CATEGORIES)}, got {list(categories)}")
    recipe = {"layout": layout, "generator": _GENERATOR, "seed": seed, "train": train, "test": test}
    listed = list(categories) if categories is not None else None
    return generated_folder(root, f"write_{layout}", {**recipe, "categories": listed})


def _write_tusimple_scene(
    root: Path, seed: int, first: int, categories: Sequence[str] | None, place: int
) -> tuple[str, tuple[str, str]]:
    """Writes one picture; returns its line of the label file, and its name and category."""
    index = first + place
    category = categories[place % len(categories)] if categories else draw_category(seed, index, ("crossroad",))
    scene = generate_scene(seed, index, category)
    raw_file = f"clips/{_DATE}/{index:07d}/20.jpg"
    write_file(root / raw_file, encode_picture(scene.picture, ".jpg"))
    lanes = [_columns(points) for _, points in sorted(scene.lanes.items())]
    line = json.dumps({"lanes": lanes, "h_samples": list(H_SAMPLES), "raw_file": raw_file}) + "\n"
    return line, (raw_file, category)


def _columns(points: Floats) -> list[int]:
    """One x per row of ``H_SAMPLES``, ``NONE`` where the lane has no point."""
    columns = {int(y): round(float(x)) for x, y in points}
    return [columns.get(y, NONE) for y in H_SAMPLES]


def _write_culane_scene(
    root: Path, seed: int, first: int, categories: Sequence[str] | None, training: bool, place: int
) -> tuple[str, str, str]:
    """Writes one picture and its lanes; returns its path, what a training list has after it, and its category."""
    index = first + place
    category = categories[place % len(categories)] if categories else None
    scene = generate_scene(seed, index, category, CULANE)
    driver = "driver_23_30frame" if training else "driver_37_30frame"
    path = f"{driver}/{index // 100:08d}.MP4/{index % 100 * 30:05d}"
    write_file(root / f"{path}.jpg", encode_picture(scene.picture, ".jpg"))
    write_file(root / f"{path}.lines.txt", "".join(_line(points) for _, points in sorted(scene.lanes.items())))
    label = f"laneseg_label_w16/{path}.png"
    if training:
        write_file(root / label, encode_picture(_draw_classes(scene), ".png"))
    existence = " ".join(str(int(lane in scene.lanes)) for lane in range(1, 5))
    return f"{path}.jpg", f"/{label} {existence}", scene.category


def _line(points: Floats) -> str:
    """A lane of a ``.lines.txt`` file, from the bottom up."""
    return " ".join(f"{value:.7g}" for value in points[::-1].ravel()) + "\n"


def _draw_classes(scene: Scene) -> Bytes:
    """The class of every pixel, 0 to 4, at the picture's size."""
    label = np.zeros(CULANE.picture, np.uint8)
    width = max(2, round(_LINE_WIDTH * CULANE.scale))
    for lane, points in scene.lanes.items():
        fixed = np.round(points * CULANE.scale * 16).astype(np.int32)
        cv2.polylines(label, [fixed.reshape(-1, 1, 2)], False, lane, width, cv2.LINE_8, 4)
    return label
