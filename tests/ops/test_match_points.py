"""Mask costs at sampled points: against a NumPy statement of the sampling, and against the masks sampled before."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pydistill.ops.hungarian_match import hungarian_match
from pydistill.ops.match_cost import match_cost, match_cost_reference
from tests.conformance import each_device, relative_error


def sampled(maps, points):
    """maps (N, K, h, w) at points (N, P, 2), bilinear between the centres of pixels, 0 outside, in float64."""
    n, _, h, w = maps.shape
    x, y = points[..., 0] * w - 0.5, points[..., 1] * h - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total = 0
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            weight = (1 - abs(x - column)) * (1 - abs(y - row)) * inside
            at = maps[np.arange(n)[:, None], :, row.clip(0, h - 1), column.clip(0, w - 1)]  # (N, P, K)
            total = total + weight[..., None] * at
    return total.swapaxes(1, 2)


def mask_costs(logits, masks):
    """Binary cross entropy and dice of each pair, from (N, Q, P) and (N, T, P), in float64."""
    x, y = logits[:, :, None], masks[:, None]
    p = 1 / (1 + np.exp(-x))
    entropy = (np.logaddexp(0, x) - x * y).mean(-1)
    return 5 * entropy + 5 * (1 - (2 * (p * y).sum(-1) + 1) / (p.sum(-1) + y.sum(-1) + 1))


def inputs(rng, n, *layers, dtype=torch.float64, q=5, t=3, size=(6, 7), target_size=(9, 5), p=8):
    logits = torch.randn(*layers, n, q, 4, generator=rng, dtype=dtype)
    masks = 3 * torch.randn(*layers, n, q, *size, generator=rng, dtype=dtype)
    target_masks = torch.rand(n, t, *target_size, generator=rng, dtype=dtype).round()
    points = torch.rand(n, p, 2, generator=rng, dtype=dtype) * 1.2 - 0.1  # some outside
    labels = torch.randint(4, (n, t), generator=rng)
    return (logits, None, labels, None), dict(mask_logits=masks, target_masks=target_masks, points=points)


@each_device
@pytest.mark.parametrize("dtype, most", [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_a_thousand_cases_in_numpy(dtype, most, device):
    rng = torch.Generator().manual_seed(0)
    for size, target_size, p in (((6, 7), (9, 5), 8), ((1, 1), (4, 3), 1), ((3, 2), (2, 8), 20), ((5, 5), (5, 5), 3)):
        args, kwargs = inputs(rng, 250, dtype=dtype, size=size, target_size=target_size, p=p)
        at = {k: v.double().numpy() for k, v in kwargs.items()}
        want = mask_costs(sampled(at["mask_logits"], at["points"]), sampled(at["target_masks"], at["points"]))
        on = [None if x is None else x.to(device) for x in args]
        there = {k: v.to(device) for k, v in kwargs.items()}
        got = match_cost(*on, preset="hf_mask2former", weights={"class": 0}, **there)
        assert relative_error(got, torch.from_numpy(want)) < most


@each_device
def test_equals_masks_that_the_host_samples(device):
    """transformers' and detectron2's point_sample: grid_sample at 2 p - 1, without aligned corners."""
    args, kwargs = inputs(torch.Generator().manual_seed(1), 4, dtype=torch.float32)
    args, kwargs = ([None if x is None else x.to(device) for x in args], {k: v.to(device) for k, v in kwargs.items()})

    def point_sample(maps):
        return F.grid_sample(maps, 2.0 * kwargs["points"].unsqueeze(2) - 1.0, align_corners=False).squeeze(3)

    before = {k: point_sample(kwargs[k]) for k in ("mask_logits", "target_masks")}
    assert torch.equal(match_cost(*args, preset="hf_mask2former", **kwargs),
                       match_cost(*args, preset="hf_mask2former", **before))  # fmt: skip
    ours = hungarian_match(*args, preset="hf_mask2former", **kwargs)
    assert all(map(torch.equal, ours, hungarian_match(*args, preset="hf_mask2former", **before)))


@each_device
def test_layers_share_points_and_bool_masks_count(device):
    args, kwargs = inputs(torch.Generator().manual_seed(2), 3, 2, dtype=torch.float32)
    kwargs["target_masks"] = kwargs["target_masks"] > 0.5
    args, kwargs = ([None if x is None else x.to(device) for x in args], {k: v.to(device) for k, v in kwargs.items()})
    whole = match_cost(*args, preset="hf_mask2former", **kwargs)
    assert whole.shape == (2, 3, 5, 3)
    for layer in range(2):
        part = match_cost(args[0][layer], *args[1:], preset="hf_mask2former",
                          **{**kwargs, "mask_logits": kwargs["mask_logits"][layer]})  # fmt: skip
        assert torch.equal(whole[layer], part)
    half = {**kwargs, "mask_logits": kwargs["mask_logits"].half()}
    assert relative_error(match_cost(*args, preset="hf_mask2former", **half), whole) < 1e-2
    reference = match_cost_reference(*[None if x is None else x.cpu() for x in args], preset="hf_mask2former",
                                     **{k: v.cpu() for k, v in kwargs.items()})  # fmt: skip
    assert relative_error(whole, reference) < 1e-5


def test_no_targets():
    args, kwargs = inputs(torch.Generator().manual_seed(3), 3, t=0)
    assert match_cost(*args, preset="hf_mask2former", **kwargs).shape == (3, 5, 0)


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (dict(mask_logits=None), ValueError, "expected points only with mask_logits and target_masks, got None"),
        (dict(points=torch.rand(2, 8, 3)), ValueError, r"expected points of shape \(B, P, 2\), one or more"),
        (dict(points=torch.zeros(2, 8, 2).int()), TypeError, "expected points of a floating dtype, got torch.int32"),
        (dict(points=torch.rand(3, 8, 2)), ValueError, r"expected mask_logits of shape \(..., 3, K, h, w\), got \[2,"),
        (dict(target_masks=torch.rand(2, 3, 9)), ValueError, r"expected target_masks of shape .*, got \[2, 3, 9\]"),
    ],
)
def test_rejects(wrong, error, message):
    args, kwargs = inputs(torch.Generator().manual_seed(4), 2)
    for call in (match_cost, hungarian_match):
        with pytest.raises(error, match=message):
            call(*args, preset="hf_mask2former", **{**kwargs, **wrong})
