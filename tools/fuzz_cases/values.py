"""Values that several valid calls take."""

import random
from collections.abc import Callable
from typing import Any

import torch

Random = random.Random
Arguments = dict[str, Any]
Cases = dict[str, Callable[[Random], Arguments]]

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]
DTYPES += [torch.bool, torch.complex64]


def real(*shape: int) -> torch.Tensor:
    """A float32 tensor that asks for a gradient."""
    return torch.randn(shape).requires_grad_()


def logits(rng: Random, *shape: int) -> torch.Tensor:
    """The same, or in half precision, where backward calls a kernel because forward keeps no gradient."""
    return real(*shape).detach().to(rng.choice([torch.float32, torch.float16])).requires_grad_()


def boxes(*shape: int) -> torch.Tensor:
    """Boxes x1, y1, x2, y2 with positive sides."""
    corner = torch.rand(*shape, 2) * 50
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2) * 50], -1)
