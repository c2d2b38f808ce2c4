"""An argument of another type: each op says its own name, the argument's, what it expects and what it got."""

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor

from pydistill import losses, ops
from pydistill.ops import BEVGrid, MatchProblem


def corners(*leading):
    low = torch.rand(*leading, 2)
    return torch.cat([low, low + 1], -1)


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.int64)


GRID = BEVGrid(0.0, 0.0, 1.0, 1.0, 8, 8)
ONE = torch.tensor([1])
FLAGS = torch.ones(1, 3, dtype=torch.bool)
ANCHORS, BOXES = corners(4), corners(1, 2)
LEVELS = dict(strides=[8.0], level_sizes=[4], regress_ranges=[(0.0, 9.0)])
MAPS = dict(student=torch.rand(1, 2, 8, 8), teacher=torch.rand(1, 2, 8, 8))
POINTS = dict(keypoints=torch.rand(1, 3, 5, 2), valid=FLAGS)
QUERIES = dict(logits=torch.rand(1, 5, 7), boxes=corners(1, 5), target_labels=zeros(1, 2), target_boxes=BOXES)
IMAGES = dict(anchors=ANCHORS, boxes=BOXES, counts=ONE)
PAIRS = dict(boxes1=ANCHORS, boxes2=ANCHORS)
MATCH = zeros(1, 5)

# One call of each op, right as it stands.
CALLS = {
    "assign_atss": dict(IMAGES, level_sizes=[4]),
    "assign_max_iou": IMAGES,
    "assign_points": dict(LEVELS, points=torch.rand(4, 2), boxes=BOXES, counts=ONE),
    "attention_distillation_loss": dict(shallow=MAPS["student"], deep=MAPS["teacher"]),
    "attention_map": dict(features=MAPS["student"]),
    "box_iou": PAIRS,
    "box_keypoints": dict(boxes=torch.rand(1, 3, 7), grid=GRID),
    "box_to_distance": dict(points=torch.rand(4, 2), boxes=ANCHORS),
    "channel_energy": dict(features=MAPS["student"]),
    "ciou_loss": dict(prediction=ANCHORS, target=ANCHORS),
    "complete_box_iou": PAIRS,
    "diou_loss": dict(prediction=ANCHORS, target=ANCHORS),
    "distance_box_iou": PAIRS,
    "distance_to_box": dict(points=torch.rand(4, 2), distances=torch.rand(4, 4)),
    "distribution_focal_loss": dict(logits=torch.rand(3, 5), target=torch.rand(3)),
    "energy_distillation_loss": dict(shallow=torch.rand(1, 4, 4), deep=torch.rand(1, 4, 4)),
    "fine_grained_region": IMAGES,
    "gaussian_region": dict(boxes=torch.rand(1, 3, 7), valid=FLAGS, grid=GRID, labels=zeros(1, 3), num_classes=2),
    "general_instance_region": dict(
        student_scores=torch.rand(1, 4, 3),
        teacher_scores=torch.rand(1, 4, 3),
        student_boxes=corners(1, 4),
        teacher_boxes=corners(1, 4),
        level_sizes=[4],
    ),
    "generalized_box_iou": PAIRS,
    "giou_loss": dict(prediction=ANCHORS, target=ANCHORS),
    "hungarian_match": QUERIES,
    "hungarian_match_all": dict(problems=[MatchProblem(**QUERIES)]),
    "info_nce_loss": dict(student=torch.rand(3, 5), teacher=torch.rand(3, 5)),
    "inside_region": dict(points=torch.rand(4, 2), boxes=BOXES, counts=ONE),
    "integral": dict(logits=torch.rand(3, 5)),
    "keypoint_feature_loss": MAPS | POINTS,
    "keypoint_relation_loss": MAPS | POINTS,
    "linear_sum_assignment": dict(cost=torch.rand(1, 3, 4)),
    "masked_feature_loss": dict(MAPS, mask=torch.rand(1, 8, 8)),
    "match_cost": QUERIES,
    "matched_box_loss": dict(boxes=corners(1, 5), target_boxes=BOXES, target_of_query=MATCH),
    "matched_class_loss": dict(logits=torch.rand(1, 5, 7), targets=zeros(1, 2), target_of_query=MATCH),
    "matched_distillation_loss": dict(
        student_logits=torch.rand(1, 5, 7),
        student_boxes=corners(1, 5),
        teacher_logits=torch.rand(1, 5, 7),
        teacher_boxes=corners(1, 5),
        target_of_query=MATCH,
    ),
    "matched_labels": dict(target_labels=zeros(1, 2), target_of_query=MATCH, background=7),
    "pack_targets": dict(targets=[ANCHORS]),
    "pairwise_iou": dict(a=ANCHORS, b=ANCHORS),
    "quality_focal_loss": dict(logits=torch.rand(3, 5), labels=zeros(3), scores=torch.rand(3)),
    "query_feature_mask": dict(
        queries=torch.rand(1, 5, 2), quality=torch.rand(1, 5), features=[torch.rand(1, 2, 8, 8)]
    ),
    "query_quality": dict(scores=torch.rand(1, 5, 7), boxes=torch.rand(1, 5, 4), target_boxes=BOXES),
    "response_loss": dict(
        student_heatmaps=torch.rand(1, 2, 8, 8),
        teacher_heatmaps=torch.rand(1, 2, 8, 8),
        student_regressions=[torch.rand(1, 3, 8, 8)],
        teacher_regressions=[torch.rand(1, 3, 8, 8)],
        region=torch.rand(1, 8, 8),
    ),
    "sigmoid_focal_loss": dict(logits=torch.rand(3, 5), targets=zeros(3)),
    "soft_iou_loss": dict(logits=torch.rand(1, 3, 8, 8), labels=zeros(1, 8, 8)),
    "softmax_kl": dict(student=torch.rand(3, 5), teacher=torch.rand(3, 5)),
    "valuable_localization_region": dict(IMAGES, threshold=0.5),
}
# What these arguments need beside them.
BESIDE = {"avg_factor": dict(reduction="mean"), "margin": dict(max_distance=4.0)}


