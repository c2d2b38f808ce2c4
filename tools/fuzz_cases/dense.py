"""Valid calls of what detectors with anchors and points need: losses of rows and boxes, assigners, regions."""

import torch

from fuzz_cases.values import Arguments, Cases, Random, boxes, logits, real


def _softmax_kl(rng: Random) -> Arguments:
    return {
        "student": real(6, 17),
        "teacher": real(6, 17),
        "temperature": 10.0,
        "dim": -1,
        "weight": rng.choice([None, torch.rand(6)]),
        "bins": rng.choice(["sum", "mean"]),
        "reduction": rng.choice(["none", "mean", "sum"]),
        "detach_target": rng.random() < 0.5,
    }


def _masked_feature_loss(rng: Random) -> Arguments:
    return {
        "student": real(2, 3, 4, 5),
        "teacher": torch.randn(2, 3, 4, 5),
        "mask": rng.choice([torch.rand(2, 4, 5), torch.rand(2, 4, 5) > 0.5]),
        "norm": rng.choice([1, 2]),
        "mask_power": rng.choice([1, 2]),
        "channels": rng.choice(["mean", "sum"]),
        "normalizer": rng.choice(["elements", "mask", 2.0, torch.tensor([3.0])]),
    }


def _integral(rng: Random) -> Arguments:
    return {
        "logits": real(2, 5, 4, 17),
        "bins": rng.choice([None, torch.rand(17)]),
        "mask": rng.choice([None, torch.rand(2, 5, 1) > 0.5]),
    }


def _row_options(rng: Random) -> Arguments:
    return {"weight": rng.choice([None, torch.rand(6)]), "reduction": rng.choice(["none", "mean", "sum"])}


def _quality_focal_loss(rng: Random) -> Arguments:
    activated = rng.random() < 0.5
    return {
        "logits": torch.rand(6, 5).requires_grad_() if activated else logits(rng, 6, 5),
        "labels": torch.randint(-1, 6, (6,)),
        "scores": torch.rand(6),
        "beta": rng.choice([0.0, 1.0, 1.5, 2.0]),
        "activated": activated,
        **_row_options(rng),
    }


def _sigmoid_focal_loss(rng: Random) -> Arguments:
    return {
        "logits": logits(rng, 6, 5),
        "targets": rng.choice([torch.randint(-1, 6, (6,)), torch.rand(6, 5).round()]),
        "alpha": rng.choice([0.25, -1.0]),
        "gamma": rng.choice([0.0, 1.0, 1.5, 2.0]),
        **_row_options(rng),
    }


def _distribution_focal_loss(rng: Random) -> Arguments:
    return {"logits": logits(rng, 6, 17), "target": 20 * torch.rand(6) - 2, **_row_options(rng)}


def _pairwise_iou(rng: Random) -> Arguments:
    aligned = rng.random() < 0.5
    mode = rng.choice(["iou", "iof", "giou", "diou", "ciou", "diou_released"])
    return {
        "a": boxes(5).requires_grad_(),
        "b": boxes(5 if aligned else 3).requires_grad_(),
        "mode": mode,
        "aligned": aligned,
        "eps": 1e-6,
    }


def _box_iou(rng: Random) -> Arguments:
    return {"boxes1": boxes(5).requires_grad_(rng.random() < 0.5), "boxes2": boxes(3)}


def _box_loss(rng: Random) -> Arguments:
    return {
        "prediction": boxes(2, 5).requires_grad_(),
        "target": boxes(2, 5),
        "weight": rng.choice([None, torch.rand(2, 5), torch.rand(5) > 0.5]),
        "reduction": rng.choice(["none", "mean", "sum"]),
        "eps": 1e-6,
    }


def _distance_to_box(rng: Random) -> Arguments:
    return {"points": torch.rand(5, 2), "distances": real(2, 5, 4), "scale": rng.choice([None, torch.rand(5)])}


def _box_to_distance(rng: Random) -> Arguments:
    return {
        "points": torch.rand(5, 2),
        "boxes": boxes(2, 5),
        "min_distance": rng.choice([None, 0.0]),
        "max_distance": rng.choice([None, 16]),
        "margin": 0.1,
        "scale": rng.choice([None, torch.rand(5)]),
    }


