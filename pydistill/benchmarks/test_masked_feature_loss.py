"""masked_feature_loss, forward and backward: a level of a feature pyramid, 2 images of 256 x 100 x 168."""

import pytest
import torch

from pydistill.benchmarks.timing import forward_backward
from pydistill.ops import masked_feature_loss


def torch_masked(student, teacher, mask):
    """What one writes in PyTorch."""
    return ((student - teacher).square().mean(1) * mask).sum() / mask.sum()


@pytest.mark.parametrize("used", [0.05, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_masked_feature_loss(compare, device, layout, used):
    """Mask: the given part of the picture, a box in its middle. Floor: both maps read twice, the gradient written."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 256, 100, 168, generator=rng).to(device, memory_format=layout) for _ in range(2))
    mask = torch.zeros(2, 100, 168, device=device)
    h, w = (round(side * used**0.5 / 2) for side in (100, 168))
    mask[:, 50 - h : 50 + h, 84 - w : 84 + w] = 1
    plain = student.clone()
    student.requires_grad_()
    compiled = torch.compile(torch_masked)
    compare(
        ours=forward_backward(lambda *x: masked_feature_loss(*x, normalizer="mask"), student, teacher, mask),
        eager=forward_backward(torch_masked, student, teacher, mask),
        compiled=forward_backward(compiled, student, teacher, mask),
        floor=lambda: (plain.sum(), teacher.sum(), plain.sum(), teacher.sum(), plain * 2.0),
        bytes_moved=5 * 4 * plain.numel(),
    )
