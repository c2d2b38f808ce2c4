"""assign_atss and the valuable localization region: 2 images of 800 x 1344, 22400 anchors, 20 boxes each."""

import torch

from pydistill.ops import assign_atss, valuable_localization_region
from pydistill.ops.assign_atss import assign_atss_reference
from pydistill.ops.valuable_localization_region import valuable_localization_region_reference

HEIGHT, WIDTH, STRIDES, IMAGES, BOXES = 800, 1344, (8, 16, 32, 64, 128), 2, 20


def picture(device):
    """Square anchors of side 8 strides, and boxes of 16 to 500 pixels."""
    levels = []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(0, HEIGHT, stride), torch.arange(0, WIDTH, stride), indexing="ij")
        centre = torch.stack([x, y], -1).reshape(-1, 2).float()
        levels.append(torch.cat([centre - 4 * stride, centre + 4 * stride], 1))
    rng = torch.Generator().manual_seed(0)
    sides = 16 * (500 / 16) ** torch.rand(IMAGES, BOXES, 2, generator=rng)
    corner = torch.rand(IMAGES, BOXES, 2, generator=rng) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    boxes, counts = torch.cat([corner, corner + sides], -1), torch.full((IMAGES,), BOXES)
    return torch.cat(levels).to(device), [len(level) for level in levels], boxes.to(device), counts.to(device)


def both(assign, region):
    """The assignment, then the region between its thresholds."""

    def run(anchors, sizes, boxes, counts):
        assigned = assign(anchors, sizes, boxes, counts)
        return assigned, region(anchors, boxes, counts, assigned.threshold)

    return run


def test_assign_atss_and_region(compare, device):
    """The floor reads the anchors once per image and stage and writes index, IoU and weight: it finds no neighbour.

    The reference asks for each image's count, on which torch.compile breaks its graph.
    """
    inputs = picture(device)
    anchors = inputs[0]
    reference = both(assign_atss_reference, valuable_localization_region_reference)
    ours = both(assign_atss, valuable_localization_region)
    compiled = torch.compile(reference)
    for got, want in zip(ours(*inputs)[0], reference(*inputs)[0]):
        torch.testing.assert_close(got, want)
    compare(
        ours=lambda: ours(*inputs),
        eager=lambda: reference(*inputs),
        compiled=lambda: compiled(*inputs),
        floor=lambda: [(anchors.sum(1), anchors.sum(1), anchors.long().sum(1)) for _ in range(IMAGES)],
        bytes_moved=IMAGES * len(anchors) * (3 * 16 + 8 + 4 + 4),
    )
