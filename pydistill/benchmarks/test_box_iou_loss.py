"""giou_loss, diou_loss and ciou_loss, one kernel, forward and backward: the anchors of two 800 x 1344 pictures.

Operations: about 70 a pair of boxes for GIoU (areas 6, intersection and hull 9 each, the ratios 7, and about 40 of the
gradient), 80 for DIoU (centres and diagonal instead of the hull's area), 100 for CIoU (two arctans and their slopes).
"""

from functools import partial

import pytest

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.dense_scene import ANCHORS, IMAGES, random_boxes
from pydistill.benchmarks.timing import rotate
from pydistill.ops import ciou_loss, diou_loss, giou_loss
from pydistill.ops.box_iou_loss import box_iou_loss_reference

FORMS = {"giou": (giou_loss, 70), "diou": (diou_loss, 80), "ciou": (ciou_loss, 100)}


@pytest.mark.parametrize("form", FORMS)
def test_pairs(compare, device, scale, form):
    """Floor: two sets of boxes are read and one gradient is written."""
    loss, operations = FORMS[form]
    prediction, target = random_boxes(device, 2, times(scale, IMAGES * ANCHORS))
    ours, eager = partial(loss, reduction="sum"), partial(box_iou_loss_reference, form=form, reduction="sum")
    compare(
        **contenders(ours, eager, prediction.clone().requires_grad_(), target),
        floor=rotate(lambda a, b: a + b, prediction, target),
        bytes_moved=4 * 3 * target.numel(),
        operations=operations * len(target),
    )
