"""What the sums are divided by: numbers of the joint batch of all processes."""

import torch
import torch.distributed as dist
from torch import Tensor


def joint_mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean over processes of each tensor, in one exchange; ``values`` itself where there is one process.

    All are of one dtype, and each of the same shape on every process.

    DDP averages gradients: a process' own sum over the mean divisor gives on average the gradient of the joint batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    together = torch.cat([x.reshape(-1) for x in values.values()])
    dist.all_reduce(together)
    means = torch.split(together / dist.get_world_size(), [x.numel() for x in values.values()])
    return {name: mean.view_as(x) for (name, x), mean in zip(values.items(), means, strict=True)}


def divide(total: Tensor, divisor: Tensor) -> Tensor:
    """``total / divisor``; 0 over 0 is 0."""
    return total / divisor.masked_fill(divisor == 0, 1)
