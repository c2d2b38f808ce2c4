"""What the box ops share in Python: how boxes of two dtypes meet, and which of them count."""

import torch
from torch import Tensor

from pydistill.ops import _check


def common_dtype(op: str, a: Tensor, b: Tensor) -> torch.dtype:
    """In which boxes of two dtypes are compared."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    if not dtype.is_floating_point:
        raise TypeError(f"{op}: expected boxes of a floating point dtype, got {dtype}")
    return dtype


def check_padded(op: str, boxes: Tensor, counts: Tensor, name: str = "boxes", counts_name: str = "counts") -> None:
    """With checking on: padded ``boxes`` (B, G, 4) and their ``counts``."""
    _check.counts(op, counts, boxes.shape[1], counts_name)
    _check.boxes(op, boxes, counts, name=name)


def proper(boxes: Tensor) -> Tensor:
    """Whether boxes ``(..., 4)`` are finite and not inverted: the others match nothing."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes.isfinite().all(-1) & sides.isfinite().all(-1) & (sides >= 0).all(-1)
