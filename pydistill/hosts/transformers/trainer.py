"""Distillation of set detectors in transformers' ``Trainer``."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pydistill.hosts._pairs import packed
from pydistill.losses.detr import DETRDistillLoss, SetPrediction

_STAGES_SECOND = ("RTDetrForObjectDetection", "RTDetrV2ForObjectDetection", "DFineForObjectDetection")
_OWN = ("classification", "l1", "giou")


class DistillationMixin:
    """A ``Trainer`` whose detector also learns from a teacher, by :class:`~pydistill.losses.DETRDistillLoss`.

    ::

        class DistillationTrainer(DistillationMixin, Trainer):
            pass


        distillation = DETRDistillLoss(detector="rt_detr", classification=0, l1=0, giou=0, feature=0, group=0)
        DistillationTrainer(student, args, train_dataset=data, teacher=teacher, distillation=distillation).train()

    The detector's own loss is the model's, transformers' or one of :func:`loss_for`; what is distilled is added in
    training, not in evaluation. Both models get the same inputs; logits and boxes of all decoder stages are what they
    hand their loss, so ``config.auxiliary_loss`` decides whether there are several. Terms that need decoder outputs or
    features get them from a :meth:`prediction` that adds them. The means of the terms are logged as
    ``distill/<term>``. The teacher is in no checkpoint and no optimiser.

    Args:
        args, kwargs: ``Trainer``'s.
        teacher: a detector of transformers, of any family; it is put in evaluation mode and not trained.
        distillation: without weight on the detector's own terms, and without parameters.

    Raises:
        ValueError: For a loss that counts the detector's own terms again, or that has parameters.
    """

    model: Any
    args: Any

    def __init__(self, *args: Any, teacher: Any, distillation: DETRDistillLoss, **kwargs: Any):
        again = [name for name in _OWN if distillation.settings.weights[name]]
        if again:
            raise ValueError(f"DistillationMixin: expected no weight on {', '.join(again)}: the model's loss has them")
        if any(True for _ in distillation.parameters()):
            raise ValueError("DistillationMixin: expected a loss without parameters, which the optimiser does not know")
        super().__init__(*args, **kwargs)
        self.distillation = distillation
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        self._student_call = _Recorded(self.model, self.model.loss_function)
        self._teacher_call = _Recorded(self.teacher, _no_loss)
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def prediction(self, model: nn.Module, prediction: SetPrediction, outputs: Any) -> SetPrediction:
        """What is compared, of the student or the teacher: logits and boxes alone, unless overridden.

        Args:
            model: the student, perhaps wrapped, or the teacher.
            prediction: logits (L, B, Q, C) and boxes (L, B, Q, 4), without denoising queries.
            outputs: what ``model`` returned.
        """
        return prediction

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The model's own loss and, in training, what is distilled."""
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(  # type: ignore[misc]
            model, dict(inputs), return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if model.training:
            student = self.prediction(model, self._student_call.take(), outputs)
            with torch.no_grad():
                theirs = self.teacher(**{**inputs, "labels": labels})
            teacher = self.prediction(self.teacher, self._teacher_call.take(), theirs)
            terms = self.distillation(student, teacher, packed(labels, "class_labels"))
            loss = loss + torch.stack(list(terms.values())).sum()
            for name, term in terms.items():
                self._sums[name] = self._sums.get(name, 0) + term.detach()
            self._steps += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As ``Trainer.log``, with the means of the terms since the last training log."""
        if "loss" in logs and self._steps:
            logs = {**logs, **{f"distill/{name}": float(t) / self._steps for name, t in self._sums.items()}}
            self._sums, self._steps = {}, 0
        super().log(logs, *args, **kwargs)  # type: ignore[misc]


class _Recorded:
    """A model's loss that keeps what the model handed it until it is taken."""

    def __init__(self, model: Any, loss: Callable[..., Any]):
        self.loss, self.second = loss, model.loss_type in _STAGES_SECOND
        self.kept: SetPrediction | None = None
        model.loss_function = self

    def __call__(
        self, logits: Tensor, labels: Any, device: Any, pred_boxes: Tensor, config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        of_classes, of_boxes = (*args, None, None)[:2]
        of_classes, of_boxes = kwargs.get("outputs_class", of_classes), kwargs.get("outputs_coord", of_boxes)
        if of_classes is None or not config.auxiliary_loss:
            of_classes, of_boxes = logits.unsqueeze(0), pred_boxes.unsqueeze(0)
        elif self.second:
            of_classes, of_boxes = of_classes.transpose(0, 1), of_boxes.transpose(0, 1)
        meta = kwargs.get("denoising_meta_values")
        if meta is not None:
            first = meta["dn_num_split"][0]
            of_classes, of_boxes = of_classes[:, :, first:], of_boxes[:, :, first:]
        self.kept = SetPrediction(of_classes, of_boxes)
        return self.loss(logits, labels, device, pred_boxes, config, *args, **kwargs)

    def take(self) -> SetPrediction:
        kept, self.kept = self.kept, None
        if kept is None:
            raise ValueError("DistillationMixin: expected a model that calls its loss_function, got one that did not")
        return kept


def _no_loss(logits: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor], None]:
    return logits.new_zeros(()), {}, None
