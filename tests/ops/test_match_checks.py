"""What ``pydistill.checking`` finds in the data of the matching ops, and what they return without it."""

import pytest
import torch

import pydistill
from pydistill.ops import hungarian_match, linear_sum_assignment, match_cost
from tests.conformance import each_device

INF, NAN = float("inf"), float("nan")


def data(device="cpu"):
    """Two images of three queries and two targets each; the second image has one target."""
    rng = torch.Generator().manual_seed(0)
    boxes, target_boxes = (0.2 + 0.6 * torch.rand(2, n, 4, generator=rng) for n in (3, 2))
    made = dict(
        logits=torch.randn(2, 3, 4, generator=rng),
        boxes=boxes,
        target_labels=torch.tensor([[0, 3], [1, 2]]),
        target_boxes=target_boxes,
        counts=torch.tensor([2, 1]),
        mask_logits=torch.randn(2, 3, 8, generator=rng),
        target_masks=torch.rand(2, 2, 8, generator=rng).round(),
    )
    return {name: t.to(device) for name, t in made.items()}


FAULTS = {  # name of the tensor, place, value, message, and the costs that become infinite
    "count": ("counts", (1,), 3, r"counts in \[0, 2\], got 3 at \[1\]", None),
    "negative-count": ("counts", (0,), -1, r"counts in \[0, 2\], got -1 at \[0\]", (0,)),
    "label": ("target_labels", (0, 1), 4, r"labels in \[0, 4\), got 4 at \[0, 1\]", (0, slice(None), 1)),
    "box": ("boxes", (1, 2, 0), NAN, r"finite boxes, not inverted, got \[nan, .* at \[1, 2\]", (1, 2)),
    "inverted": ("boxes", (0, 1, 2), -0.1, r"finite boxes, not inverted, got \[.* at \[0, 1\]", (0, 1)),
    "target": ("target_boxes", (0, 1, 3), INF, r"finite target_boxes, .*inf\] at \[0, 1\]", (0, slice(None), 1)),
    "logit": ("logits", (0, 2, 3), NAN, r"finite logits, got nan at \[0, 2, 3\]", None),
    "mask": ("mask_logits", (1, 0, 7), INF, r"finite mask_logits, got inf at \[1, 0, 7\]", None),
}


@each_device
@pytest.mark.parametrize("op", [match_cost, hungarian_match])
@pytest.mark.parametrize("fault", FAULTS)
def test_checking_names_op_expectation_and_place(op, fault, device):
    name, place, value, message, infinite = FAULTS[fault]
    sound, bad = data(device), data(device)
    bad[name][place] = value
    with pydistill.checking(True):
        op(**sound, preset="hf_rf_detr")
        with pytest.raises(ValueError, match=f"{op.__name__}: expected {message}"):
            op(**bad, preset="hf_rf_detr")
    op(**bad, preset="hf_rf_detr")
    cost, usual = (match_cost(**tensors, preset="hf_rf_detr") for tensors in (bad, sound))
    if infinite is not None:
        assert (cost[infinite] == INF).all()
        usual[infinite] = INF
        assert torch.equal(cost, usual)


def test_without_checking_a_count_is_clamped():
    bad = data()
    bad["counts"] = torch.tensor([9, -2])
    cost = match_cost(**bad, preset="hf_rf_detr")
    assert cost[0].isfinite().all() and (cost[1] == INF).all()
    assert (hungarian_match(**bad, preset="hf_rf_detr").query_of_target >= 0).tolist() == [
        [[True, True]],
        [[False] * 2],
    ]


@pytest.mark.parametrize("box_format", ["cxcywh", "xyxy"])
def test_boxes_are_checked_in_their_format(box_format):
    """The corners 0.3, 0.3, 0.2, 0.2 are inverted; a centre with these sides is sound."""
    sound = data()
    sound["boxes"][:] = torch.tensor([0.3, 0.3, 0.2, 0.2])
    sound["target_boxes"][:] = torch.tensor([0.3, 0.3, 0.4, 0.4])
    with pydistill.checking(True):
        if box_format == "cxcywh":
            match_cost(**sound, preset="hf_rf_detr")
        else:
            with pytest.raises(ValueError, match=r"not inverted, got \[0.3.* at \[0, 0\]"):
                match_cost(**sound, preset="hf_rf_detr", box_format="xyxy")


def test_what_lies_beyond_the_counts_is_not_checked():
    """Neither in the padding of each image nor where each layer has counts of its own."""
    tensors = data()
    tensors["target_labels"][1, 1], tensors["target_boxes"][1, 1], tensors["target_masks"][1, 1] = -7, NAN, NAN
    per_layer = {k: tensors[k].expand(2, *tensors[k].shape) for k in ("logits", "boxes", "mask_logits", "counts")}
    with pydistill.checking(True):
        match_cost(**tensors, preset="hf_rf_detr")
        match_cost(**{**tensors, **per_layer}, preset="hf_rf_detr")
        per_layer["counts"] = torch.tensor([[2, 1], [2, 2]])
        with pytest.raises(ValueError, match=r"labels in \[0, 4\), got -7 at \[1, 1, 1\]"):
            match_cost(**{**tensors, **per_layer}, preset="hf_rf_detr")


@each_device
@pytest.mark.parametrize("name, size", [("rows", 4), ("columns", 3)])
def test_rows_and_columns_of_an_assignment(name, size, device):
    cost = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)).to(device)
    counts = torch.tensor([2, size + 1], device=device)
    with pydistill.checking(True):
        linear_sum_assignment(cost, **{name: counts.clamp_max(size)})
        with pytest.raises(
            ValueError, match=rf"linear_sum_assignment: expected {name} in \[0, {size}\], got {size + 1} at \[1\]"
        ):
            linear_sum_assignment(cost, **{name: counts})
    clamped = linear_sum_assignment(cost, **{name: counts.clamp_max(size)})
    assert all(torch.equal(a, b) for a, b in zip(linear_sum_assignment(cost, **{name: counts}), clamped))
