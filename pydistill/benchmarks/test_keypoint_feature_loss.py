"""keypoint_feature_loss, forward and backward: 4 samples, 40 boxes each, nine points a box.

Operations: 27 a point and channel, two bilinear readings of 8, the difference 3, the gradient's four cells 8.
"""

import pytest
import torch

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.bev_scene import boxes_on, grid_of, maps
from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.timing import rotate
from pydistill.ops import box_keypoints, keypoint_feature_loss


@pytest.mark.parametrize("channels", [256, 512])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_map(compare, device, scale, layout, channels):
    """Floor: the gradient allocated and filled with zeros."""
    grid = grid_of(scale)
    boxes, valid = boxes_on(grid, device)
    points, (student, teacher) = box_keypoints(boxes, grid), maps(channels, grid, device, layout)
    compare(
        **contenders(keypoint_feature_loss, bev_eager.feature, student, teacher, points, valid),
        floor=rotate(torch.zeros_like, teacher),
        bytes_moved=4 * student.numel(),
        operations=27 * channels * points[..., 0].numel(),
        rounds=7,
    )
