"""Checks of what lies in the data. Off by default, because on a GPU each of them waits for the device.

Without them bad data never raises and has the one result that each op's documentation states.
"""

import os

import torch
from torch import Tensor

_enabled = os.environ.get("PYDISTILL_CHECK", "0") not in ("", "0")


class checking:
    """Turns the checks of the data on or off; as a context manager, for a block.

    Counts beyond the padding, labels outside the classes, boxes that are inverted or not finite, and logits that are
    not finite raise ``ValueError`` and say where. Each check synchronises with the device: for debugging.
    ``PYDISTILL_CHECK=1`` in the environment turns them on from the start.

        pydistill.checking(True)
        with pydistill.checking(True): ...
    """

    def __init__(self, enabled: bool = True):
        global _enabled
        self.before, _enabled = _enabled, bool(enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        global _enabled
        _enabled = self.before


def enabled() -> bool:
    """Whether the data are checked. Never while a graph is traced."""
    return _enabled and not torch.compiler.is_compiling()


def _refuse(op: str, what: str, values: Tensor, bad: Tensor) -> None:
    if bad.any():
        at = bad.nonzero()[0].tolist()
        raise ValueError(f"{op}: expected {what}, got {values[tuple(at[: values.ndim])].tolist()} at {at}")


def counts(op: str, counts: Tensor, padding: int) -> None:
    """``counts`` (B,) within [0, padding]."""
    if enabled():
        _refuse(op, f"counts in [0, {padding}]", counts, (counts < 0) | (counts > padding))


def labels(op: str, labels: Tensor, classes: int, counts: Tensor | None = None) -> None:
    """``labels`` within [0, classes), those beyond ``counts`` apart."""
    if enabled():
        bad = (labels < 0) | (labels >= classes)
        _refuse(op, f"labels in [0, {classes})", labels, bad if counts is None else bad & _used(labels, counts))


def boxes(op: str, boxes: Tensor, counts: Tensor | None = None) -> None:
    """``boxes`` (..., 4) as finite x1 <= x2, y1 <= y2, those beyond ``counts`` apart."""
    if enabled():
        bad = ~boxes.isfinite().all(-1) | (boxes[..., 2:] < boxes[..., :2]).any(-1)
        _refuse(op, "finite boxes, not inverted", boxes, bad if counts is None else bad & _used(bad, counts))


def finite(op: str, name: str, values: Tensor) -> None:
    """``values`` without NaN and infinities."""
    if enabled():
        _refuse(op, f"finite {name}", values, ~values.isfinite())


def _used(padded: Tensor, counts: Tensor) -> Tensor:
    return torch.arange(padded.shape[-1], device=padded.device) < counts[..., None]
