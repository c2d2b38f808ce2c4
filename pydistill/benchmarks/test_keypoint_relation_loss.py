"""keypoint_relation_loss, forward and backward: 4 samples, 40 boxes each, nine points a box.

Operations: 104 a point and channel, two bilinear readings of 8, two norms of 4, two Gram matrices of 18, the gradient
of one 18 twice and its four cells 8.
"""

import pytest
import torch

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.bev_scene import at_key_points
from pydistill.ops import keypoint_relation_loss


@pytest.mark.parametrize("channels", [256, 512])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_map(compare, device, scale, layout, channels):
    compare(
        **at_key_points(keypoint_relation_loss, bev_eager.relation, device, scale, channels, layout, operations=104)
    )
