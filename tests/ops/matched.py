"""Predictions of decoder stages and a match of their queries, for the tests of the losses of matched pairs."""

import numpy as np
import torch
from torch import Tensor


def random_match(rng: torch.Generator, batch: tuple[int, ...], queries: int, targets: int) -> Tensor:
    """(*batch, queries) int64: each target at most once, and a few queries without any, -1 or out of range."""
    order = torch.rand(*batch, queries, generator=rng).argsort(-1)
    return torch.where(order < targets, order, torch.where(order % 2 == 0, -1, targets + 3))


def random_centred(rng: torch.Generator, *shape: int) -> Tensor:
    """Boxes cxcywh about [0, 1], some beyond the picture."""
    centre = torch.rand(*shape, 2, generator=rng, dtype=torch.float64)
    sides = 0.05 + 0.5 * torch.rand(*shape, 2, generator=rng, dtype=torch.float64)
    return torch.cat([centre, sides], -1)


def numpy_match(rng: np.random.Generator, batch: tuple[int, ...], queries: int, targets: int) -> np.ndarray:
    order = rng.random((*batch, queries)).argsort(-1)
    return np.where(order < targets, order, rng.choice([-1, targets, 99]))


def numpy_paired(values: np.ndarray, match: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``values`` (B, T, d) or (..., B, T, d) of each query's target, and which queries have one."""
    used = (match >= 0) & (match < values.shape[-2])
    padded = np.concatenate([values, np.ones((*values.shape[:-2], 1, values.shape[-1]))], -2)
    padded = np.broadcast_to(padded, (*match.shape[:-1], *padded.shape[-2:]))
    index = np.where(used, match, values.shape[-2])
    return np.take_along_axis(padded, index[..., None], -2), used
