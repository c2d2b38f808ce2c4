"""What the box ops share in Python: how boxes of two dtypes meet, and which of them count."""

from typing import Any

import torch
from torch import Tensor

from pydistill.ops import _check
from pydistill.ops._register import accumulator


def common_dtype(op: str, a: Tensor, b: Tensor) -> torch.dtype:
    """In which boxes of two dtypes are compared: float64 or float32, the types that the kernels take."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    if not dtype.is_floating_point:
        raise TypeError(f"{op}: expected boxes of a floating point dtype, got {dtype}")
    return accumulator(dtype)


def check_padded(op: str, boxes: Tensor, counts: Tensor, name: str = "boxes", counts_name: str = "counts") -> None:
    """With checking on: padded ``boxes`` (B, G, 4) and their ``counts``."""
    _check.counts(op, counts, boxes.shape[1], counts_name)
    _check.boxes(op, boxes, counts, name=name)


def proper(boxes: Tensor) -> Tensor:
    """Whether boxes ``(..., 4)`` are finite and not inverted: the others match nothing."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes.isfinite().all(-1) & sides.isfinite().all(-1) & (sides >= 0).all(-1)


def empty_region(anchors: Tensor, boxes: Tensor, *_: Any) -> Tensor:
    """The mask (B, A) of a region, not filled; of any shape where a shape is wrong, which the kernels then say."""
    b, a = (x.shape[0] if x.ndim else 0 for x in (boxes, anchors))
    return boxes.new_empty(b, a, dtype=torch.bool)


def ignored_boxes(op: str, boxes: Tensor | None, counts: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The ignored boxes, in ``dtype``: with their counts, or neither."""
    if (boxes is None) != (counts is None):
        got = "ignore_counts" if boxes is None else "ignore_boxes"
        raise ValueError(f"{op}: expected ignore_boxes and ignore_counts or neither, got only {got}")
    return None if boxes is None else boxes.detach().to(dtype)
