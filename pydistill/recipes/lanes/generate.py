"""Writes generated scenes to disk in the layout of TuSimple."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2

from pydistill.recipes.lanes.road import H_SAMPLES
from pydistill.recipes.lanes.scenes import generate_scene

_DATE = "0313"
_TEST_OFFSET = 1_000_000  # test scenes are other indices of the same world


def write_tusimple(root: Path, seed: int, train: int, test: int, *, workers: int = 1) -> Path:
    """Generates scenes below ``root`` in the TuSimple layout, unless they are there already.

    Args:
        root: folder, made where missing.
        seed: names the world that the scenes are taken from.
        train: number of scenes to train on.
        test: number of scenes to test on, none of which is among the others.
        workers: threads that draw; the files do not depend on it.

    Returns:
        ``root``.
    """
    recipe = {"seed": seed, "train": train, "test": test, "generator": 1}
    stamp = root / "generated.json"
    if stamp.exists() and json.loads(stamp.read_text()) == recipe:
        return root
    splits = {f"label_data_{_DATE}.json": range(train), "test_label.json": range(_TEST_OFFSET, _TEST_OFFSET + test)}
    with ThreadPoolExecutor(workers) as pool:  # NumPy and OpenCV release the interpreter lock
        for name, indices in splits.items():
            (root / name).write_text("".join(pool.map(partial(_write_scene, root, seed), indices)))
    stamp.write_text(json.dumps(recipe))
    return root


def _write_scene(root: Path, seed: int, index: int) -> str:
    """Writes one picture and returns its line of the label file."""
    scene = generate_scene(seed, index)
    raw_file = f"clips/{_DATE}/{index:07d}/20.jpg"
    path = root / raw_file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), scene.picture, [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise OSError(f"write_tusimple: expected a writable path, got {path}")
    return json.dumps({"lanes": scene.lanes, "h_samples": list(H_SAMPLES), "raw_file": raw_file}) + "\n"
