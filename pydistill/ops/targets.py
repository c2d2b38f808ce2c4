"""Ragged targets, one tensor per image, as one padded tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pydistill.ops import _check


def pack_targets(targets: Sequence[Tensor], max_targets: int | None = None) -> tuple[Tensor, Tensor]:
    """Pads what each image has to the same number, and counts it.

    Ops take targets in this form, because it needs no host synchronisation. The packing itself belongs where batches
    are made, outside a captured step: with a fixed ``max_targets`` every batch has the same shapes.

    Args:
        targets: Per image ``(n_i, ...)``, for instance boxes ``(n_i, 4)`` or labels ``(n_i,)``, of the same trailing
            shape, dtype and device.
        max_targets: G; None: the largest ``n_i``.

    Returns:
        ``(B, G, ...)``, zero behind each image's targets, and ``(B,)`` int64 counts on the same device.

    Raises:
        ValueError: if there is no image, an image has more than ``max_targets``, or trailing shapes differ.
        TypeError: if dtypes differ, or ``targets`` is anything but a sequence of tensors.
    """
    if not isinstance(targets, Sequence) or not all(isinstance(t, Tensor) for t in targets):
        raise TypeError("pack_targets: expected a sequence of tensors, got " + _kinds(targets))
    if not targets:
        raise ValueError("pack_targets: expected at least one image, got none")
    if max_targets is not None:
        _check.numbers("pack_targets", max_targets=max_targets)
    first = targets[0]
    sizes = [len(t) if t.ndim else -1 for t in targets]
    most = max(sizes) if max_targets is None else max_targets
    for t, n in zip(targets, sizes):
        if t.shape[1:] != first.shape[1:] or n < 0:
            raise ValueError(f"pack_targets: expected targets of shape {_expected(first)}, got {list(t.shape)}")
        if t.dtype != first.dtype:
            raise TypeError(f"pack_targets: expected targets of dtype {first.dtype}, got {t.dtype}")
        if n > most:
            raise ValueError(f"pack_targets: expected at most {most} targets per image, got {n}")
    packed = first.new_zeros(len(targets), most, *first.shape[1:])
    for i, t in enumerate(targets):
        packed[i, : len(t)] = t
    return packed, torch.tensor(sizes, dtype=torch.int64, device=first.device)


def _expected(first: Tensor) -> str:
    return f"(n, {', '.join(map(str, first.shape[1:]))})" if first.ndim > 1 else "(n,)" if first.ndim else "(n, ...)"


def _kinds(targets: object) -> str:
    if isinstance(targets, Tensor) or not isinstance(targets, Sequence):
        return type(targets).__name__
    return f"{type(targets).__name__} of {', '.join(dict.fromkeys(type(t).__name__ for t in targets))}"
