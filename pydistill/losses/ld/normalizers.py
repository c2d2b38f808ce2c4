"""What the sums are divided by: numbers of the joint batch of all processes."""

import torch
import torch.distributed as dist
from torch import Tensor


def joint_mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean over processes of each 0-dim tensor, in one exchange; ``values`` itself where there is one process.

    DDP averages gradients: a process' own sum over the mean divisor gives on average the gradient of the joint batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    together = torch.stack(list(values.values()))
    dist.all_reduce(together)
    return dict(zip(values, together / dist.get_world_size(), strict=True))


def divide(total: Tensor, divisor: Tensor) -> Tensor:
    """``total / divisor``; 0 over 0 is 0."""
    return total / divisor.masked_fill(divisor == 0, 1)


def level_means(rows: Tensor, mask: Tensor, level_sizes: list[int]) -> Tensor:
    """The means of ``rows`` (B, A) over the ``mask`` of each level, added up."""
    levels = zip(torch.split(rows, level_sizes, 1), torch.split(mask, level_sizes, 1), strict=True)
    return torch.stack([divide(x.sum(), m.sum().to(x.dtype)) for x, m in levels]).sum()
