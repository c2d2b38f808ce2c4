"""The assigners and regions besides ATSS, on the anchors and boxes of test_assign_atss, with scores of 80 classes."""

import pytest
import torch

from pydistill import ops
from pydistill.benchmarks.test_assign_atss import STRIDES, picture
from pydistill.ops.assign_max_iou import assign_max_iou_reference
from pydistill.ops.assign_points import assign_points_reference
from pydistill.ops.fine_grained_region import fine_grained_region_reference
from pydistill.ops.general_instance_region import general_instance_region_reference
from pydistill.ops.inside_region import inside_region_reference

REFERENCES = {
    "assign_max_iou": assign_max_iou_reference,
    "assign_points": assign_points_reference,
    "inside_region": inside_region_reference,
    "fine_grained_region": fine_grained_region_reference,
    "general_instance_region": general_instance_region_reference,
}


def inputs(name, device):
    anchors, sizes, boxes, counts = picture(device)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    if name == "general_instance_region":
        rng = torch.Generator().manual_seed(1)
        scores = [torch.randn(len(boxes), len(anchors), 80, generator=rng).to(device) for _ in range(2)]
        shift = 8 * torch.rand(2, len(boxes), len(anchors), 4, generator=rng).to(device)
        return *scores, anchors + shift[0], anchors + shift[1], sizes
    if name == "assign_points":
        return points, STRIDES, sizes, boxes, counts
    return (points if name == "inside_region" else anchors), boxes, counts


@pytest.mark.parametrize("name", REFERENCES)
def test_region(compare, device, name):
    """Floor: what is read is read once per image, and a mask of bytes is written: it finds nothing."""
    given = inputs(name, device)
    ours, reference = getattr(ops, name), REFERENCES[name]
    compiled = torch.compile(reference)
    tensors = [x for x in given if isinstance(x, torch.Tensor)]
    compare(
        ours=lambda: ours(*given),
        eager=lambda: reference(*given),
        compiled=lambda: compiled(*given),
        floor=lambda: [x.sum() for x in tensors],
        bytes_moved=sum(x.numel() * x.element_size() for x in tensors),
    )
