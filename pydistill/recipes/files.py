"""Files that survive a kill and a full disk, and files that something has damaged."""

import os
from pathlib import Path
from typing import Any

import torch


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all, whatever stops the process or fills the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot write, what was there before stays: {error.strerror}", str(path)) from error


def read_saved(path: Path, expected: str) -> Any:
    """What ``torch.save`` has written, on the CPU; it is read with ``weights_only``, so that it cannot run code.

    Args:
        path: the file.
        expected: the message of the error, up to what was got.

    Raises:
        OSError: for a file that cannot be opened.
        ValueError: for one that holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of any kind: other bytes are other opcodes of pickle
        raise ValueError(f"{expected}, got {path}") from error
