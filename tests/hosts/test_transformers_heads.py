"""Localization distillation in a detector of transformers': YOLOS, four numbers a query before a sigmoid."""

import pytest
import torch

from pydistill import Distiller, Term
from pydistill.heads import DistributionHead
from pydistill.ops import softmax_kl

transformers = pytest.importorskip("transformers", reason="needs pip install transformers")
PATH = "bbox_predictor.layers.2"


def _yolos(width):
    config = transformers.YolosConfig(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=2 * width,
        image_size=[32, 32], patch_size=8, num_detection_tokens=5, num_labels=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.YolosForObjectDetection(config)


def test_yolos_learns_by_ld():
    """It starts with the same boxes, its own loss still runs, and LD alone brings its boxes to the teacher's."""
    torch.manual_seed(0)
    teacher, student = _yolos(48), _yolos(32)
    torch.nn.init.normal_(teacher.get_submodule(PATH).bias)  # boxes unlike the student's
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        before = student(x).pred_boxes
        target = teacher(x).pred_boxes
        for model in (teacher, student):
            model.set_submodule(PATH, DistributionHead(model.get_submodule(PATH), 33, -5.0, 5.0))
        assert (student(x).pred_boxes - before).abs().max() < 1e-3
        assert (teacher(x).pred_boxes - target).abs().max() < 1e-3

    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]])}] * 4
    student(x, labels=labels).loss.backward()
    assert student.get_submodule(PATH).logits.layer.weight.grad.abs().sum() > 0

    def ld(student, teacher):
        return softmax_kl(student, teacher, reduction="mean")

    distiller = Distiller(student, teacher, {"ld": Term(ld, f"{PATH}.logits", f"{PATH}.logits")})
    optimizer = torch.optim.Adam(distiller.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        distilled = distiller(x)
        distilled.loss.backward()
        optimizer.step()
        losses.append(distilled.loss.item())
    after = student(x).pred_boxes
    assert losses[-1] < losses[0] / 50
    assert (after - target).abs().mean() < (before - target).abs().mean() / 10
