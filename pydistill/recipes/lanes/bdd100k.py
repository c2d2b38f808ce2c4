"""BDD100K: pixel accuracy and intersection over union of lane masks, as the released code of SAD counts them.

Reference: Hou et al., Learning Lightweight Lane Detection CNNs by Self Attention Distillation, ICCV 2019,
arXiv:1908.00821; cardwing/Codes-for-Lane-Detection, ENet-BDD100K-Torch.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pydistill.recipes.faults import Malformed
from pydistill.recipes.lanes.lists import Entry, read_list
from pydistill.recipes.pictures import read_label

FRAME = (720, 1280)  # height and width of the pictures, at which the published numbers are taken


@dataclass(frozen=True)
class Overlap:
    """Two shares of pixels in 0..1; papers print 100 times their means over pictures.

    ``accuracy`` is the share of true lane pixels that are predicted, which elsewhere is called recall: predicting lanes
    everywhere has accuracy 1. ``iou`` is that of the lane class alone.
    """

    accuracy: float
    iou: float


def decode_mask(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The mask of a picture: where ``probability`` (h, w) of a lane, resized bilinearly to 720 x 1280, is above 0.5.

    Returns:
        (720, 1280), 255 on lanes and 0 beside them.
    """
    resized = cv2.resize(np.asarray(probability, np.float32), FRAME[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(resized > 0.5, 255, 0).astype(np.uint8)


def mask_path(folder: Path, picture: str) -> Path:
    """Where ``score_pictures`` looks for the predicted mask of a picture, named as in the list files."""
    return (folder / picture.lstrip("/")).with_suffix(".png")


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """A mask of ``decode_mask`` as PNG: a few kilobytes, so that those of a data set fit into memory."""
    return bytes(cv2.imencode(".png", mask)[1].tobytes())


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Writes a mask of ``decode_mask`` as PNG; its folder is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_mask(mask))


def score_masks(prediction: NDArray[Any], truth: NDArray[Any]) -> Overlap:
    """Scores the lane mask of one picture: ``|P and T| / |T|`` and ``|P and T| / |P or T|``, 0 where that divides by 0.

    Args:
        prediction: (H, W), nonzero on lanes. The published numbers are taken at 720 x 1280.
        truth: (H, W), nonzero on lanes, e.g. a label picture of 0 and 255. In the test set lanes are 2 pixels wide,
            in the training set 8.
    """
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        shapes = f"{list(prediction.shape)} and {list(truth.shape)}"
        raise ValueError(f"score_masks: expected two masks of the same shape (H, W), got {shapes}")
    p, t = prediction != 0, truth != 0
    true, both, either = np.count_nonzero(t), np.count_nonzero(p & t), np.count_nonzero(p | t)
    return Overlap(both / true if true else 0.0, both / either if either else 0.0)


def mean_overlap(scores: Sequence[Overlap]) -> Overlap:
    """The score of a data set: the mean over its pictures, those without lanes among them as 0."""
    if not scores:
        raise ValueError("mean_overlap: expected at least one score, got none")
    return Overlap(float(np.mean([s.accuracy for s in scores])), float(np.mean([s.iou for s in scores])))


def score_pictures(
    root: Path,
    prediction: Path,
    list_file: str = "list/test_gt_bdd.txt",
    *,
    workers: int = 1,
    malformed: Malformed = "raise",
) -> Overlap:
    """Scores the masks of the pictures of a list at 720 x 1280.

    Args:
        root: folder of the data set, with the list file and the labels.
        prediction: folder of the predicted masks, at ``mask_path``, nonzero on lanes.
        list_file: list of pictures and labels, below ``root``.
        workers: threads.
        malformed: what becomes of a malformed line of the list: an error, or left out with one warning.

    Returns:
        The mean over the pictures.

    Raises:
        UnreadablePicture: for a missing or corrupt mask or label, with the file and line that ask for it.
        ValueError: for a line without a label, or a mask or label of another size.
    """
    entries = read_list(root / list_file, malformed=malformed)
    with ThreadPoolExecutor(workers) as pool:
        return mean_overlap(list(pool.map(partial(_score_entry, root, prediction), entries)))


def _score_entry(root: Path, prediction: Path, entry: Entry) -> Overlap:
    """Scores the mask of one line of a list."""
    if entry.label is None:
        raise ValueError(f"score_pictures: expected a picture and a label in {entry.source}, got {entry.picture}")
    masks = [read_label(path, entry.source) for path in (mask_path(prediction, entry.picture), root / entry.label)]
    for mask in masks:
        if mask.shape != FRAME:
            expected = f"a mask and a label of {list(FRAME)} for {entry.source}"
            raise ValueError(f"score_pictures: expected {expected}, got {list(mask.shape)}")
    return score_masks(*masks)
