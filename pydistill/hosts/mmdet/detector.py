"""A single-stage detector whose head also gets the teacher's class logits and feature maps."""

from typing import Any

import torch
from mmdet.models.detectors import KnowledgeDistillationSingleStageDetector as _Detector
from torch import Tensor


class KnowledgeDistillationSingleStageDetector(_Detector):
    """mmdet's detector with a frozen teacher, which shows its head all that the teacher knows.

    ``bbox_head.loss`` gets ``(class logits, box logits, feature maps)`` of the teacher, lists over the levels, where
    mmdet's own passes the first two. Heads of mmdet take it as well.
    """

    def loss(self, batch_inputs: Tensor, batch_data_samples: Any) -> dict[str, Any]:
        """The head's terms for pictures ``(N, 3, H, W)``."""
        features = self.extract_feat(batch_inputs)
        with torch.no_grad():
            known = self.teacher_model.extract_feat(batch_inputs)
            outputs = self.teacher_model.bbox_head(known)
        terms: dict[str, Any] = self.bbox_head.loss(features, (*outputs, known), batch_data_samples)
        return terms
