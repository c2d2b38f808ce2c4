"""valuable_localization_region with one threshold: two images, 22400 anchors, 20 boxes each.

With ATSS's thresholds it is timed in test_assign_atss. Operations: 40 a pair of anchor and box, IoU and DIoU 34, the
band and the largest 6.
"""

from functools import partial

from pydistill.benchmarks.dense_scene import compare_on_anchors, picture
from pydistill.ops import valuable_localization_region
from pydistill.ops.valuable_localization_region import valuable_localization_region_reference


def test_anchors(compare, device, scale):
    anchors, _, boxes, counts = picture(device, scale)
    ours, eager = (
        partial(fn, threshold=0.5) for fn in (valuable_localization_region, valuable_localization_region_reference)
    )
    compare_on_anchors(compare, ours, eager, anchors, boxes, counts, a_pair=40, written=4)
