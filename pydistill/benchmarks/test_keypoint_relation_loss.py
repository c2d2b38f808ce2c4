"""keypoint_relation_loss, forward and backward: 4 samples, 40 boxes each, nine points a box.

Operations: 104 a point and channel, two bilinear readings of 8, two norms of 4, two Gram matrices of 18, the gradient
of one 18 twice and its four cells 8.
"""

import pytest
import torch

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.bev_scene import boxes_on, grid_of, maps
from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.timing import rotate
from pydistill.ops import box_keypoints, keypoint_relation_loss


@pytest.mark.parametrize("channels", [256, 512])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_map(compare, device, scale, layout, channels):
    """Floor: the gradient allocated and filled with zeros."""
    grid = grid_of(scale)
    boxes, valid = boxes_on(grid, device)
    points, (student, teacher) = box_keypoints(boxes, grid), maps(channels, grid, device, layout)
    compare(
        **contenders(keypoint_relation_loss, bev_eager.relation, student, teacher, points, valid),
        floor=rotate(torch.zeros_like, teacher),
        bytes_moved=4 * student.numel(),
        operations=104 * channels * points[..., 0].numel(),
        rounds=7,
    )
