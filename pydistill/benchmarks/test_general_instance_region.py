"""general_instance_region: two images of 22400 anchors, scores of 80 classes of student and teacher.

Operations: 10 a pair of scores, two sigmoids of 4, a difference and a comparison; the few boxes kept are left out.
"""

import torch

from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.dense_scene import CLASSES, IMAGES, picture
from pydistill.benchmarks.timing import rotate
from pydistill.ops import general_instance_region
from pydistill.ops.general_instance_region import general_instance_region_reference


def test_of_scores(compare, device, scale):
    """Floor: all that is given is read once."""
    anchors, sizes, *_ = picture(device, scale)
    rng = torch.Generator().manual_seed(1)
    scores = [torch.randn(IMAGES, len(anchors), CLASSES, generator=rng).to(device) for _ in range(2)]
    shifts = 8 * torch.rand(2, IMAGES, len(anchors), 4, generator=rng).to(device)
    given = [*scores, *(anchors + shift for shift in shifts)]
    ours, eager = (
        lambda *x, fn=fn: fn(*x, sizes) for fn in (general_instance_region, general_instance_region_reference)
    )
    compare(
        **contenders(ours, eager, *given),
        floor=rotate(lambda *x: [each.sum() for each in x], *given),
        bytes_moved=4 * sum(x.numel() for x in given) + IMAGES * len(anchors),
        operations=10 * scores[0].numel(),
    )
