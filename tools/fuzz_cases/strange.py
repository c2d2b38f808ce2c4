"""Wrong arguments made of right ones."""

from typing import Any

import torch

from fuzz_cases.values import DTYPES, Random

SCALARS: list[Any] = [0, 1, -1, 2, 3, 255, 2**31, 2**63 - 1, 0.0, -0.5, 1e-300, 1e300, float("nan"), float("inf")]
SCALARS += [True, None, "", "mean", "sum", "none", [], [1], (4, 5), (0, 0), (-1, 3), (2**40, 2), {}, object()]


def strange(rng: Random, value: Any, tensor: bool) -> Any:
    """Something else in the place of ``value``: a tensor where one belongs, anything for anything else."""
    if isinstance(value, list) and value and isinstance(value[0], torch.Tensor) and rng.random() < 0.8:
        changed = rng.randrange(len(value))
        return [strange(rng, x, True) if i == changed else x for i, x in enumerate(value)]
    if not isinstance(value, torch.Tensor):
        return torch.randn(rng.choice([(), (2,), (4,), (2, 3)])) if tensor else rng.choice(SCALARS)
    x = value.detach()
    shape = [rng.choice([0, 1, 2, 3, 17]) for _ in range(rng.randrange(6))]
    kind = rng.randrange(8)
    if kind == 0:
        return torch.randn(shape).to(x.dtype)
    if kind == 1:
        return x.to(rng.choice(DTYPES))
    if kind == 2:
        return x.transpose(0, -1) if x.ndim else x[None]
    if kind == 3 and x.is_floating_point() and x.numel():  # one value that no arithmetic likes
        x = x.clone()
        x[tuple(map(rng.randrange, x.shape))] = rng.choice([float("nan"), float("inf"), -float("inf"), 1e38])
        return x
    if kind == 4 and x.numel():  # a size no buffer has, in no memory of its own
        return x.flatten()[:1].expand(*[rng.choice([2**25, 2**17]) for _ in range(2)], *x.shape[2:])
    if kind == 5 and x.ndim:
        return x[..., :0] if rng.random() < 0.5 else x[:0]
    if kind == 6:
        return torch.stack([x, x], -1)[..., 0].requires_grad_(x.is_floating_point())
    return rng.choice([x.to("meta"), x.to_sparse(), x * 1e30, -x if x.dtype != torch.bool else x, x[None]])
