"""query_quality and query_feature_mask: a Deformable DETR's teacher, 6 stages, 300 queries, 91 classes, 8 images."""

import pytest
import torch
import torch.nn.functional as F

from pydistill.ops import query_feature_mask, query_quality
from pydistill.ops.query_quality import query_quality_reference

STAGES, B, Q, C, T, D = 6, 8, 300, 91, 20, 256


def predictions(device):
    rng = torch.Generator().manual_seed(0)
    scores, boxes = torch.randn(STAGES, B, Q, C, generator=rng), torch.rand(STAGES, B, Q, 4, generator=rng)
    targets, counts = torch.rand(B, T, 4, generator=rng), torch.full((B,), T)
    return [x.to(device) for x in (scores, boxes, targets, counts)]


def of_best(scores, boxes, targets, counts):
    """The released form, by ``topk`` in place of the reference's stable sort."""
    c, best = scores.sigmoid().flatten(-2).topk(100)
    index = best // C
    b = boxes.gather(-2, index[..., None].expand(*index.shape, 4))
    q, _ = query_quality_reference(c[..., None], b, targets, counts, form="released", activated=True)
    return q, index


@pytest.mark.parametrize("form", ["paper", "released"])
def test_query_quality(compare, device, form):
    """Floor: the scores read once."""
    inputs = predictions(device)

    def eager():
        return query_quality_reference(*inputs, form=form) if form == "paper" else of_best(*inputs)

    compare(
        ours=lambda: query_quality(*inputs, form=form),
        eager=eager,
        compiled=torch.compile(eager),
        floor=lambda: inputs[0].sum(),
        bytes_moved=4 * inputs[0].numel(),
    )


def cosines(queries, quality, features):
    """The released code, all stages at once: a cosine of each query with each pixel."""
    cosine = torch.einsum("lbkd,bdyx->lbkyx", F.normalize(queries, dim=-1), F.normalize(features, dim=1))
    mask = (quality[..., None, None] * cosine).sum(2).clamp_min(1e-2)
    return mask / mask.amax((-1, -2), keepdim=True)


def by_direction(queries, quality, features):
    """What one writes who has seen that the sum over queries is one vector."""
    v = torch.einsum("lbk,lbkd->bld", quality, F.normalize(queries, dim=-1))
    mask = (v @ features.flatten(2) / features.flatten(2).norm(dim=1, keepdim=True)).clamp_min(1e-2)
    return (mask / mask.amax(-1, keepdim=True)).transpose(0, 1).unflatten(-1, features.shape[2:])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_query_feature_mask(compare, device, layout):
    """2 images, a level of 100 x 168. Floor: the map read once."""
    rng = torch.Generator().manual_seed(0)
    queries, quality = torch.randn(STAGES, 2, 100, D, generator=rng), torch.rand(STAGES, 2, 100, generator=rng)
    features = torch.randn(2, D, 100, 168, generator=rng).contiguous(memory_format=layout)
    inputs = [x.to(device) for x in (queries, quality, features)]
    compiled = torch.compile(by_direction)
    compare(
        ours=lambda: query_feature_mask(*inputs[:2], inputs[2:]),
        eager=lambda: cosines(*inputs),
        by_direction=lambda: by_direction(*inputs),
        compiled=lambda: compiled(*inputs),
        floor=lambda: inputs[2].sum(),
        bytes_moved=4 * features.numel(),
    )
