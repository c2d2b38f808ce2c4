"""matched_distillation_loss, forward and backward: six stages of student's and teacher's 300 queries, 8 images.

Operations: 13 a logit (see matched_class_loss) and 100 a box (see matched_box_loss).
"""

import torch

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.set_scene import CLASSES, IMAGES, QUERIES, STAGES, matches
from pydistill.benchmarks.timing import rotate
from pydistill.ops import matched_distillation_loss
from pydistill.ops.matched_box_loss import matched_box_loss_reference
from pydistill.ops.matched_class_loss import matched_class_loss_reference


def ours(logits, boxes, teacher_logits, teacher_boxes, match):
    return torch.stack(matched_distillation_loss(logits, boxes, teacher_logits, teacher_boxes, match)).sum()


def eager(logits, boxes, teacher_logits, teacher_boxes, match):
    """The references of the losses that it is made of."""
    classes = matched_class_loss_reference(logits, teacher_logits, match, form="soft_bce")
    l1, giou = matched_box_loss_reference(boxes, teacher_boxes, match)
    return torch.stack([classes, l1, giou]).sum() / (logits.shape[-3] * logits.shape[-2])


def test_queries(compare, device, scale):
    """Floor: logits and boxes of both are read and the student's gradients are written."""
    rng, queries = torch.Generator().manual_seed(0), times(scale, QUERIES)
    logits, teacher_logits = (
        (torch.randn(STAGES, IMAGES, queries, CLASSES, generator=rng) - 4).to(device) for _ in range(2)
    )
    boxes, teacher_boxes = (
        (0.1 + 0.8 * torch.rand(STAGES, IMAGES, queries, 4, generator=rng)).to(device) for _ in range(2)
    )
    match = matches(rng, queries, queries).to(device)
    learners = (x.clone().requires_grad_() for x in (logits, boxes))
    compare(
        **contenders(ours, eager, *learners, teacher_logits, teacher_boxes, match),
        floor=rotate(lambda x, y, b, c: (x + y, b + c), logits, teacher_logits, boxes, teacher_boxes),
        bytes_moved=3 * 4 * (logits.numel() + boxes.numel()),
        operations=13 * logits.numel() + 25 * boxes.numel(),
    )
