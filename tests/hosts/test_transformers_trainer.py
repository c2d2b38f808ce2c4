"""Distillation inside transformers' Trainer."""

from types import SimpleNamespace

import pytest
import torch

from pydistill.hosts.transformers import DistillationMixin, loss_for
from pydistill.losses import DETRDistillLoss
from tests.hosts.detectors import detector, scenes

pytest.importorskip("transformers", reason="needs pip install transformers")
ALONE = dict(classification=0, l1=0, giou=0, feature=0, group=0)


class PlainTrainer:
    """What of a Trainer the mixin builds upon."""

    def __init__(self, model, args=None, **kwargs):
        self.model, self.args = model, args or SimpleNamespace(device=torch.device("cpu"))
        self.logged = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs, start_time=None):
        self.logged.append(logs)


class Distilled(DistillationMixin, PlainTrainer):
    pass


def models(name):
    torch.manual_seed(0)
    return detector(name).train(), detector(name)


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "rt_detr", "d_fine"])
def test_terms_are_added(name):
    """The loss is the model's own and the terms between what both models hand their losses, all stages of them."""
    student, teacher = models(name)
    student.loss_function = loss_for(student)
    distillation = DETRDistillLoss(detector=name, **ALONE)
    seen = []
    distillation.register_forward_hook(lambda module, args, terms: seen.append((args, terms)))
    trainer = Distilled(student, teacher=teacher, distillation=distillation)
    pictures, labels = scenes(1)[0]
    torch.manual_seed(1)
    loss, outputs = trainer.compute_loss(student, {"pixel_values": pictures, "labels": labels}, return_outputs=True)
    (own, theirs, targets), terms = seen[0]
    assert set(terms) == {"instance_class", "instance_l1", "instance_giou"}
    torch.testing.assert_close(loss, outputs.loss + sum(terms.values()))
    assert torch.equal(own.boxes[-1], outputs.pred_boxes[:, -12:]) and own.logits.shape[2] == 12
    assert own.logits.shape[0] >= 2 and not theirs.logits.requires_grad
    assert targets.counts.tolist() == [len(t["boxes"]) for t in labels]
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    trainer.log({"loss": 1.0})
    trainer.log({"eval_loss": 1.0})
    assert trainer.logged[0]["distill/instance_l1"] == pytest.approx(float(terms["instance_l1"]), rel=1e-6)
    assert trainer.logged[1] == {"eval_loss": 1.0}


def test_not_in_evaluation():
    student, teacher = models("detr")
    trainer = Distilled(student, teacher=teacher, distillation=DETRDistillLoss(detector="detr", **ALONE))
    pictures, labels = scenes(1)[0]
    student.eval()
    loss, outputs = trainer.compute_loss(student, {"pixel_values": pictures, "labels": labels}, return_outputs=True)
    assert torch.equal(loss, outputs.loss)


def test_what_it_refuses():
    student, teacher = models("detr")
    with pytest.raises(ValueError, match="DistillationMixin: expected no weight on classification, l1, giou"):
        Distilled(student, teacher=teacher, distillation=DETRDistillLoss(detector="detr", feature=0, group=0))
    head = DETRDistillLoss(detector="detr", relation=1, projection=(32, 16), **ALONE)
    with pytest.raises(ValueError, match="DistillationMixin: expected a loss without parameters"):
        Distilled(student, teacher=teacher, distillation=head)
    trainer = Distilled(student, teacher=teacher, distillation=DETRDistillLoss(detector="detr", **ALONE))
    pictures, labels = scenes(1)[0]
    student.loss_function = loss_for(student)
    with pytest.raises(ValueError, match="expected a model that calls its loss_function"):
        trainer.compute_loss(student, {"pixel_values": pictures, "labels": labels})


def test_in_a_trainer(tmp_path):
    """transformers' own, three steps: it logs the terms, and saves the student alone."""
    pytest.importorskip("accelerate", reason="needs pip install accelerate")
    from transformers import Trainer, TrainingArguments

    class DistillationTrainer(DistillationMixin, Trainer):
        pass

    student, teacher = models("rt_detr")
    student.loss_function = loss_for(student)
    data = [
        {"pixel_values": x, "labels": label} for pictures, labels in scenes(3) for x, label in zip(pictures, labels)
    ]

    def collate(rows):
        return {"pixel_values": torch.stack([r["pixel_values"] for r in rows]), "labels": [r["labels"] for r in rows]}

    args = TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=2, logging_steps=1, save_steps=3, report_to=[],
        remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    distillation = DETRDistillLoss(detector="rt_detr", **ALONE)
    trainer = DistillationTrainer(
        student, args, train_dataset=data, data_collator=collate, teacher=teacher, distillation=distillation
    )
    before = [p.detach().clone() for p in teacher.parameters()]
    trainer.train()
    steps = [logs for logs in trainer.state.log_history if "distill/instance_class" in logs]
    assert len(steps) == 3 and all(logs["loss"] > logs["distill/instance_class"] > 0 for logs in steps)
    assert all(map(torch.equal, before, teacher.parameters()))
    (saved,) = tmp_path.glob("checkpoint-3/model.safetensors")
    assert not any("teacher" in name for name in student.state_dict()) and saved.stat().st_size > 0
