"""inside_region: two images, 22400 points, 20 boxes each.

Operations: 8 a pair of point and box, four differences and four comparisons.
"""

from pydistill.benchmarks.dense_scene import compare_on_anchors, picture
from pydistill.ops import inside_region
from pydistill.ops.inside_region import inside_region_reference


def test_points(compare, device, scale):
    anchors, _, boxes, counts = picture(device, scale)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    compare_on_anchors(compare, inside_region, inside_region_reference, points, boxes, counts, a_pair=8, written=1)
