"""What is matched with what in trained detectors: for the reports."""

import torch
from torch import Tensor, nn

from pydistill.losses.detr.prediction import SetPrediction, SetTargets
from pydistill.losses.detr.presets import DETECTORS
from pydistill.ops import hungarian_match
from pydistill.recipes.dense.data import DenseData
from pydistill.recipes.detr.evaluation import infer
from pydistill.recipes.detr.training import to_targets


def query_of_target(prediction: SetPrediction, targets: SetTargets, detector: str) -> Tensor:
    """The query (B, T) that the last stage's matching gives each box; -1: none."""
    matched = hungarian_match(
        prediction.logits[-1], prediction.boxes[-1], targets.labels, targets.boxes, targets.counts,
        preset=DETECTORS[detector].matching,
    )  # fmt: skip
    return matched.query_of_target[:, 0]


def lent_queries(student: nn.Module, teacher: nn.Module, data: DenseData, count: int, detector: str) -> Tensor:
    """Which of the teacher's queries the student gives each box of the first ``count`` pictures by its own matching.

    The teacher's queries of a picture do not change while a student learns, so that those of two epochs compare.

    Returns:
        (k,) int64 on the CPU, of all boxes.
    """
    batch = data.batch(range(min(count, len(data))))
    taught = infer(teacher, batch.pictures)
    group = infer(student, batch.pictures, taught.queries).group
    assert group is not None
    found = query_of_target(_on_cpu(group), to_targets(batch), detector)
    return found[torch.arange(found.shape[1]) < batch.counts[:, None]]


def _on_cpu(prediction: SetPrediction) -> SetPrediction:
    return SetPrediction(prediction.logits.float().cpu(), prediction.boxes.float().cpu())
