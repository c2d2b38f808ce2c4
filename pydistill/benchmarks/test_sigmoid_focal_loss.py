"""sigmoid_focal_loss, forward and backward: the class logits of two images, 1% of the anchors positive.

Operations: 20 a logit, those of quality_focal_loss and alpha's product.
"""

from functools import partial

import torch.nn.functional as F

from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.dense_scene import locations
from pydistill.benchmarks.timing import rotate
from pydistill.ops import sigmoid_focal_loss


def torch_sigmoid(logits, labels, alpha=0.25, gamma=2.0):
    """What one writes in PyTorch."""
    t = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    return ((alpha * t + (1 - alpha) * (1 - t)) * (p * (1 - t) + (1 - p) * t) ** gamma * entropy).sum()


def test_classes(compare, device, scale):
    """Floor: the logits are read and the gradient is written."""
    logits, labels, _ = locations(device, scale)
    compare(
        **contenders(partial(sigmoid_focal_loss, reduction="sum"), torch_sigmoid, logits, labels),
        floor=rotate(lambda x: x + 1, logits.detach()),
        bytes_moved=2 * 4 * logits.numel(),
        operations=20 * logits.numel(),
    )