def arguments(*annotations):
    return [
        (op, name)
        for op in CALLS
        for name, p in inspect.signature(getattr(ops, op)).parameters.items()
        if p.annotation in annotations
    ]


def refused(op, name, value, message):
    owner = f"({op}|match_cost)" if op == "hungarian_match" else op  # whose options these are
    with pytest.raises(TypeError, match=f"^{owner}: expected {message}"):
        getattr(ops, op)(**(CALLS[op] | BESIDE.get(name, {}) | {name: value}))


def test_each_op_is_here():
    assert set(CALLS) == {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}


@pytest.mark.parametrize("op", CALLS)
def test_the_calls_are_right(op):
    getattr(ops, op)(**CALLS[op])


@pytest.mark.parametrize(("op", "name"), arguments(Tensor, Tensor | None))
def test_a_list_is_no_tensor(op, name):
    refused(op, name, [torch.rand(2)], f"{name} a tensor, got list")


@pytest.mark.parametrize(("op", "name"), arguments(Tensor))
def test_none_and_an_array_are_no_tensors(op, name):
    refused(op, name, None, f"{name} a tensor, got None$")
    refused(op, name, np.ones((2, 4)), f"{name} a tensor, got ndarray$")


@pytest.mark.parametrize(("op", "name"), arguments(Tensor | None))
def test_a_number_is_no_tensor(op, name):
    refused(op, name, 0.5, f"{name} a tensor, got float$")


@pytest.mark.parametrize(("op", "name"), arguments(float, int, float | None, int | None))
def test_a_tensor_is_no_number(op, name):
    """The host would have to wait for its value, and a parameter would never learn."""
    if (op, name) == ("matched_labels", "background"):
        refused(op, name, torch.tensor(7), "background to be an integer, got Tensor")
    else:
        refused(op, name, torch.nn.Parameter(torch.tensor(1.0)), f"{name} a number, got a tensor$")


