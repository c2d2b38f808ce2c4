"""box_keypoints: nine points of 40 boxes of 4 samples, and as many boxes as fill the caches.

Operations: 12 a point, two products of two factors, their sums and the cell.
"""

from functools import partial

import pytest

from pydistill.benchmarks.bev_scene import boxes_on, grid_of
from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.timing import rotate
from pydistill.ops import box_keypoints
from pydistill.ops.box_keypoints import box_keypoints_reference


@pytest.mark.parametrize("many", [1, 1000])
def test_nine_points(compare, device, scale, many):
    """Floor: boxes are read and points are written."""
    grid = grid_of(1.0)
    boxes = boxes_on(grid, device)[0].repeat(1, times(scale, many), 1)
    ours, eager = (partial(fn, grid=grid) for fn in (box_keypoints, box_keypoints_reference))
    points = 9 * boxes[..., 0].numel()
    compare(
        **contenders(ours, eager, boxes),
        floor=rotate(lambda b: (b.sum(), b.new_zeros(2 * points)), boxes),
        bytes_moved=4 * (boxes.numel() + 2 * points),
        operations=12 * points,
        iterations=10 if many == 1 else 1,
    )
