"""Valid calls of what detectors in bird's-eye view need."""

import torch

import pydistill.ops
from fuzz_cases.values import Arguments, Cases, Random, real


def _view(rng: Random) -> pydistill.ops.BEVGrid:
    return rng.choice([pydistill.ops.BEVGrid(0, -8, 0.5, 1.0, 6, 7), pydistill.ops.BEVGrid(0, 0, 1, 1, 1, 3)])


def _box_keypoints(rng: Random) -> Arguments:
    return {"boxes": 4 * torch.rand(2, 3, 9), "grid": _view(rng), "layout": rng.choice(["nine", (3, 2), (16, 16)])}


def _gaussian_region(rng: Random) -> Arguments:
    labels = rng.choice([None, torch.randint(-1, 4, (2, 3))])
    return {
        "boxes": 4 * torch.rand(2, 3, 9),
        "valid": torch.rand(2, 3) < 0.8,
        "grid": _view(rng),
        "overlap": rng.choice([0.1, 0.7]),
        "min_radius": rng.choice([0, 2]),
        "formula": rng.choice(["released", "corrected"]),
        "labels": labels,
        "num_classes": None if labels is None else 3,
    }


def _keypoint_feature_loss(rng: Random) -> Arguments:
    return {
        "student": real(2, 5, 6, 7),
        "teacher": torch.randn(2, 5, 6, 7),
        "keypoints": 8 * torch.rand(2, 3, 9, 2) - 1,
        "valid": torch.rand(2, 3) < 0.8,
        "swap_xy": rng.random() < 0.5,
        "norm": rng.choice([1, 2]),
        "normalizer": rng.choice([None, 2.5, torch.tensor(2.5)]),
        "eps": 1e-4,
    }


def _keypoint_relation_loss(rng: Random) -> Arguments:
    arguments, gram = _keypoint_feature_loss(rng), rng.choice(["cosine", "rows", "channels"])
    return {**arguments, "gram": gram, **({"norm": 2} if gram == "channels" else {})}


def _response_loss(rng: Random) -> Arguments:
    return {
        "student_heatmaps": [real(2, 1, 6, 7), real(2, 2, 6, 7)],
        "teacher_heatmaps": [torch.randn(2, 1, 6, 7), torch.randn(2, 2, 6, 7)],
        "student_regressions": [real(2, 4, 6, 7)],
        "teacher_regressions": [torch.randn(2, 4, 6, 7)],
        "region": torch.rand(2, 6, 7) * (torch.rand(2, 6, 7) < 0.5),
        "student_is_logit": rng.random() < 0.5,
        "teacher_temperature": 2.0,
        "student_clamp": 1e-4,
        "teacher_clamp": 1e-3,
        "normalizer": rng.choice([None, 2.5, torch.tensor(2.5)]),
        "eps": 1e-4,
    }


VALID: Cases = {
    "box_keypoints": _box_keypoints,
    "gaussian_region": _gaussian_region,
    "keypoint_feature_loss": _keypoint_feature_loss,
    "keypoint_relation_loss": _keypoint_relation_loss,
    "response_loss": _response_loss,
}
