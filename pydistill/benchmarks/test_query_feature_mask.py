"""query_feature_mask: six stages' best 100 queries of 2 images, a level of 256 x 100 x 168.

Operations: 14 a number of the map, a product and a sum for each stage and for the norm.
"""

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.cases import agree, contenders, sides
from pydistill.benchmarks.set_scene import STAGES
from pydistill.benchmarks.timing import rotate
from pydistill.ops import query_feature_mask

CHANNELS = 256


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


def ours(queries, quality, features):
    return query_feature_mask(queries, quality, [features])[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "last"])
def test_level(compare, device, scale, layout):
    """``compiled`` is ``by_direction``. Floor: the map is read."""
    rng = torch.Generator().manual_seed(0)
    queries, quality = torch.randn(STAGES, 2, 100, CHANNELS, generator=rng), torch.rand(STAGES, 2, 100, generator=rng)
    features = torch.randn(2, CHANNELS, *sides(scale, 100, 168), generator=rng).contiguous(memory_format=layout)
    inputs = [x.to(device) for x in (queries, quality, features)]
    agree("ours", ours(*inputs), cosines(*inputs))
    runs = contenders(ours, by_direction, *inputs)
    runs["by_direction"] = runs["eager"]
    runs["eager"] = rotate(cosines, *inputs)
    compare(
        **runs,
        floor=rotate(torch.sum, inputs[2]),
        bytes_moved=4 * features.numel(),
        operations=2 * (STAGES + 1) * features.numel(),
    )
