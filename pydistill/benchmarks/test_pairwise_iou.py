"""pairwise_iou and, under torchvision's names, box_iou, generalized_box_iou, distance_box_iou and complete_box_iou.

One kernel: 22400 anchors with 100 boxes, forward, as assigners and matchers need them; pairwise_iou of GIoU also
backward. Peers: the reference, and torchvision where it is installed. Operations a pair: 14 for IoU (intersection 9,
union 2, areas 3), 25 for GIoU, 31 for DIoU, 41 for CIoU; with the gradients three times that.
"""

from functools import partial
from importlib.util import find_spec

import pytest

from pydistill.benchmarks.cases import contenders, sides
from pydistill.benchmarks.dense_scene import ANCHORS, random_boxes
from pydistill.ops import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou, pairwise_iou
from pydistill.ops.pairwise_iou import pairwise_iou_reference

FORMS = {
    box_iou: ("iou", 1e-37, 14),
    generalized_box_iou: ("giou", 1e-37, 25),
    distance_box_iou: ("diou", 1e-7, 31),
    complete_box_iou: ("ciou", 1e-7, 41),
}


def two_sets(device, scale):
    root = sides(scale, ANCHORS, 100)
    return random_boxes(device, root[0]), random_boxes(device, root[1])


def torchvision(name):
    """The peer of the same name, or nothing where it is not installed."""
    if not find_spec("torchvision"):
        return {}
    from torchvision import ops as peers

    return {"torchvision": getattr(peers, name)}


@pytest.mark.parametrize("ours", FORMS, ids=lambda fn: fn.__name__)
def test_every_pair(compare, device, scale, ours):
    """Floor: the table allocated and filled."""
    mode, eps, operations = FORMS[ours]
    a, b = two_sets(device, scale)
    eager = partial(pairwise_iou_reference, mode=mode, eps=eps)
    compare(
        **contenders(ours, eager, a, b, **torchvision(ours.__name__)),
        floor=lambda: a.new_zeros(len(a), len(b)),
        bytes_moved=4 * (len(a) * len(b) + a.numel() + b.numel()),
        operations=operations * len(a) * len(b),
    )


def test_gradient(compare, device, scale):
    """Of the sum of all pairs. Floor: the table filled and read."""
    a, b = (x.requires_grad_() for x in two_sets(device, scale))
    ours, eager = (lambda a, b, fn=fn: fn(a, b, mode="giou").sum() for fn in (pairwise_iou, pairwise_iou_reference))
    compare(
        **contenders(ours, eager, a, b),
        floor=lambda: a.detach().new_zeros(len(a), len(b)).sum(),
        bytes_moved=4 * 2 * (len(a) * len(b) + a.numel() + b.numel()),
        operations=3 * 25 * len(a) * len(b),
    )
