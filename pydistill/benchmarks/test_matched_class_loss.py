"""matched_class_loss, forward and backward, and matched_labels: six decoder stages, 8 images, 91 classes.

``focal``: with labels of 20 objects; ``soft_bce``: with a teacher's 300 queries. Operations: 20 a logit of ``focal``,
those of sigmoid_focal_loss; 13 of ``soft_bce``: softplus 3, two sigmoids of 4, a product and a difference.
"""

from functools import partial

import pytest
import torch

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.set_scene import CLASSES, IMAGES, QUERIES, STAGES, TARGETS, matches
from pydistill.benchmarks.timing import rotate
from pydistill.ops import matched_class_loss, matched_labels
from pydistill.ops.matched_class_loss import matched_class_loss_reference


@pytest.mark.parametrize("form, operations, inputs_read", [("focal", 20, 1), ("soft_bce", 13, 2)])
def test_logits(compare, device, scale, form, operations, inputs_read):
    """Floor: the logits, with ``soft_bce`` the teacher's too, are read and their gradient is written."""
    rng, queries = torch.Generator().manual_seed(0), times(scale, QUERIES)
    logits = torch.randn(STAGES, IMAGES, queries, CLASSES, generator=rng) - 4
    if form == "focal":
        objects = min(TARGETS, queries)
        targets, match = torch.randint(CLASSES, (IMAGES, objects), generator=rng), matches(rng, queries, objects)
    else:
        targets, match = torch.randn(logits.shape, generator=rng) - 4, matches(rng, queries, queries)
    logits, targets, match = logits.to(device), targets.to(device), match.to(device)
    ours, eager = (
        lambda *x, fn=fn: fn(*x, form=form).sum() for fn in (matched_class_loss, matched_class_loss_reference)
    )
    compare(
        **contenders(ours, eager, logits.clone().requires_grad_(), targets, match),
        floor=rotate(torch.add, logits, targets) if form == "soft_bce" else rotate(lambda x: x + 1, logits),
        bytes_moved=(inputs_read + 1) * 4 * logits.numel(),
        operations=operations * logits.numel(),
    )


def labels_of_each(target_labels, target_of_query, background):
    """A stage and an image at a time, as criteria of set detectors have it."""
    labels = torch.full_like(target_of_query, background)
    for stage in range(len(target_of_query)):
        for image in range(len(target_labels)):
            at = (target_of_query[stage, image] >= 0).nonzero()[:, 0]
            labels[stage, image, at] = target_labels[image, target_of_query[stage, image, at]]
    return labels


def test_labels(compare, device, scale):
    """Floor: an index is read and a label is written. Operations: two comparisons a query."""
    rng, queries = torch.Generator().manual_seed(0), times(scale, QUERIES)
    targets = torch.randint(CLASSES, (IMAGES, min(TARGETS, queries)), generator=rng).to(device)
    match = matches(rng, queries, targets.shape[1]).to(device)
    ours, eager = (partial(fn, background=CLASSES) for fn in (matched_labels, labels_of_each))
    compare(
        **contenders(ours, eager, targets, match, compiled=False),
        floor=rotate(lambda x: x + 1, match),
        bytes_moved=2 * 8 * match.numel(),
        operations=2 * match.numel(),
        iterations=10,
    )
