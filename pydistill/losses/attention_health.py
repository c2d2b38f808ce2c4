"""Whether attention maps can teach: their entropy and their peak, gathered during training."""

import warnings
from collections.abc import Mapping
from math import log

import torch
from torch import Tensor

from pydistill.ops.attention_map import Normalize

UNIFORM = 0.9999
"""Mean entropy above which a map says nothing: by Pinsker's inequality less than 3% of its mass is out of place."""

ONE_HOT = 0.9
"""Mean peak above which a map is a single pixel. A lane covers hundreds; a healthy peak is below 0.1."""


class AttentionHealth:
    r"""Entropy and peak of attention maps, as means over the images since they were last read.

    .. math:: H = \frac{-1}{\log hw} \sum_i \Psi_i \log \Psi_i \in [0, 1], \qquad P = \max_i \Psi_i \in [1/hw, 1]

    The maps are those of each feature at its own size. They are gathered on the device, and nothing waits for it but
    ``statistics()``. Under DDP every process has its own. ``SADLoss(health=True)`` owns one.

    Args:
        normalize, temperature: of ``pydistill.ops.attention_map``.
    """

    def __init__(self, normalize: Normalize | None = None, temperature: float = 1.0):
        self.normalize, self.temperature = normalize, temperature
        self._sums: dict[str, Tensor] = {}  # of entropies, of peaks, number of images
        self._warned: set[str] = set()

    def gather(self, energies: Mapping[str, Tensor]) -> None:
        """Count the maps of these channel energies, each (N, h, w)."""
        for name, energy in energies.items():
            row = self._row(energy.detach())
            sums = self._sums.get(name)
            if sums is None or sums.device != row.device or type(sums) is not type(row):  # moved, or traced before
                self._sums[name] = row
            else:
                sums.add_(row)

    def statistics(self) -> dict[str, float]:
        """``{"<name>.entropy": ..., "<name>.peak": ...}`` of the images since the last call; without images, {}.

        This reads the device. A map that has collapsed gives one warning, the first time it is seen.
        """
        result: dict[str, float] = {}
        for name, sums in self._sums.items():
            entropy, peak, images = sums.tolist()
            sums.zero_()
            if images:
                result |= {f"{name}.entropy": entropy / images, f"{name}.peak": peak / images}
                self._warn(name, entropy / images, peak / images)
        return result

    def _row(self, energy: Tensor) -> Tensor:
        flat = energy.float().flatten(1)
        images, cells = flat.shape
        if not cells:
            return flat.new_zeros(3, dtype=torch.float64)
        if self.normalize is not None:
            mean = flat.mean(1, keepdim=True)
            scale = mean if self.normalize == "mean" else (flat - mean).square().mean(1, keepdim=True).sqrt()
            flat = flat / scale.masked_fill(scale == 0, torch.inf)
        log_map = (flat / self.temperature).log_softmax(1)
        map = log_map.exp()
        entropy = -(map * log_map).sum() / log(max(cells, 2))
        return torch.stack((entropy, map.amax(1).sum(), torch.full_like(entropy, images))).double()

    def _warn(self, name: str, entropy: float, peak: float) -> None:
        if name in self._warned or not (peak > ONE_HOT or entropy > UNIFORM):
            return
        self._warned.add(name)
        if peak > ONE_HOT:
            what = f"one pixel with {peak:.1%} of the attention: its gradient vanishes"
            remedies = ["normalize='mean'"] * (self.normalize is None) + [f"a temperature above {self.temperature:g}"]
        else:
            what = f"uniform (entropy {entropy:.6f} of 1): there is nothing to imitate"
            remedies = ["normalize='standardize'"] * (self.normalize != "standardize")
            remedies += [f"a temperature below {self.temperature:g}", "larger features"]
        message = f"SADLoss: the attention map of feature {name!r} has collapsed to {what}. Try {' or '.join(remedies)}"
        warnings.warn(message, stacklevel=3)
