"""assign_points: two images, 22400 points, 20 boxes each.

Operations: 20 a pair of point and box, 8 of the distances and their comparisons, 8 of those of the centre, 4 of the
level's range and of the smallest area.
"""

from pydistill.benchmarks.dense_scene import STRIDES, compare_on_anchors, picture
from pydistill.ops import assign_points
from pydistill.ops.assign_points import assign_points_reference


def test_points(compare, device, scale):
    anchors, sizes, boxes, counts = picture(device, scale)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    ours, eager = (
        lambda p, b, c, fn=fn: [*fn(p, STRIDES, sizes, b, c)] for fn in (assign_points, assign_points_reference)
    )
    compare_on_anchors(compare, ours, eager, points, boxes, counts, a_pair=20, written=8)
