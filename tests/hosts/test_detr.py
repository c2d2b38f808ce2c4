"""The matcher for facebookresearch's criterion: its published matches, and a criterion that keeps its contract."""

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn

from pydistill.hosts.detr import HungarianMatcher
from pydistill.ops import generalized_box_iou
from tests.hosts.detections import objects, predictions, same_pairs
from tests.ops.test_match_cost import arrays

WEIGHTS = {"softmax": (1, 5, 2), "focal": (2, 5, 2)}


@pytest.mark.parametrize("dtype, kind", [(torch.float32, "f32"), (torch.float64, "f64")])
@pytest.mark.parametrize("class_cost, name, classes", [("softmax", "detr", 21), ("focal", "ddetr", 20)])
def test_golden_matches(class_cost, name, classes, dtype, kind):
    """The indices that DETR's and Deformable DETR's own matchers returned."""
    z, want = arrays("detr_inputs", dtype), arrays("detr_cost_fb")
    outputs = {"pred_logits": z["logits"][..., :classes], "pred_boxes": z["pred_boxes"]}
    targets = [{"labels": z[f"gt_labels_{b}"], "boxes": z[f"gt_boxes_{b}"]} for b in range(3)]
    got = HungarianMatcher(*WEIGHTS[class_cost], class_cost=class_cost)(outputs, targets)
    assert same_pairs(got, [(want[f"{name}_{kind}_src_{b}"], want[f"{name}_{kind}_tgt_{b}"]) for b in range(3)])


class PlainMatcher(nn.Module):
    """One image after the other, with SciPy."""

    def forward(self, outputs, targets):
        pairs = []
        for logits, boxes, target in zip(outputs["pred_logits"], outputs["pred_boxes"], targets):
            cost = -logits.softmax(-1)[:, target["labels"]] + 5 * torch.cdist(boxes, target["boxes"], p=1)
            cost = cost - 2 * generalized_box_iou(corners(boxes), corners(target["boxes"]))
            pairs.append(tuple(map(torch.as_tensor, linear_sum_assignment(cost.detach().numpy()))))
        return pairs


def corners(b):
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


class Criterion(nn.Module):
    """What the code's ``SetCriterion`` asks of its matcher: one call a decoder stage, and pairs that index tensors."""

    def __init__(self, classes, matcher):
        super().__init__()
        self.classes, self.matcher = classes, matcher

    def forward(self, outputs, targets):
        losses = {}
        last = {name: t for name, t in outputs.items() if name != "aux_outputs"}
        for i, stage in enumerate([last, *outputs["aux_outputs"]]):
            pairs = self.matcher(stage, targets)
            image = torch.cat([torch.full_like(q, b) for b, (q, _) in enumerate(pairs)])
            query = torch.cat([q for q, _ in pairs])
            wanted = torch.full(stage["pred_logits"].shape[:2], self.classes)
            wanted[image, query] = torch.cat([t["labels"][k] for t, (_, k) in zip(targets, pairs)])
            boxes = torch.cat([t["boxes"][k] for t, (_, k) in zip(targets, pairs)])
            losses[f"loss_ce_{i}"] = F.cross_entropy(stage["pred_logits"].transpose(1, 2), wanted)
            losses[f"loss_bbox_{i}"] = F.l1_loss(stage["pred_boxes"][image, query], boxes, reduction="sum")
        return losses


def test_in_a_criterion():
    """Losses and gradients are those with SciPy's matches."""
    targets = objects((4, 0, 9), 10, key="labels")
    got = []
    for matcher in (HungarianMatcher(*WEIGHTS["softmax"]), PlainMatcher()):
        stages = [dict(zip(("pred_logits", "pred_boxes"), predictions(targets, 25, 11, seed=s))) for s in range(3)]
        leaves = [t.requires_grad_() for stage in stages for t in stage.values()]
        losses = Criterion(10, matcher)({**stages[0], "aux_outputs": stages[1:]}, targets)
        got.append((losses, torch.autograd.grad(sum(losses.values()), leaves)))
    assert all(torch.equal(got[0][0][name], loss) for name, loss in got[1][0].items())
    assert all(map(torch.equal, got[0][1], got[1][1]))


def test_costs_that_are_not_finite():
    """SciPy's rule by default, else ``nonfinite``'s."""
    targets = objects((4, 2), 5, key="labels")
    logits, boxes = predictions(targets, 6, 5)
    logits[0] = torch.nan
    outputs = {"pred_logits": logits, "pred_boxes": boxes}
    with pytest.raises(ValueError, match="matrix contains invalid numeric entries"):
        HungarianMatcher()(outputs, targets)
    first, second = HungarianMatcher(nonfinite="forbid")(outputs, targets)
    assert first[0].numel() == 0 and second[0].numel() == 2


def test_wrong_options():
    with pytest.raises(ValueError, match="HungarianMatcher: expected a weight that is not 0"):
        HungarianMatcher(0, 0, 0)
    with pytest.raises(ValueError, match="HungarianMatcher: expected class_cost to be softmax or focal, got bce"):
        HungarianMatcher(class_cost="bce")
