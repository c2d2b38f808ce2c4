"""hungarian_match against transformers and a loop over SciPy, and linear_sum_assignment against SciPy alone."""

from importlib.util import find_spec

import pytest
import torch
from scipy.optimize import linear_sum_assignment as scipy_assignment
from torch.nn import functional

from pydistill.ops import hungarian_match, linear_sum_assignment, match_cost
from pydistill.ops.match_cost import match_cost_reference


def predictions(images, queries, targets, classes=91):
    """Random queries, of which one for each target is near it."""
    rng = torch.Generator().manual_seed(0)
    boxes, target_boxes = (
        torch.tensor([0.2, 0.2, 0.1, 0.1])
        + torch.tensor([0.6, 0.6, 0.2, 0.2]) * torch.rand(images, n, 4, generator=rng)
        for n in (queries, targets)
    )
    boxes[:, :targets] = (target_boxes + 0.02 * torch.randn(target_boxes.shape, generator=rng)).clamp_min(0.01)
    labels = torch.randint(0, classes, (images, targets), generator=rng)
    return torch.randn(images, queries, classes, generator=rng), boxes, labels, target_boxes


def loop(logits, boxes, labels, target_boxes, preset):
    """What the quicker of the public matchers do: torch costs of one image after the other, SciPy on each."""
    return [
        scipy_assignment(costs_of_one(*tensors, preset).cpu().numpy())
        for tensors in zip(logits, boxes, labels, target_boxes)
    ]


def costs_of_one(logits, boxes, labels, target_boxes, preset):
    if preset == "detr":
        classes = -logits.softmax(-1)[:, labels]
    else:
        p = logits.sigmoid()[:, labels]
        classes = 2 * (0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log())
    return classes + 5 * torch.cdist(boxes, target_boxes, p=1) - 2 * giou(corners(boxes), corners(target_boxes))


def corners(b):
    return torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1)


def giou(a, b):
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    both = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[:, None, 2:], b[:, 2:]) - torch.minimum(a[:, None, :2], b[:, :2])).prod(-1)
    either = areas[0][:, None] + areas[1] - both
    return both / either - (hull - either) / hull


def transformers_matcher(logits, boxes, labels, target_boxes, preset):
    """The peer transformers on the same predictions, or nothing where it is not installed."""
    if not find_spec("transformers"):
        return {}
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    weights = dict(bbox_cost=5.0, giou_cost=2.0)
    if preset == "detr":
        matcher = HungarianMatcher(class_cost=1.0, **weights)
    else:
        matcher = DeformableDetrHungarianMatcher(class_cost=2.0, **weights)
    outputs = {"logits": logits, "pred_boxes": boxes}
    targets = [{"class_labels": c, "boxes": b} for c, b in zip(labels, target_boxes)]
    ours = hungarian_match(logits, boxes, labels, target_boxes, preset=preset).target_of_query
    for row, (queries, matched) in zip(ours, matcher(outputs, targets)):
        assert torch.equal(row[queries].cpu(), matched.cpu()) and (row >= 0).sum() == len(matched)
    return {"transformers": lambda: matcher(outputs, targets)}


@pytest.mark.parametrize("preset", ["detr", "deformable_detr"])
@pytest.mark.parametrize("queries, targets", [(300, 20), (900, 100)])
def test_hungarian_match(compare, device, queries, targets, preset):
    tensors = [t.to(device) for t in predictions(8, queries, targets)]
    cost = match_cost(*tensors, preset=preset)
    torch.testing.assert_close(cost, match_cost_reference(*[t.cpu() for t in tensors], preset=preset).to(device))
    matrices = cost.cpu().numpy()
    compare(
        ours=lambda: hungarian_match(*tensors, preset=preset),
        loop=lambda: loop(*tensors, preset),
        **transformers_matcher(*tensors, preset),
        scipy=lambda: [scipy_assignment(m) for m in matrices],
        floor=lambda: cost.add(1.0),
        bytes_moved=sum(t.numel() * t.element_size() for t in tensors) + 2 * 4 * cost.numel(),
    )


