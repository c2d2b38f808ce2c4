"""Folders of generated files: written whole or again, by several threads, with errors that name the file."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

_STAMP = "generated.json"
_Result = TypeVar("_Result")


def check_counts(writer: str, train: int, test: int) -> None:
    """Raises ValueError unless there is a scene to write; a split may have none."""
    if min(train, test) < 0 or train + test < 1:
        raise ValueError(f"{writer}: expected at least one scene, got {train} to train on and {test} to test on")


@contextmanager
def generated_folder(root: Path, writer: str, recipe: Mapping[str, Any]) -> Iterator[bool]:
    """Yields whether ``root`` is complete; marks it incomplete before it is written and complete after.

    Args:
        root: folder, made where missing.
        writer: first word of the error.
        recipe: what the files follow from, as JSON has it; ``generated.json`` keeps it.

    Raises:
        FileExistsError: if ``root`` holds files that were not generated.
    """
    stamp = root / _STAMP
    if _read_stamp(stamp) == {**recipe, "complete": True}:
        yield True
        return
    if not stamp.exists() and root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{writer}: expected an empty folder or one generated before, got {root}")
    write_file(stamp, json.dumps({**recipe, "complete": False}))
    yield False
    write_file(stamp, json.dumps({**recipe, "complete": True}))


def _read_stamp(stamp: Path) -> Any:
    """What a folder holds, None where nobody says so: the stamp itself may be cut short by a full disk."""
    try:
        return json.loads(stamp.read_text())
    except (FileNotFoundError, ValueError):
        return None


def map_threads(function: Callable[[int], _Result], places: range, workers: int) -> list[_Result]:
    """The results in order; after an error nothing more is begun."""
    pool = ThreadPoolExecutor(workers)  # NumPy and OpenCV release the interpreter lock
    try:
        return list(pool.map(function, places))
    finally:
        pool.shutdown(cancel_futures=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file and its folder; every error names the file, which a full disk's does not by itself."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def encode_picture(picture: NDArray[np.uint8], suffix: str) -> bytes:
    """The picture, BGR or grey, as the content of a file ``.jpg`` (quality 92) or ``.png``."""
    _, content = cv2.imencode(suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else [])
    return content.tobytes()
