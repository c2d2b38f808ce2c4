"""How the kernels walk feature maps: NCHW or channels last."""

from torch import Tensor


def walkable(x: Tensor, interleaved: bool) -> bool:
    """Whether one stride leads from pixel to pixel, and the channels (interleaved) or the pixels lie side by side."""
    c, h, w = x.shape[1:]
    pixel = x.stride(3) if w > 1 else x.stride(2) if h > 1 else 1
    if w > 1 and h > 1 and x.stride(2) != w * pixel:
        return False
    return (c <= 1 or x.stride(1) == 1) if interleaved else pixel == 1


def laid_out(x: Tensor) -> tuple[Tensor, bool]:
    """``x`` (N, C, H, W), copied where it is neither NCHW nor channels last, and whether it is the latter."""
    interleaved = not walkable(x, False) and walkable(x, True)
    return (x if interleaved or walkable(x, False) else x.contiguous()), interleaved
