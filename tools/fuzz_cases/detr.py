"""Valid calls of what detectors with queries need: matching, losses of matched pairs, queries."""

import torch

import pydistill.ops
from fuzz_cases.values import DTYPES, Arguments, Cases, Random, logits, real


def _match_cost(rng: Random) -> Arguments:
    class_cost = rng.choice(["focal", "softmax", "binary_focal", "soft_bce", "none"])
    masks = rng.random() < 0.5
    points = masks and rng.random() < 0.5
    where = (4, 3) if points else (6,)
    return {
        "logits": torch.randn(2, 7, 5),
        "boxes": torch.rand(2, 7, 4),
        "target_labels": torch.randint(5, (2, 3)),
        "target_boxes": torch.rand(2, 3, 4),
        "counts": torch.tensor([3, 1]),
        "class_cost": class_cost,
        "target_scores": torch.rand(2, 3, 5) if class_cost in ("binary_focal", "soft_bce") else None,
        "mask_logits": torch.randn(2, 7, *where) if masks else None,
        "target_masks": torch.rand(2, 3, *where) if masks else None,
        "points": torch.rand(2, 6, 2) if points else None,
        "weights": {"mask": 5.0, "dice": 5.0} if masks else None,
        "mask_cost": rng.choice(["bce", "focal"]),
        "dice_eps": 1.0,
        "dice_squared": rng.random() < 0.5,
    }


def _linear_sum_assignment(rng: Random) -> Arguments:
    return {
        "cost": torch.randn(4, 5, 3).to(rng.choice(DTYPES[:6])),
        "rows": rng.choice([None, torch.tensor([5, 4, 0, 1])]),
        "columns": rng.choice([None, torch.tensor([3, 0, 2, 1])]),
        "maximize": rng.random() < 0.5,
        "nonfinite": rng.choice(["forbid", "raise", "clamp", "finfo_max"]),
    }


def _hungarian_match(rng: Random) -> Arguments:
    return {**_match_cost(rng), "groups": 1, "nonfinite": "forbid"}


def _hungarian_match_all(rng: Random) -> Arguments:
    return {"problems": [pydistill.ops.MatchProblem(**_hungarian_match(rng)) for _ in range(rng.randrange(4))]}


def _query_quality(rng: Random) -> Arguments:
    return {
        "scores": torch.randn(3, 2, 7, 5),
        "boxes": torch.rand(3, 2, 7, 4),
        "target_boxes": torch.rand(2, 3, 4),
        "counts": rng.choice([None, torch.tensor([3, 1])]),
        "gamma": rng.choice([0.0, 0.5, 1.0]),
        "topk": rng.choice([1, 7, 100]),
        "form": rng.choice(["paper", "released"]),
        "activated": rng.random() < 0.5,
        "image_sizes": rng.choice([None, torch.tensor([[480, 640], [200, 300]])]),
    }


def _query_feature_mask(rng: Random) -> Arguments:
    return {
        "queries": torch.randn(3, 2, 7, 5),
        "quality": torch.rand(3, 2, 7),
        "features": [torch.randn(2, 5, 4, 6), torch.randn(2, 5, 2, 3)],
        "index": rng.choice([None, torch.randint(7, (3, 2, 7))]),
        "floor": 1e-2,
        "normalize": rng.choice(["max", "none"]),
    }


def _pairs(rng: Random) -> Arguments:
    """What the losses of matched pairs share: 3 stages, 2 images, 7 queries, 4 targets."""
    return {
        "target_of_query": torch.randint(-1, 5, (3, 2, 7)),
        "weight": rng.choice([None, torch.rand(3, 2, 7), torch.rand(7)]),
        "reduction": rng.choice(["stages", "none"]),
    }


def _matched_box_options(rng: Random) -> Arguments:
    return {
        "image_sizes": rng.choice([None, torch.tensor([[480, 640], [200, 300]])]),
        "clamp_targets": rng.random() < 0.5,
        "giou_eps": rng.choice([0.0, 1e-6]),
        "box_format": rng.choice(["cxcywh", "xyxy"]),
    }


def _matched_box_loss(rng: Random) -> Arguments:
    l1_format = rng.choice([None, "cxcywh", "xyxy"])
    targets = rng.choice([torch.rand(2, 4, 4), torch.rand(3, 2, 4, 4)])
    options = {**_pairs(rng), **_matched_box_options(rng), "l1_format": l1_format}
    return {"boxes": real(3, 2, 7, 4), "target_boxes": targets, **options}


def _matched_class_loss(rng: Random) -> Arguments:
    soft, lead = rng.random() < 0.5, rng.choice([(2, 4), (3, 2, 4)])
    targets = torch.randn(*lead, 5) if soft else torch.randint(5, lead)
    options = {"form": "soft_bce" if soft else "focal", "alpha": 0.25, "gamma": rng.choice([1.0, 2.0])}
    return {"logits": logits(rng, 3, 2, 7, 5), "targets": targets, **_pairs(rng), **options}


def _matched_distillation_loss(rng: Random) -> Arguments:
    return {
        "student_logits": real(3, 2, 7, 5),
        "student_boxes": real(3, 2, 7, 4),
        "teacher_logits": torch.randn(3, 2, 4, 5),
        "teacher_boxes": torch.rand(3, 2, 4, 4),
        "target_of_query": torch.randint(-1, 5, (3, 2, 7)),
        "pairs": rng.choice(["all", "positives", "negatives", "pos_neg"]),
        "positive": torch.rand(3, 2, 4) < 0.5,
        "normalizer": rng.choice([None, 3.0, torch.rand(3)]),
        **_matched_box_options(rng),
    }


def _matched_labels(rng: Random) -> Arguments:
    labels = rng.choice([torch.randint(5, (2, 4)), torch.randint(5, (3, 2, 4))])
    return {"target_labels": labels, "target_of_query": torch.randint(-1, 5, (3, 2, 7)), "background": 5}


def _info_nce_loss(rng: Random) -> Arguments:
    return {
        "student": real(6, 5),
        "teacher": real(6, 5),
        "temperature": 0.07,
        "detach_target": rng.random() < 0.5,
        "valid": rng.choice([None, torch.rand(6) < 0.5]),
    }


VALID: Cases = {
    "match_cost": _match_cost,
    "linear_sum_assignment": _linear_sum_assignment,
    "hungarian_match": _hungarian_match,
    "hungarian_match_all": _hungarian_match_all,
    "matched_box_loss": _matched_box_loss,
    "matched_class_loss": _matched_class_loss,
    "matched_distillation_loss": _matched_distillation_loss,
    "matched_labels": _matched_labels,
    "info_nce_loss": _info_nce_loss,
    "query_quality": _query_quality,
    "query_feature_mask": _query_feature_mask,
}
