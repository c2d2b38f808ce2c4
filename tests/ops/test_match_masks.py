"""The mask terms of the costs, against mmdet's (golden arrays) and against plain PyTorch, pair by pair."""

import pytest
import torch

from pydistill.ops._match_options import PRESETS
from pydistill.ops.hungarian_match import hungarian_match, hungarian_match_reference
from pydistill.ops.linear_sum_assignment import linear_sum_assignment
from pydistill.ops.match_cost import match_cost, match_cost_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.ops.test_match_cost import INF, NAN, arrays
from tests.ops.test_match_cost import inputs as box_inputs

MASK, DICE = {"class": 0, "mask": 1, "dice": 0}, {"class": 0, "mask": 0, "dice": 1}
GOLDEN = {
    "ce": (MASK, {}),
    "dice_m2f": (DICE, {}),
    "dice_sq": (DICE, dict(dice_eps=1e-3, dice_squared=True)),
    "focal": (MASK, dict(mask_cost="focal", eps=1e-12)),
}


@each_device
@pytest.mark.parametrize("preset", ["mmdet_mask2former", "hf_mask2former"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, preset, device):
    """mmdet's arrays are of float32, where its focal form loses 1 - p; ours, in float32 too, loses the same."""
    z, want = arrays("detr_inputs", torch.float32), arrays("detr_cost_mmdet33", torch.float32)[f"mm3_mask_{name}"]
    weights, options = GOLDEN[name]
    x, y = (z[k][None].to(device) for k in ("mask_logits", "mask_gt"))
    got = match_cost(
        x[..., :1], None, None, None,
        preset=preset, weights=weights, mask_logits=x, target_masks=y, **options,
    )  # fmt: skip
    assert relative_error(got[0], want) < 1e-5
    exact = match_cost(
        x[..., :1].double(), None, None, None,
        preset=preset, weights=weights, mask_logits=x, target_masks=y > 0.5, **options,
    )  # fmt: skip
    assert exact.dtype == torch.float64 and relative_error(exact[0], want) < (2e-5 if name == "focal" else 3e-7)


def inputs(*leading, points=24, scale=4, boxes=True, **shape):
    """Targets beyond the count have masks of NaN."""

    def make(rng):
        logits, query_boxes, labels, target_boxes, counts, *_ = box_inputs(*leading, **shape)(rng)
        where = labels.shape[:-1]
        masks = scale * torch.randn(*logits.shape[:-1], points, generator=rng, dtype=torch.float64)
        target_masks = torch.rand(*labels.shape, points, generator=rng, dtype=torch.float64).round()
        if counts is not None:
            beyond = torch.arange(labels.shape[-1]) >= counts.expand(where)[..., None]
            target_masks[beyond] = NAN
        if not boxes:
            query_boxes = target_boxes = None
        return [logits, query_boxes, labels, target_boxes, counts, masks, target_masks]

    return make


def positional(function):
    def call(logits, boxes, labels, target_boxes, counts, masks, target_masks, **kwargs):
        kwargs = {**kwargs, "mask_logits": masks, "target_masks": target_masks}
        return function(logits, boxes, labels, target_boxes, counts, **kwargs)

    return call


def call(**kwargs):
    kwargs = dict(mask_logits=torch.rand(2, 7, 9), target_masks=torch.rand(2, 5, 9), preset="hf_mask2former") | kwargs
    boxes, target_boxes = kwargs.pop("boxes", None), kwargs.pop("target_boxes", None)
    return match_cost(torch.rand(2, 7, 6), boxes, torch.zeros(2, 5).long(), target_boxes, **kwargs)


def mistake(expected, **kwargs):
    return lambda: call(**kwargs), ValueError, f"match_cost: expected {expected}"


class TestMatchCostOfMasks(Conformance):
    fn, reference = positional(match_cost), positional(match_cost_reference)
    cases = {
        "no-boxes": Case(inputs(3, boxes=False), dict(preset="mmdet_mask2former")),
        "boxes": Case(inputs(3), dict(preset="hf_rf_detr")),
        "layers": Case(inputs(2, 3, boxes=False), dict(preset="hf_mask2former")),
        "targets-per-layer": Case(inputs(2, 3, per_layer=True), dict(preset="hf_rf_detr")),
        "no-counts": Case(inputs(2, padding=False), dict(weights={"mask": 0.5})),
        "many-points": Case(inputs(2, points=700, queries=40, boxes=False), dict(preset="hf_mask2former")),
        "one-point": Case(inputs(2, points=1), dict(preset="hf_rf_detr", weights={"class": 0})),
        "focal": Case(
            inputs(2, scale=2), dict(mask_cost="focal", alpha=0.4, gamma=1.5, weights={"mask": 3, "dice": 2})
        ),
        "squared": Case(inputs(2), dict(dice_squared=True, dice_eps=1e-3, weights={"dice": 2}, class_cost="none")),
    }
    empty = Case(inputs(0, padding=False), dict(preset="hf_rf_detr"))
    wrong = {
        "no-masks": mistake(
            "mask_logits and target_masks where .*, got None, a tensor with weights 5.0, 5.0", mask_logits=None
        ),
        "no-targets": mistake("mask_logits and target_masks where .*, got a tensor, None", target_masks=None),
        "no-weight": mistake(
            "mask_logits and target_masks where .*, got a tensor, a tensor with weights 0.0, 0.0",
            weights={"mask": 0, "dice": 0},
        ),
        "queries": mistake(
            r"mask_logits of shape \[2, 7\] and .* points, got \[2, 6, 9\]", mask_logits=torch.rand(2, 6, 9)
        ),
        "no-points": mistake(
            r"mask_logits of shape .*, got \[2, 7, 0\]",
            mask_logits=torch.rand(2, 7, 0),
            target_masks=torch.rand(2, 5, 0),
        ),
        "points": mistake(r"target_masks of shape \[2, 5, 9\] .*, got \[2, 5, 8\]", target_masks=torch.rand(2, 5, 8)),
        "box-weight": mistake("boxes with weights of l1 or giou, got None", preset="hf_rf_detr"),
        "one-of-boxes": mistake("both boxes and target_boxes", boxes=torch.rand(2, 7, 4)),
        "complex": (
            lambda: call(target_masks=torch.zeros(2, 5, 9, dtype=torch.complex64)),
            TypeError,
            "match_cost: expected real mask_logits and target_masks, got complex ones",
        ),
        "cost": mistake("mask_cost to be one of bce, focal, got ce", mask_cost="ce"),
    }


@each_device
@pytest.mark.parametrize("preset", [name for name, o in PRESETS.items() if o.weight("mask")])
def test_every_preset_equals_the_reference(preset, device):
    xs = Case(inputs(2, 3)).inputs("cpu", torch.float64)
    want = positional(match_cost_reference)(*xs, preset=preset)
    got = positional(match_cost)(*[x if x is None else x.to(device) for x in xs], preset=preset)
    assert_close(got, want, 1e-13)


def test_mask2former_of_transformers_written_out():
    """The matcher's formula by hand: one query, one target, two points."""
    cost = match_cost(
        torch.zeros(1, 1, 2), None, torch.zeros(1, 1).long(), None, preset="hf_mask2former",
        mask_logits=torch.tensor([[[0.0, 0.0]]]), target_masks=torch.tensor([[[1.0, 0.0]]]),
    )  # fmt: skip
    bce, dice = torch.tensor(2.0).log().item(), 1 - (2 * 0.5 + 1) / (1 + 1 + 1)
    assert cost.item() == pytest.approx(2 * -0.5 + 5 * bce + 5 * dice, rel=1e-6)


@each_device
def test_faults_stay_in_their_row_or_column(device):
    xs = Case(inputs(1, padding=False, boxes=False)).inputs(device, torch.float32)
    xs[2].clamp_max_(5)
    want = positional(match_cost)(*xs, preset="hf_mask2former")[0]
    assert want.isfinite().all()
    xs[5][0, 3, 7], xs[6][0, 2, 5], xs[6][0, 4] = NAN, INF, NAN
    got = positional(match_cost)(*xs[:4], torch.tensor([4], device=device), *xs[5:], preset="hf_mask2former")[0]
    assert got[3, :4].isnan().all() and not got[:, 2].isfinite().any() and (got[:, 4] == INF).all()
    rest = [[0], [1], [2], [4], [5], [6]], [0, 1, 3]
    assert_close(got[rest], want[rest], 1e-6)


@each_device
@pytest.mark.parametrize("groups", [1, 4])
def test_hungarian_match_adds_them(groups, device):
    xs = Case(inputs(2, 3, queries=12)).inputs("cpu", torch.float64)
    want = positional(hungarian_match_reference)(*xs, groups=groups, preset="hf_rf_detr")
    there = [x.to(device) for x in xs]
    got = positional(hungarian_match)(*there, groups=groups, preset="hf_rf_detr")
    assert all(torch.equal(g.cpu(), w) for g, w in zip(got, want))
    if groups == 1:
        cost = positional(match_cost)(*there, preset="hf_rf_detr").flatten(0, 1)
        alone = linear_sum_assignment(cost, columns=there[4].repeat(2))
        assert torch.equal(got.target_of_query.flatten(0, 1), alone.column_of_row)


def test_half_masks_are_computed_in_float_under_autocast():
    xs = Case(inputs(2)).inputs("cpu", torch.float32)
    xs[5] = xs[5].half()
    want = positional(match_cost)(*xs[:5], xs[5].float(), xs[6], preset="hf_rf_detr")
    with torch.autocast("cpu", torch.bfloat16):
        got = positional(match_cost)(*xs, preset="hf_rf_detr")
    assert torch.equal(got, want) and got.dtype == torch.float32


def test_confident_masks_neither_overflow_nor_lose_their_cost():
    x = torch.tensor([[[400.0, -400.0], [-400.0, 400.0]]])
    y = torch.tensor([[[1.0, 0.0]]])
    cost = match_cost(x, None, None, None, preset="hf_mask2former", class_cost="none", mask_logits=x, target_masks=y)
    assert cost[0, :, 0].tolist() == pytest.approx([0.0, 5 * 400 + 5 * (1 - 1 / 3)], rel=1e-6)


@each_device
def test_a_pair_that_cannot_be_stays_infinite_whatever_its_mask(device):
    xs = Case(inputs(1, padding=False)).inputs(device, torch.float32)
    xs[5][0, 0], xs[6][0, 1] = NAN, INF  # masks of the query and of the target whose boxes are not proper
    cost = positional(match_cost)(*xs, preset="hf_rf_detr")[0]
    assert (cost[0] == INF).all() and (cost[:, 1] == INF).all() and cost[1:, [0, 2, 3]].isfinite().all()
