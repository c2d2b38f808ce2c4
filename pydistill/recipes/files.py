"""Files that survive a kill and a full disk."""

import os
from pathlib import Path


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
