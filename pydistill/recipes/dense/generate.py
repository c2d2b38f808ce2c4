"""Writes generated scenes to disk in COCO's layout, whose readers and evaluators then work.

::

    root/annotations/instances_train.json, instances_val.json    images, annotations, categories
    root/train/000000.jpg ..., root/val/000000.jpg ...

``generated.json`` says what the folder holds and whether that is complete.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pydistill.recipes.dense.scenes import Difficulty, generate_scene
from pydistill.recipes.dense.textures import Split, digits, photographs
from pydistill.recipes.generated import check_counts, encode_picture, generated_folder, map_threads, write_file

_GENERATOR = 1  # raised when the same arguments give other files than before


def write_coco(
    root: Path,
    seed: int,
    train: int,
    test: int,
    *,
    classes: int = 10,
    difficulty: Difficulty | None = None,
    workers: int = 2,
) -> Path:
    """Generates scenes of digits below ``root`` in COCO's layout, unless they are there already.

    Args:
        root: folder, made where missing; it must be empty, or hold scenes generated before, which are replaced.
        seed: names the world that the scenes are taken from.
        train: number of scenes of the split ``train``.
        test: number of scenes of the split ``val``, of other digits and other parts of the photographs.
        classes: 1 to 10; the digits are 0 to ``classes - 1``, of category ids from 1 on.
        difficulty: of the scenes; None for the default.
        workers: threads that draw; the files do not depend on it.

    Returns:
        ``root``.

    Raises:
        FileExistsError: if ``root`` holds files that were not generated.
        ValueError: for no scene at all, or a number of classes out of range.
        OSError: if a file cannot be written, with its path. The next call starts again.
    """
    check_counts("write_coco", train, test)
    if not 1 <= classes <= 10:
        raise ValueError(f"write_coco: expected 1 to 10 classes, got {classes}")
    hard = difficulty or Difficulty()
    recipe = {"layout": "coco", "generator": _GENERATOR, "seed": seed, "train": train, "test": test}
    recipe = json.loads(json.dumps({**recipe, "classes": classes, "difficulty": asdict(hard)}))
    with generated_folder(root, "write_coco", recipe) as complete:
        if not complete:
            splits: tuple[tuple[Split, int], ...] = (("train", train), ("val", test))
            for split, count in splits:
                photographs(split), digits(split)  # once, before there are threads
                write = partial(_write_scene, root, seed, split, classes, hard)
                content = _to_coco(map_threads(write, range(count), workers), classes)
                write_file(root / "annotations" / f"instances_{split}.json", json.dumps(content))
    return root


def _write_scene(
    root: Path, seed: int, split: Split, classes: int, hard: Difficulty, index: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes one picture; returns its image, and its annotations without their ids."""
    scene = generate_scene(seed, index, split, classes, hard)
    name = f"{index:06d}.jpg"
    write_file(root / split / name, encode_picture(scene.picture, ".jpg"))
    h, w = scene.picture.shape[:2]
    annotations = []
    for digit in scene.digits:
        left, top, right, bottom = (round(side, 2) for side in digit.box)
        box = [left, top, round(right - left, 2), round(bottom - top, 2)]
        annotations.append(
            {
                "image_id": index + 1,
                "category_id": digit.label + 1,
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": int(digit.hidden > hard.hidden),
            }
        )
    return {"id": index + 1, "file_name": name, "height": h, "width": w}, annotations


def _to_coco(scenes: list[tuple[dict[str, Any], list[dict[str, Any]]]], classes: int) -> dict[str, Any]:
    """The content of a file of annotations."""
    annotations = [annotation for _, found in scenes for annotation in found]
    return {
        "images": [image for image, _ in scenes],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
        "categories": [{"id": digit + 1, "name": str(digit), "supercategory": "digit"} for digit in range(classes)],
    }