def _assign_atss(rng: Random) -> Arguments:
    return {
        "anchors": boxes(21),
        "level_sizes": [16, 4, 1],
        "boxes": boxes(2, 3),
        "counts": torch.tensor([3, 1]),
        "topk": rng.choice([1, 9]),
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _valuable_localization_region(rng: Random) -> Arguments:
    return {
        "anchors": boxes(21),
        "boxes": boxes(2, 3),
        "counts": torch.tensor([3, 1]),
        "threshold": rng.choice([0.5, torch.rand(2, 3)]),
        "gamma": 0.25,
        "measure": rng.choice(["diou", "diou_released"]),
        "upper": rng.choice(["closed", "open"]),
        "weight": rng.choice(["iou", "one"]),
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _inside_region(rng: Random) -> Arguments:
    return {
        "points": torch.rand(21, 2) * 50,
        "boxes": boxes(2, 3),
        "counts": torch.tensor([3, 1]),
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _fine_grained_region(rng: Random) -> Arguments:
    arguments = _inside_region(rng)
    del arguments["points"]
    return {"anchors": boxes(21), **arguments, "factor": 0.5}


def _assign_max_iou(rng: Random) -> Arguments:
    arguments = _fine_grained_region(rng)
    del arguments["factor"]
    ignored = rng.random() < 0.5
    return {
        **arguments,
        "positive": 0.5,
        "negative": 0.4,
        "min_positive": rng.choice([0.0, 0.3]),
        "match_low_quality": rng.random() < 0.5,
        "ignore_boxes": boxes(2, 2) if ignored else None,
        "ignore_counts": torch.tensor([2, 1]) if ignored else None,
        "ignore_threshold": 0.5,
    }


def _assign_points(rng: Random) -> Arguments:
    return {
        **_inside_region(rng),
        "strides": [8.0, 16.0, 32.0],
        "level_sizes": [16, 4, 1],
        "regress_ranges": [(-1.0, 20.0), (20.0, 30.0), (30.0, float("inf"))],
        "center_sampling": rng.choice([None, 1.5]),
    }


def _general_instance_region(rng: Random) -> Arguments:
    return {
        "student_scores": torch.randn(2, 21, 5),
        "teacher_scores": torch.randn(2, 21, 5),
        "student_boxes": boxes(2, 21),
        "teacher_boxes": boxes(2, 21),
        "level_sizes": [16, 4, 1],
        "top": rng.choice([1, 10]),
        "iou": 0.3,
        "scope": rng.choice(["image", "batch"]),
        "activated": rng.random() < 0.5,
        "valid": rng.choice([None, torch.rand(2, 21) > 0.2]),
    }


def _pack_targets(rng: Random) -> Arguments:
    return {"targets": [boxes(3), boxes(2), boxes(1)], "max_targets": rng.choice([None, 3, 5])}


VALID: Cases = {
    "softmax_kl": _softmax_kl,
    "masked_feature_loss": _masked_feature_loss,
    "integral": _integral,
    "quality_focal_loss": _quality_focal_loss,
    "sigmoid_focal_loss": _sigmoid_focal_loss,
    "distribution_focal_loss": _distribution_focal_loss,
    "pairwise_iou": _pairwise_iou,
    "box_iou": _box_iou,
    "generalized_box_iou": _box_iou,
    "distance_box_iou": _box_iou,
    "complete_box_iou": _box_iou,
    "giou_loss": _box_loss,
    "diou_loss": _box_loss,
    "ciou_loss": _box_loss,
    "distance_to_box": _distance_to_box,
    "box_to_distance": _box_to_distance,
    "assign_atss": _assign_atss,
    "valuable_localization_region": _valuable_localization_region,
    "inside_region": _inside_region,
    "fine_grained_region": _fine_grained_region,
    "assign_max_iou": _assign_max_iou,
    "assign_points": _assign_points,
    "general_instance_region": _general_instance_region,
    "pack_targets": _pack_targets,
}
