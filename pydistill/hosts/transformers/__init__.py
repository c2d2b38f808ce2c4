"""pydistill for the detectors of transformers: their matchers and losses, with their arguments and numbers."""

from collections.abc import Callable
from typing import Any

from pydistill.hosts.transformers.losses import deformable_detr_loss, detr_loss, lw_detr_loss
from pydistill.hosts.transformers.matchers import (
    DeformableDetrHungarianMatcher,
    GroundingDinoHungarianMatcher,
    HungarianMatcher,
    LwDetrHungarianMatcher,
    RTDetrHungarianMatcher,
)
from pydistill.hosts.transformers.rt_losses import d_fine_loss, rt_detr_loss
from pydistill.hosts.transformers.trainer import DistillationMixin

__all__ = [
    "DeformableDetrHungarianMatcher",
    "DistillationMixin",
    "GroundingDinoHungarianMatcher",
    "HungarianMatcher",
    "LwDetrHungarianMatcher",
    "RTDetrHungarianMatcher",
    "d_fine_loss",
    "deformable_detr_loss",
    "detr_loss",
    "loss_for",
    "lw_detr_loss",
    "rt_detr_loss",
]

_LOSSES = {
    "ForObjectDetection": detr_loss,
    "DeformableDetrForObjectDetection": deformable_detr_loss,
    "ConditionalDetrForObjectDetection": deformable_detr_loss,
    "DabDetrForObjectDetection": deformable_detr_loss,
    "RTDetrForObjectDetection": rt_detr_loss,
    "RTDetrV2ForObjectDetection": rt_detr_loss,
    "DFineForObjectDetection": d_fine_loss,
    "LwDetrForObjectDetection": lw_detr_loss,
    "RfDetrForObjectDetection": lw_detr_loss,
}


def loss_for(model: Any) -> Callable[..., Any]:
    """Picks the loss that a detector of transformers has there.

    ::

        model.loss_function = loss_for(model)

    Raises:
        ValueError: For a model whose loss is not one of those here.
    """
    kind = getattr(model, "loss_type", None)
    if kind not in _LOSSES:
        raise ValueError(f"loss_for: expected a model whose loss_type is one of {', '.join(_LOSSES)}, got {kind}")
    return _LOSSES[kind]
