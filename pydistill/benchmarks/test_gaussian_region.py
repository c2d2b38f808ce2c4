"""gaussian_region: 4 samples, 180 x 180 cells, 40 boxes each.

Peers: the reference, and ``released``, the released code's loop over boxes on the host. Operations: about 200 a box,
of 25 cells 8 each.
"""

from functools import partial

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.bev_scene import CELL, boxes_on, grid_of
from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.timing import rotate
from pydistill.ops import gaussian_region
from pydistill.ops.gaussian_region import gaussian_region_reference


def test_boxes(compare, device, scale):
    """Floor: the map filled with zeros."""
    grid = grid_of(scale)
    boxes, valid = boxes_on(grid, device)
    ours, eager = (partial(fn, grid=grid) for fn in (gaussian_region, gaussian_region_reference))
    released = partial(bev_eager.region, start=grid.x_min, cell=CELL, size=grid.width)
    compare(
        **contenders(ours, eager, boxes, valid, released=released),
        floor=rotate(lambda b: b.new_zeros(len(b), grid.height, grid.width), boxes),
        bytes_moved=4 * len(boxes) * grid.height * grid.width,
        operations=200 * valid.numel(),
        iterations=10,
    )
