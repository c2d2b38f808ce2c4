"""query_quality: a Deformable DETR's teacher, 6 stages, 300 queries, 91 classes, 8 images of 20 boxes.

Operations: 5 a score, a sigmoid and a comparison; the boxes of the best queries are left out.
"""

from functools import partial

import pytest
import torch

from pydistill.benchmarks.cases import contenders, times
from pydistill.benchmarks.set_scene import CLASSES, IMAGES, QUERIES, STAGES, TARGETS
from pydistill.benchmarks.timing import rotate
from pydistill.ops import query_quality
from pydistill.ops.query_quality import query_quality_reference


def of_best(scores, boxes, targets, counts, topk):
    """The released form, by ``topk`` of the logits in place of the reference's stable sort."""
    c, best = scores.flatten(-2).topk(topk)
    index = best // CLASSES
    b = boxes.gather(-2, index[..., None].expand(*index.shape, 4))
    q, _ = query_quality_reference(c.sigmoid()[..., None], b, targets, counts, form="released", activated=True)
    return q, index


@pytest.mark.parametrize("form", ["paper", "released"])
def test_scores(compare, device, scale, form):
    """Floor: the scores are read."""
    rng, queries, topk = torch.Generator().manual_seed(0), times(scale, QUERIES), times(min(scale, 1.0), 100)
    scores = torch.randn(STAGES, IMAGES, queries, CLASSES, generator=rng)
    boxes = torch.rand(STAGES, IMAGES, queries, 4, generator=rng)
    targets = torch.rand(IMAGES, TARGETS, 4, generator=rng)
    given = [x.to(device) for x in (scores, boxes, targets, torch.full((IMAGES,), TARGETS))]
    eager = partial(query_quality_reference, form=form) if form == "paper" else of_best
    compare(
        **contenders(partial(query_quality, form=form, topk=topk), partial(eager, topk=topk), *given),
        floor=rotate(torch.sum, given[0]),
        bytes_moved=4 * scores.numel(),
        operations=5 * scores.numel(),
    )
