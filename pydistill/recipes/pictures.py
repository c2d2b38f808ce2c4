"""Pictures and label pictures of a data set, and the error that names the one that cannot be read."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


class UnreadablePicture(OSError):
    """A picture, a label or a cloud of points that cannot be read; names the file, and where known what asks for it."""


def read_picture(path: Path, source: str, *, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """Reads a picture, (h, w, 3) BGR unless ``flags`` of ``cv2.imdecode`` say otherwise.

    Args:
        path: file to read.
        source: file and line that ask for it, for the message.
        flags: of ``cv2.imdecode``.

    Raises:
        UnreadablePicture: if the file is missing, truncated or no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadablePicture(f"read_picture: expected {path} of {source}, got: {error.strerror}") from error
    # Decoded from memory a truncated file is refused; cv2.imread fills it up with grey.
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if picture is None:
        what = f"{len(data)} bytes that do not decode"
        raise UnreadablePicture(f"read_picture: expected a picture in {path} of {source}, got {what}")
    return np.asarray(picture, np.uint8)


def read_label(path: Path, source: str) -> NDArray[np.uint8]:
    """Reads a label picture as it is stored, (h, w); of several channels the first.

    Args:
        path: file to read.
        source: file and line that ask for it, for the message.

    Raises:
        UnreadablePicture: as ``read_picture``.
    """
    label = read_picture(path, source, flags=cv2.IMREAD_UNCHANGED)
    return label if label.ndim == 2 else label[..., 0]
