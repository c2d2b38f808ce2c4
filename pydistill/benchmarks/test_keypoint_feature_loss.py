"""keypoint_feature_loss, forward and backward: 4 samples, 40 boxes each, nine points a box.

Operations: 27 a point and channel, two bilinear readings of 8, the difference 3, the gradient's four cells 8.
"""

import pytest
import torch

from pydistill.benchmarks import bev_eager
from pydistill.benchmarks.bev_scene import at_key_points
from pydistill.ops import keypoint_feature_loss


@pytest.mark.parametrize("channels", [256, 512])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_map(compare, device, scale, layout, channels):
    compare(**at_key_points(keypoint_feature_loss, bev_eager.feature, device, scale, channels, layout, operations=27))
