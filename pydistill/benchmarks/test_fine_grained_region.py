"""fine_grained_region: two images, 22400 anchors, 20 boxes each.

Operations: 16 a pair of anchor and box, 14 of the IoU and two comparisons.
"""

from pydistill.benchmarks.dense_scene import compare_on_anchors, picture
from pydistill.ops import fine_grained_region
from pydistill.ops.fine_grained_region import fine_grained_region_reference


def test_anchors(compare, device, scale):
    anchors, _, boxes, counts = picture(device, scale)
    compare_on_anchors(
        compare, fine_grained_region, fine_grained_region_reference, anchors, boxes, counts, a_pair=16, written=1
    )
