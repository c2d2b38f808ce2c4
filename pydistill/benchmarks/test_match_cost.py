"""match_cost of boxes and of masks.

Operations: 45 a pair of query and target of boxes (L1 12, GIoU 31, sums 2); of masks 4 a point and pair, two products.
"""

from functools import partial

import pytest
import torch

from pydistill.benchmarks import matching_eager
from pydistill.benchmarks.cases import contenders, sides, times
from pydistill.benchmarks.set_scene import IMAGES, predictions
from pydistill.benchmarks.timing import rotate
from pydistill.ops import match_cost


@pytest.mark.parametrize("preset", ["detr", "deformable_detr"])
@pytest.mark.parametrize("queries, targets", [(300, 20), (900, 100)])
def test_boxes(compare, device, scale, queries, targets, preset):
    """Floor: costs written, as many numbers as logits read."""
    given = predictions(device, IMAGES, *sides(scale, queries, targets))
    ours, eager = (partial(fn, preset=preset) for fn in (match_cost, matching_eager.costs))
    cells = IMAGES * given[0].shape[1] * given[2].shape[1]
    compare(
        **contenders(ours, eager, *given),
        floor=rotate(lambda x: (x.sum(), x.new_zeros(cells)), given[0]),
        bytes_moved=sum(t.numel() * t.element_size() for t in given) + 4 * cells,
        operations=45 * cells,
    )


@pytest.mark.parametrize("images, queries, targets, points", [(2, 100, 20, 12544)])
def test_masks(compare, device, scale, images, queries, targets, points):
    """Floor: the products, one of the logits and one of the probabilities with the targets."""
    points = times(scale, points)
    logits, _, labels, _ = predictions(device, images, queries, targets)
    rng = torch.Generator().manual_seed(1)
    masks = torch.randn(images, queries, points, generator=rng).to(device)
    target_masks = torch.rand(images, targets, points, generator=rng).round().to(device)

    def ours(logits, labels, masks, target_masks):
        options = dict(preset="mmdet_mask2former", mask_logits=masks, target_masks=target_masks)
        return match_cost(logits, None, labels, None, **options)

    compare(
        **contenders(ours, matching_eager.costs_of_masks, logits, labels, masks, target_masks),
        floor=rotate(lambda m, t: (m @ t.mT, m @ t.mT), masks, target_masks),
        bytes_moved=4 * (masks.numel() + target_masks.numel()),
        operations=4 * points * images * queries * targets,
    )
