"""Box branches that give distributions instead of numbers, so that any detector can learn from localization."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pydistill.ops import integral

__all__ = ["DistributionHead"]

Layer = nn.Conv2d | nn.Linear


class BinLogits(nn.Module):
    """A layer with n outputs for each coordinate, whose bins it puts last."""

    def __init__(self, layer: Layer, bins: int):
        super().__init__()
        self.layer = layer
        self.bins = bins

    def extra_repr(self) -> str:
        """The number of bins."""
        return f"bins={self.bins}"

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, h, w, c, n) of features (N, C, h, w), a view, or (..., c, n) of features (..., C)."""
        y: Tensor = self.layer(x)
        if isinstance(self.layer, nn.Conv2d):
            y = y.movedim(-3, -1)
        return y.unflatten(-1, (-1, self.bins))  # type: ignore[no-untyped-call,no-any-return]


class DistributionHead(nn.Module):
    r"""Stands in for the last layer of a box branch: each coordinate becomes a distribution over n bins.

    A coordinate is the expectation of its bins, which lie evenly from ``low`` to ``high``, both included:

    .. math:: e = \sum_{i=0}^{n-1} p_i e_i, \qquad p = \mathrm{softmax}(z), \qquad
              e_i = \mathrm{low} + i\, s, \qquad s = \frac{\mathrm{high} - \mathrm{low}}{n - 1}.

    It returns the coordinates as the old layer did, so that decoding, losses and assignment of the host go on as
    before; its submodule ``logits`` returns z, with the bins last: a tap for localization distillation by
    ``softmax_kl``. Works for any coordinates (left, top, right, bottom; centre and size; offsets to anchors; before a
    sigmoid or an exponential), since the bins lie in what the old layer returned. Teacher and student need the same
    bins.

    The old layer's value e(x), fresh or trained, becomes a Gaussian about it, which is linear in e and thus one layer:

    .. math:: z_i(x) = \frac{(e_i - c)(e(x) - c)}{(\sigma s)^2} - \frac{(e_i - c)^2}{2 (\sigma s)^2}, \qquad
              c = \frac{\mathrm{low} + \mathrm{high}}{2}.

    So the new branch starts at the old one's values: within 0.005 s where they are 3 s or more from both limits, for
    the default :math:`\sigma` of 1; values at or beyond a limit become values within a bin of it.

    Args:
        layer: ``nn.Linear`` to c coordinates, or ``nn.Conv2d`` to c channels, such as 4, or 4 for each of some anchors.
            It is copied, not kept.
        bins: n >= 2.
        low: the first bin in units of the layer's output, one number or one for each coordinate; 4 numbers repeat for
            each anchor.
        high: the last bin, > low.
        spread: :math:`\sigma >= 0.5`, standard deviation of the Gaussian in bins.

    Raises:
        TypeError: for another layer.
        ValueError: for numbers not as above.

    Reference:
        Zheng et al. 2022 (LD), arXiv:2102.12252, section 3.1, for boxes of any form as distributions; Li et al. 2020
        (Generalized Focal Loss), arXiv:2006.04388, for the expectation. The start from a trained layer is our own.
    """

    low: Tensor
    step: Tensor

    def __init__(
        self,
        layer: Layer,
        bins: int,
        low: float | Sequence[float],
        high: float | Sequence[float],
        *,
        spread: float = 1.0,
    ):
        super().__init__()
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            raise TypeError(f"DistributionHead: expected nn.Conv2d or nn.Linear, got {type(layer).__name__}")
        if bins < 2 or not spread >= 0.5:
            raise ValueError(f"DistributionHead: expected bins >= 2 and spread >= 0.5, got {bins} and {spread}")
        coordinates = len(layer.weight)
        first, last = _limits("low", low, coordinates), _limits("high", high, coordinates)
        if not bool((first < last).all() and (last - first).isfinite().all()):
            raise ValueError(f"DistributionHead: expected low < high, both finite, got {low} and {high}")
        step = (last - first) / (bins - 1)
        self.logits = BinLogits(_converted(layer, bins, first, step, spread), bins)
        self.register_buffer("low", first.to(layer.weight.device, torch.float32))
        self.register_buffer("step", step.to(layer.weight.device, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Coordinates as of the old layer, in its dtype: (N, c, h, w) of (N, C, h, w), or (..., c) of (..., C)."""
        logits = self.logits(x)
        values: Tensor = (self.low + self.step * integral(logits)).to(logits.dtype)
        return values.movedim(-1, -3).contiguous() if isinstance(self.logits.layer, nn.Conv2d) else values


def _limits(name: str, value: float | Sequence[float], coordinates: int) -> Tensor:
    limits = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
    if len(limits) not in (1, 4, coordinates) or coordinates % len(limits):
        raise ValueError(
            f"DistributionHead: expected {name} to be one number or {coordinates}, got {len(limits)} numbers"
        )
    return limits.repeat(coordinates // len(limits))


def _converted(layer: Layer, bins: int, first: Tensor, step: Tensor, spread: float) -> Layer:
    """The layer whose outputs are the logits of the Gaussians, coordinate by coordinate, bin by bin."""
    device = layer.weight.device
    first, step = first.to(device), step.to(device)
    place = torch.arange(bins, dtype=torch.float64, device=device) - (bins - 1) / 2  # (e_i - c) / s
    slope = place / spread**2
    old = layer.weight.detach().double()
    per_step = (old.flatten(1) / step[:, None])[:, None]  # of (e(x) - c) / s
    offset = (torch.zeros_like(first) if layer.bias is None else layer.bias.detach().double()) - first
    offset = offset / step - (bins - 1) / 2
    weight = (slope[:, None] * per_step).reshape(-1, *old.shape[1:])
    bias = (slope * offset[:, None] - slope * place / 2).reshape(-1)
    new = _wider(layer, len(weight))
    with torch.no_grad():
        new.weight.copy_(weight)
        new.bias.copy_(bias)  # type: ignore[union-attr]
    return new


def _wider(layer: Layer, outputs: int) -> Layer:
    """A layer of the same kind with other outputs and a bias, not initialised; no random number is drawn."""
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            new: Layer = nn.Linear(layer.in_features, outputs)
        else:
            names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
            options: dict[str, Any] = {name: getattr(layer, name) for name in names}
            new = nn.Conv2d(layer.in_channels, outputs, **options)
    return new.to(layer.weight.dtype).to_empty(device=layer.weight.device)