def mask_costs_of_one(logits, labels, masks, targets):
    """The terms as mmdet and transformers write them: two products for the cross entropy, one for Dice."""
    pos, neg = (
        functional.binary_cross_entropy_with_logits(masks, torch.full_like(masks, y), reduction="none")
        for y in (1.0, 0.0)
    )
    p = masks.sigmoid()
    dice = 1 - (2 * p @ targets.T + 1) / (p.sum(1, keepdim=True) + targets.sum(1) + 1)
    entropy = (pos @ targets.T + neg @ (1 - targets).T) / masks.shape[1]
    return -2 * logits.softmax(-1)[:, labels] + 5 * entropy + 5 * dice


@pytest.mark.parametrize("images, queries, targets, points", [(2, 100, 20, 12544)])
def test_match_cost_of_masks(compare, device, images, queries, targets, points):
    logits, _, labels, _ = (t.to(device) for t in predictions(images, queries, targets))
    rng = torch.Generator().manual_seed(1)
    masks = torch.randn(images, queries, points, generator=rng).to(device)
    target_masks = torch.rand(images, targets, points, generator=rng).round().to(device)

    def ours():
        return match_cost(
            logits, None, labels, None, preset="mmdet_mask2former", mask_logits=masks, target_masks=target_masks
        )

    def loop():
        return torch.stack([mask_costs_of_one(*one) for one in zip(logits, labels, masks, target_masks)])

    torch.testing.assert_close(ours(), loop(), rtol=1e-5, atol=1e-5)
    compare(ours=ours, loop=loop, floor=lambda: masks.add(1.0), bytes_moved=4 * (masks.numel() + target_masks.numel()))


def random_costs(problems, rows, columns):
    return torch.rand(problems, rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (900, 100), (300, 300), (900, 900)], ids=str)
def test_linear_sum_assignment(compare, device, shape):
    cost = random_costs(1, *shape)
    matrix, there = cost[0].numpy(), cost.to(device)
    compare(
        ours=lambda: linear_sum_assignment(there),
        scipy=lambda: scipy_assignment(matrix),
        bytes_moved=4 * cost.numel(),
        iterations=max(1, 500_000 // cost.numel()),
        rounds=5 if cost.numel() > 500_000 else 15,
    )


@pytest.mark.parametrize("shape", [(300, 100), (300, 300), (300, 600)], ids=str)
def test_assignment_of_208(compare, device, shape):
    """The shapes that torch-linear-assignment publishes its times for; that package where it is installed."""
    cost = random_costs(208, *shape)
    matrices, there = cost.numpy(), cost.to(device)
    if device == "cpu" and shape != (300, 100):
        pytest.skip("0.7 s a round and more on a CPU, and the other shapes say as much of it")
    compare(
        ours=lambda: linear_sum_assignment(there),
        **batch_linear_assignment(there),
        scipy=lambda: [scipy_assignment(m) for m in matrices],
        bytes_moved=4 * cost.numel(),
        rounds=5,
    )


def batch_linear_assignment(cost):
    """The peer torch-linear-assignment on the same matrices, or nothing where it is not installed."""
    if not find_spec("torch_linear_assignment"):
        return {}
    from torch_linear_assignment import batch_linear_assignment as assign

    assert torch.equal(assign(cost).cpu(), linear_sum_assignment(cost).column_of_row.cpu())
    return {"torch_linear_assignment": lambda: assign(cost)}


@pytest.mark.parametrize("shape", [(300, 20), (300, 100)], ids=str)
def test_assignment_of_96_on_two_threads(compare, device, shape):
    cost = random_costs(96, *shape)
    matrices, there = cost.numpy(), cost.to(device)
    torch.set_num_threads(2)
    compare(
        ours=lambda: linear_sum_assignment(there),
        scipy=lambda: [scipy_assignment(m) for m in matrices],
        bytes_moved=4 * cost.numel(),
    )
