"""masked_feature_loss, forward and backward: a level of a feature pyramid, 2 images of 256 x 100 x 168.

Operations: 5 a value under the mask: difference, square and sum, of the gradient two products.
"""

import pytest
import torch

from pydistill.benchmarks.cases import contenders, sides
from pydistill.benchmarks.timing import rotate
from pydistill.ops import masked_feature_loss


def torch_masked(student, teacher, mask):
    """What one writes in PyTorch."""
    return ((student - teacher).square().mean(1) * mask).sum() / mask.sum()


def ours(student, teacher, mask):
    return masked_feature_loss(student, teacher, mask, normalizer="mask")


@pytest.mark.parametrize("used", [0.05, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_level(compare, device, scale, layout, used):
    """Mask: a box in the middle of the picture. Floor: both maps are read and the gradient is written, or filled with
    zeros where few pixels are used.
    """
    rng = torch.Generator().manual_seed(0)
    shape = 2, 256, *sides(scale, 100, 168)
    student, teacher = (torch.randn(shape, generator=rng).to(device, memory_format=layout) for _ in range(2))
    mask = torch.zeros(2, *shape[2:], device=device)
    (top, bottom), (left, right) = ((round(n * (1 - used**0.5) / 2), round(n * (1 + used**0.5) / 2)) for n in shape[2:])
    mask[:, top:bottom, left:right] = 1
    plain = student.clone()
    compare(
        **contenders(ours, torch_masked, student.requires_grad_(), teacher, mask),
        floor=rotate(torch.add if used == 1 else lambda s, _: torch.zeros_like(s), plain, teacher),
        bytes_moved=int(4 * (1 + 2 * used) * plain.numel()),
        operations=int(5 * used * plain.numel()),
    )
