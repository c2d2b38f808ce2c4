"""Small layers that bring a student feature to the teacher's width, train with the student and are then thrown away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args
from zlib import crc32

import torch
from torch import Tensor, nn

__all__ = ["Adapter"]

Kind = Literal["1x1", "3x3", "linear"]


@dataclass(frozen=True)
class Adapter:
    """What to build between a student's feature and a loss.

    Args:
        kind: ``"1x1"``, a convolution; ``"3x3"``, a convolution, batch norm and ReLU; both for (N, C, h, w).
            ``"linear"``, a learned projection of the last dimension, for queries (..., C).
        in_channels: channels of the student's feature.
        out_channels: channels of the teacher's feature.

    Raises:
        ValueError: for another kind or a number of channels below 1.
    """

    kind: Kind
    in_channels: int
    out_channels: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"Adapter: expected kind one of {get_args(Kind)}, got {self.kind!r}")
        if min(self.in_channels, self.out_channels) < 1:
            raise ValueError(f"Adapter: expected channels >= 1, got {self.in_channels} and {self.out_channels}")

    def build(self, seed: int) -> nn.Module:
        """The layer, on the CPU in float32, a pure function of ``seed``: no global random state is read or changed."""
        # torch.manual_seed would also reseed the accelerators, whose state fork_rng(devices=[]) does not restore.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            if self.kind == "linear":
                return nn.Linear(self.in_channels, self.out_channels, dtype=torch.float32)
            if self.kind == "1x1":
                return nn.Conv2d(self.in_channels, self.out_channels, 1, dtype=torch.float32)
            return nn.Sequential(
                nn.Conv2d(self.in_channels, self.out_channels, 3, padding=1, bias=False, dtype=torch.float32),
                nn.BatchNorm2d(self.out_channels, dtype=torch.float32),
                nn.ReLU(),
            )


def adapt(adapter: nn.Module, feature: Tensor) -> Tensor:
    """``adapter(feature)`` in the dtype of its weights: without autocast a half feature may meet float32 weights."""
    parameter = next(adapter.parameters(), None)
    if parameter is not None and not torch.is_autocast_enabled(feature.device.type):
        feature = feature.to(parameter.dtype)
    result: Tensor = adapter(feature)
    return result


def build_adapters(adapters: Sequence[Adapter | nn.Module | None], name: str) -> nn.ModuleList:
    """One module an entry, identity for None. Seeds follow ``torch.manual_seed`` and differ by ``name`` and place."""
    modules = nn.ModuleList()
    for place, adapter in enumerate(adapters):
        seed = (torch.initial_seed() + crc32(f"{name}.{place}".encode())) % 2**63
        built = adapter.build(seed) if isinstance(adapter, Adapter) else adapter
        modules.append(nn.Identity() if built is None else built)
    return modules
