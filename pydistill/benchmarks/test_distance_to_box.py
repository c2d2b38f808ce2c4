"""distance_to_box, forward and backward, and its inverse box_to_distance, forward: all anchors of two images.

Operations: 4 a box for the corners and 4 for their gradient; 4 for distances and 8 to cut them.
"""

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.dense_scene import ANCHORS, IMAGES, random_boxes
from pydistill.benchmarks.timing import rotate
from pydistill.ops import box_to_distance, distance_to_box
from pydistill.ops.distance_to_box import box_to_distance_reference, distance_to_box_reference


def points_and_boxes(device, scale):
    boxes = random_boxes(device, IMAGES, times(scale, ANCHORS))
    return (boxes[0, :, :2] + boxes[0, :, 2:]) / 2, boxes


def test_corners(compare, device, scale):
    """Floor: distances are read and boxes are written, then a gradient is read and one is written."""
    points, distances = points_and_boxes(device, scale)
    ours, eager = (lambda p, d, fn=fn: fn(p, d).square().sum() for fn in (distance_to_box, distance_to_box_reference))
    compare(
        **contenders(ours, eager, points, distances.clone().requires_grad_()),
        floor=rotate(lambda d: (d + 1, d + 1), distances),
        bytes_moved=4 * (4 * distances.numel() + points.numel()),
        operations=2 * distances.numel(),
    )


def test_distances(compare, device, scale):
    """Floor: boxes are read and distances are written."""
    points, boxes = points_and_boxes(device, scale)
    ours, eager = (
        lambda p, b, fn=fn: fn(p, b, max_distance=16.0) for fn in (box_to_distance, box_to_distance_reference)
    )
    compare(
        **contenders(ours, eager, points, boxes),
        floor=rotate(lambda b: b + 1, boxes),
        bytes_moved=4 * (2 * boxes.numel() + points.numel()),
        operations=3 * boxes.numel(),
    )
