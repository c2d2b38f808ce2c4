"""quality_focal_loss, forward and backward: the class logits of two images, 1% of the anchors positive.

Operations: 19 a logit. Of the sigmoid 4, of the cross entropy 4 (log, maximum, product, sum), of the factor 3
(difference, absolute value, square), 2 to weigh and sum up, 6 of the gradient.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.dense_scene import locations
from pydistill.benchmarks.timing import rotate
from pydistill.ops import quality_focal_loss


def torch_quality(logits, labels, scores, beta=2.0):
    """What one writes in PyTorch without looking at values on the host."""
    y = torch.zeros_like(logits)
    known = labels < logits.shape[-1]
    y.scatter_(-1, torch.where(known, labels, 0).unsqueeze(-1), torch.where(known, scores, 0).unsqueeze(-1))
    entropy = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return (entropy * (y - logits.sigmoid()).abs() ** beta).sum()


def compared(compare, logits, labels, scores, beta=2.0, **options):
    """Floor: the logits are read and the gradient is written."""
    ours, eager = partial(quality_focal_loss, beta=beta, reduction="sum"), partial(torch_quality, beta=beta)
    compare(
        **contenders(ours, eager, logits, labels, scores, **options),
        floor=rotate(lambda x: x + 1, logits.detach()),
        bytes_moved=2 * logits.element_size() * logits.numel(),
        operations=19 * logits.numel(),
    )


@pytest.mark.parametrize("classes", [10, 20, 80])
def test_classes(compare, device, scale, classes):
    compared(compare, *locations(device, scale, classes))


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_power(compare, device, scale, beta):
    compared(compare, *locations(device, scale), beta=beta)


def test_half(compare, device, scale):
    inputs = locations(device, scale, dtype=torch.float16)
    compared(compare, *inputs, compiled=False, tolerance=0.02)


def test_call_overhead(compare, device):
    logits, labels, scores = (x[:, :32] for x in locations(device, 1.0, classes=10))
    logits = logits.detach().clone().requires_grad_()
    ours = partial(quality_focal_loss, reduction="sum")
    runs = contenders(ours, torch_quality, logits, labels, scores, compiled=False, copies=1)
    compare(**runs, bytes_moved=4 * 2 * logits.numel(), iterations=200)
