"""assign_max_iou: two images, 22400 anchors, 20 boxes each.

Operations: 16 a pair of anchor and box, 14 of the IoU and two comparisons.
"""

from pydistill.benchmarks.dense_scene import compare_on_anchors, picture
from pydistill.ops import assign_max_iou
from pydistill.ops.assign_max_iou import assign_max_iou_reference


def test_anchors(compare, device, scale):
    anchors, _, boxes, counts = picture(device, scale)
    ours, eager = (lambda *x, fn=fn: [*fn(*x)] for fn in (assign_max_iou, assign_max_iou_reference))
    compare_on_anchors(compare, ours, eager, anchors, boxes, counts, a_pair=16, written=8 + 4)
