"""Matchers for transformers' detectors return what transformers' own do, index for index."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from pydistill.hosts import transformers as ours
from tests.hosts.detections import objects, predictions, same_pairs

pytest.importorskip("transformers", reason="needs pip install transformers")
loss_for_object_detection = importlib.import_module("transformers.loss.loss_for_object_detection")
loss_deformable_detr = importlib.import_module("transformers.loss.loss_deformable_detr")
loss_grounding_dino = importlib.import_module("transformers.loss.loss_grounding_dino")
loss_lw_detr = importlib.import_module("transformers.loss.loss_lw_detr")
loss_rt_detr = importlib.import_module("transformers.loss.loss_rt_detr")

CONFIG = SimpleNamespace(
    matcher_class_cost=2.0, matcher_bbox_cost=5.0, matcher_giou_cost=2.0, use_focal_loss=True,
    matcher_alpha=0.3, matcher_gamma=1.5,
)  # fmt: skip
SOFTMAX = SimpleNamespace(**{**vars(CONFIG), "use_focal_loss": False})
MATCHERS = {
    "detr": (loss_for_object_detection.HungarianMatcher, ours.HungarianMatcher, (1, 5, 2)),
    "deformable": (
        loss_deformable_detr.DeformableDetrHungarianMatcher,
        ours.DeformableDetrHungarianMatcher,
        (2, 5, 2),
    ),
    "class_only": (loss_for_object_detection.HungarianMatcher, ours.HungarianMatcher, (1, 0, 0)),
    "rt_detr": (loss_rt_detr.RTDetrHungarianMatcher, ours.RTDetrHungarianMatcher, (CONFIG,)),
    "rt_detr_softmax": (loss_rt_detr.RTDetrHungarianMatcher, ours.RTDetrHungarianMatcher, (SOFTMAX,)),
}
SCENES = [((3, 0, 7, 1), 30), ((20,) * 4, 60), ((9, 12), 8), ((0, 0), 5)]  # objects of each image, queries


def _both(name):
    theirs, own, arguments = MATCHERS[name]
    return theirs(*arguments), own(*arguments)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("counts, queries", SCENES)
@pytest.mark.parametrize("name", MATCHERS)
def test_same_pairs(name, counts, queries, trained):
    theirs, own = _both(name)
    for seed in range(3):
        targets = objects(counts, 11, seed)
        logits, boxes = predictions(targets, queries, 11, seed=seed, trained=trained)
        outputs = {"logits": logits.requires_grad_(), "pred_boxes": boxes}
        assert same_pairs(own(outputs, targets), theirs(outputs, targets))


@pytest.mark.parametrize("groups", [1, 3, 4])  # 4 does not divide the queries
def test_groups(groups):
    theirs = loss_lw_detr.LwDetrHungarianMatcher(2, 5, 2)
    own = ours.LwDetrHungarianMatcher(2, 5, 2)
    targets = objects((3, 0, 7), 11)
    logits, boxes = predictions(targets, 27, 11)
    outputs = {"logits": logits, "pred_boxes": boxes}
    assert same_pairs(own(outputs, targets, groups), theirs(outputs, targets, group_detr=groups))


def test_tokens_of_classes():
    theirs = loss_grounding_dino.GroundingDinoHungarianMatcher(2, 5, 2)
    own = ours.GroundingDinoHungarianMatcher(2, 5, 2)
    targets = objects((3, 0, 5), 4)
    logits, boxes = predictions(targets, 20, 16)
    maps = [torch.eye(4).repeat_interleave(k, 1) for k in (2, 3, 4)]
    maps = [torch.nn.functional.pad(m, (1, 15 - m.shape[1])) for m in maps]
    outputs = {"logits": logits, "pred_boxes": boxes, "label_maps": maps}
    assert same_pairs(own(outputs, targets), theirs(outputs, targets))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["detr", "deformable", "rt_detr"])
def test_logits_that_are_not_finite(name, value):
    """Their rule by default. With "forbid" such queries are left out, and the rest is matched best."""
    theirs, own = _both(name)
    targets = objects((3, 5), 6)
    logits, boxes = predictions(targets, 9, 6)
    logits[0, 1::3] = value
    outputs = {"logits": logits, "pred_boxes": boxes}
    assert same_pairs(own(outputs, targets), theirs(outputs, targets))
    if value != value:
        logits[0, 1:] = value
        own.nonfinite = "forbid"
        queries, _ = own(outputs, targets)[0]
        assert queries.tolist() == [0]


def test_in_their_criterion():
    """The matcher is an argument of their criterion: the loss and every term are the same."""
    targets = objects((3, 0, 7), 11)
    logits, boxes = predictions(targets, 30, 11, trained=True)
    outputs = {"logits": logits, "pred_boxes": boxes}
    outputs["auxiliary_outputs"] = [dict(zip(outputs, predictions(targets, 30, 11, seed=5)))]
    theirs, own = _both("deformable")
    terms = ["labels", "boxes", "cardinality"]
    losses = [loss_deformable_detr.DeformableDetrImageLoss(m, 11, 0.25, terms)(outputs, targets) for m in (theirs, own)]
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_half_precision():
    """Theirs has no L1 distance of half-precision CPU tensors."""
    targets = objects((3, 5), 6)
    logits, boxes = predictions(targets, 20, 6)
    half = {"logits": logits.bfloat16(), "pred_boxes": boxes.bfloat16()}
    wide = {name: t.float() for name, t in half.items()}
    own = ours.DeformableDetrHungarianMatcher(2, 5, 2)
    assert same_pairs(own(half, targets), own(wide, targets))


@pytest.mark.parametrize("name", ["HungarianMatcher", "DeformableDetrHungarianMatcher"])
def test_wrong_weights(name):
    with pytest.raises(ValueError, match=f"{name}: expected a weight that is not 0"):
        getattr(ours, name)(0, 0, 0)
