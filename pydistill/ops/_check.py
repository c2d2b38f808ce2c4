"""Checks that ops share: of the types of their arguments, and of what lies in the data.

The latter are off by default, because on a GPU each of them waits for the device. Without them bad data never raises
and has the one result that each op's documentation states.
"""

import os
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch, _len_torch_dispatch_stack

_NUMBERS = (float, int, Real, torch.SymInt, torch.SymFloat)  # Real: NumPy's
# What a user has as a list of one tensor per image.
_PADDED = (
    "boxes", "counts", "ignore_boxes", "ignore_counts", "target_boxes", "target_labels", "target_masks", "target_scores"
)  # fmt: skip
_enabled = os.environ.get("PYDISTILL_CHECK", "0") not in ("", "0")


class checking:
    """Turns the checks of the data on or off; as a context manager, for a block.

    Counts beyond the padding, labels outside the classes, boxes that are inverted or not finite, and logits and
    features that are not finite raise ``ValueError`` and say where; padding is not looked at. Each check synchronises
    with the device: for debugging. While a graph is traced, exported or captured and under ``torch.func`` there are no
    values to read, and nothing is checked. ``PYDISTILL_CHECK=1`` in the environment turns them on from the start::

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


def enabled(*data: Tensor) -> bool:
    """Whether ``data`` are checked: not while a graph is traced or a function transformed, when there are no values."""
    if not _enabled or torch.compiler.is_compiling() or _len_torch_dispatch_stack():
        return False
    return _functorch.peek_interpreter_stack() is None and all(map(_readable, data))


def _readable(x: Tensor) -> bool:
    """Whether the host may read ``x``: not if it is fake, nor while a CUDA graph is captured. No op takes complex."""
    if x.is_meta or x.is_complex() or type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def _refuse(op: str, what: str, values: Tensor, bad: Tensor) -> None:
    if bad.any():
        at = bad.nonzero()[0].tolist()
        raise ValueError(f"{op}: expected {what}, got {values[tuple(at)].tolist()} at {at}")


def counts(op: str, counts: Tensor, padding: int, name: str = "counts") -> None:
    """``counts`` (B,) within [0, padding]."""
    if enabled(counts):
        _refuse(op, f"{name} in [0, {padding}]", counts, (counts < 0) | (counts > padding))


def labels(op: str, labels: Tensor, classes: int, counts: Tensor | None = None) -> None:
    """``labels`` within [0, classes), those beyond ``counts`` apart."""
    if enabled(labels):
        bad = (labels < 0) | (labels >= classes)
        _refuse(op, f"labels in [0, {classes})", labels, bad if counts is None else bad & _used(labels, counts))


def boxes(op: str, boxes: Tensor, counts: Tensor | None = None, corners: bool = True, name: str = "boxes") -> None:
    """``boxes`` (..., 4) finite, x1 <= x2 and y1 <= y2 or, without ``corners``, w >= 0 and h >= 0.

    Those beyond ``counts`` are not looked at.
    """
    if enabled(boxes):
        bad = ~boxes.isfinite().all(-1) | (boxes[..., 2:] < (boxes[..., :2] if corners else 0)).any(-1)
        _refuse(op, f"finite {name}, not inverted", boxes, bad if counts is None else bad & _used(bad, counts))


def finite(op: str, name: str, values: Tensor, used: Tensor | None = None) -> None:
    """``values`` without NaN and infinities, those where ``used`` is false apart."""
    if enabled(values):
        bad = ~values.isfinite()
        _refuse(op, f"finite {name}", values, bad if used is None else bad & used)


def _used(padded: Tensor, counts: Tensor) -> Tensor:
    return torch.arange(padded.shape[-1], device=padded.device) < counts[..., None]


def tensors(op: str, /, **values: Any) -> None:
    """TypeError where one of ``values`` is no tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise _no_tensor(op, name, value)


def optional(op: str, /, **values: Any) -> None:
    """The same of arguments that may be None."""
    for name, value in values.items():
        if value is not None and not isinstance(value, Tensor):
            raise _no_tensor(op, name, value)


def listed(op: str, name: str, values: Any) -> list[Tensor]:
    """A list of tensors from a sequence of them."""
    if isinstance(values, Tensor) or not hasattr(values, "__iter__"):
        raise TypeError(f"{op}: expected {name} a sequence of tensors, got {_kind(values)}")
    for i, value in enumerate(given := list(values)):
        if not isinstance(value, Tensor):
            raise _no_tensor(op, f"{name}[{i}]", value)
    return given


def numbers(op: str, /, **values: Any) -> None:
    """TypeError where one of ``values`` is no number: a tensor would be read by the host, and have no gradient."""
    for name, value in values.items():
        if not isinstance(value, _NUMBERS):
            raise TypeError(f"{op}: expected {name} a number, got {_kind(value)}")


def levels(op: str, sizes: Sequence[int], anchors: int | None) -> list[int]:
    """``sizes`` of levels, adding up to the number of ``anchors``, if that is known."""
    if isinstance(sizes, Tensor) or not hasattr(sizes, "__iter__"):
        raise TypeError(f"{op}: expected level_sizes a sequence of integers, got {_kind(sizes)}")
    sizes = list(sizes)
    if anchors is not None and sum(sizes) != anchors:
        total = f"{anchors}, the number of anchors, got {sum(sizes)}"
        raise ValueError(f"{op}: expected level_sizes that add up to {total}")
    return sizes


def _no_tensor(op: str, name: str, value: object) -> TypeError:
    hint = " (ops.pack_targets pads lists)" if isinstance(value, (list, tuple)) and name in _PADDED else ""
    return TypeError(f"{op}: expected {name} a tensor, got {_kind(value)}{hint}")


def _kind(value: object) -> str:
    return "a tensor" if isinstance(value, Tensor) else "None" if value is None else type(value).__name__