@pytest.mark.parametrize(("op", "name"), arguments(float | Tensor | None, Tensor | float | None, Tensor | float))
def test_a_list_is_no_number_or_tensor(op, name):
    refused(op, name, [1.0], f"{name} a number, got list$")


@pytest.mark.parametrize("op", [op for op, name in arguments(float | Tensor | None) if name == "avg_factor"])
def test_avg_factor_has_one_element(op):
    with pytest.raises(ValueError, match=rf"^{op}: expected avg_factor of one element, got \[2\]"):
        getattr(ops, op)(**CALLS[op], reduction="mean", avg_factor=torch.ones(2))


@pytest.mark.parametrize("name", ["boxes", "counts"])
def test_padded_targets_say_who_pads(name):
    refused("assign_atss", name, [torch.rand(2, 4)], rf"{name} a tensor, got list \(ops.pack_targets pads lists\)$")


@pytest.mark.parametrize("name", ["target_labels", "target_boxes"])
def test_targets_of_a_match_say_who_pads(name):
    refused("hungarian_match", name, [torch.rand(2, 4)], rf"{name} a tensor, got list \(ops.pack_targets pads lists\)$")


@pytest.mark.parametrize("op", ["assign_atss", "assign_points", "general_instance_region"])
def test_level_sizes(op):
    with pytest.raises(ValueError, match=f"^{op}: expected level_sizes that add up to 4, the number of anchors, got 6"):
        getattr(ops, op)(**CALLS[op] | dict(level_sizes=[3, 3]))
    for sizes, got in ((4, "int"), (torch.tensor([4]), "a tensor"), (None, "None")):
        refused(op, "level_sizes", sizes, f"level_sizes a sequence of integers, got {got}$")


@pytest.mark.parametrize("name", ["strides", "regress_ranges"])
def test_a_tensor_is_no_sequence_of_numbers(name):
    refused("assign_points", name, torch.rand(1, 2), f"{name} a sequence of numbers, got a tensor$")


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("query_feature_mask", "features"),
        ("response_loss", "student_heatmaps"),
        ("response_loss", "teacher_regressions"),
    ],
)
def test_lists_of_tensors(op, name):
    refused(op, name, None, f"{name} a sequence of tensors, got None$")
    refused(op, name, [np.ones((1, 2, 8, 8))], rf"{name}\[0\] a tensor, got ndarray$")


def test_match_weights_and_targets_to_pack():
    refused("match_cost", "weights", {"l1": torch.tensor(1.0)}, r"weights\['l1'\] a number, got a tensor$")
    refused("pack_targets", "targets", None, "a sequence of tensors, got NoneType$")


@pytest.mark.parametrize("number", [1, np.float32(1), np.float64(1), True])
def test_numbers_of_other_kinds(number):
    ops.softmax_kl(**CALLS["softmax_kl"], temperature=number)


def test_grid():
    with pytest.raises(TypeError, match="^BEVGrid: expected cell_x a number, got a tensor"):
        BEVGrid(0.0, 0.0, torch.tensor(1.0), 1.0, 8, 8)
    with pytest.raises(TypeError, match=r"^BEVGrid.cells: expected metres a tensor, got list"):
        GRID.cells([0.0, 1.0])


@pytest.mark.parametrize(
    ("loss", "name", "arguments"),
    [("SADLoss", "temperature", ()), ("SADLoss", "power", ()), ("UniDistillLoss", "teacher_temperature", (GRID,))],
)
def test_losses_refuse_them_when_they_are_made(loss, name, arguments):
    with pytest.raises(TypeError, match=f"^{loss}: expected {name} a number, got a tensor$"):
        getattr(losses, loss)(*arguments, **{name: torch.nn.Parameter(torch.tensor(1.0))})
