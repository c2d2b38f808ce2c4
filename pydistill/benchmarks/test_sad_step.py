"""A whole step of ENet-SAD, forward and backward: 8 pictures of 288 x 800, four lanes, the four stages of the encoder.

Segmentation, IoU and existence of lanes, and each stage learns from the next. Operations: 4 a value of a stage that
learns and 2 of one that teaches (see attention_distillation_loss), 22 a logit: cross entropy 9, IoU 13.
"""

import torch

from pydistill.benchmarks import sad_eager
from pydistill.benchmarks.cases import contenders, sides
from pydistill.benchmarks.timing import rotate
from pydistill.losses import LaneLoss, SADLoss

STAGES = ((64, 72, 200), (128, 36, 100), (128, 36, 100), (128, 36, 100))  # E1 to E4
IMAGES, CLASSES = 8, 5


def scene(device, scale):
    rng = torch.Generator().manual_seed(0)
    features = [0.1 * torch.randn(IMAGES, c, *sides(scale, h, w), generator=rng) for c, h, w in STAGES]
    height, width = (8 * side for side in features[-1].shape[2:])
    logits = torch.randn(IMAGES, CLASSES, height, width, generator=rng)
    existence = torch.randn(IMAGES, CLASSES - 1, generator=rng)
    labels = torch.randint(CLASSES, (IMAGES, height, width), generator=rng)
    exists = torch.ones(IMAGES, CLASSES - 1)
    *features, logits, existence = (x.to(device).requires_grad_() for x in (*features, logits, existence))
    return features, logits, existence, labels.to(device), exists.to(device)


def test_step(compare, device, scale):
    """Floor: features, logits and labels are read twice and the gradients written."""
    given = scene(device, scale)
    lanes, distillation = LaneLoss(), SADLoss()

    def ours(features, logits, existence, labels, exists):
        terms = lanes(logits, existence, labels, exists)
        return sum(terms.values()) + 0.1 * sum(distillation(features).values())

    plain = [x.detach() for x in (*given[0], given[1])]
    labels = given[3]
    numbers, of_stages = sum(x.numel() for x in plain), sum(x.numel() for x in given[0])
    compare(
        **contenders(ours, sad_eager.step, *given),
        floor=rotate(lambda x, y: ([z.sum() for z in x], y.sum(), y.sum(), [z * 2.0 for z in x]), plain, labels),
        bytes_moved=4 * 2 * numbers + 8 * labels.numel(),
        operations=6 * of_stages + 22 * given[1].numel(),
    )
