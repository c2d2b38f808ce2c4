"""facebookresearch's DETR and what keeps its criterion: Deformable DETR, DAB-DETR, Conditional DETR, RT-DETR."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pydistill.hosts._pairs import Pairs, match_pairs, packed

__all__ = ["HungarianMatcher"]


class HungarianMatcher(nn.Module):
    """The matcher of ``SetCriterion(num_classes, matcher=...)``: all images in one call, each with its own objects.

    It stays where the predictions are, but for one copy of the result to the CPU.

    Args:
        cost_class: weight of the class term.
        cost_bbox: weight of the L1 distance, of boxes (centre, size) in 0 to 1.
        cost_giou: weight of the GIoU.
        class_cost: "softmax" as in DETR, or "focal" as in Deformable DETR and those that followed. Deformable DETR's
            own default weights are these, its configurations' are 2, 5, 2.
        nonfinite: What a cost that is not finite means, see ``linear_sum_assignment``. "raise" is SciPy's rule, and so
            that code's, which asserts on inverted boxes first; it synchronises.

    Raises:
        ValueError: If all weights are 0 or ``class_cost`` is another.
    """

    def __init__(
        self,
        cost_class: float = 1,
        cost_bbox: float = 1,
        cost_giou: float = 1,
        *,
        class_cost: str = "softmax",
        nonfinite: str = "raise",
    ):
        super().__init__()
        if cost_class == cost_bbox == cost_giou == 0:
            raise ValueError("HungarianMatcher: expected a weight that is not 0, got none")
        if class_cost not in ("softmax", "focal"):
            raise ValueError(f"HungarianMatcher: expected class_cost to be softmax or focal, got {class_cost}")
        self.cost_class, self.cost_bbox, self.cost_giou = cost_class, cost_bbox, cost_giou
        self.class_cost, self.nonfinite = class_cost, nonfinite

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``hungarian_match`` that this matcher stands for."""
        weights = {"class": self.cost_class, "l1": self.cost_bbox, "giou": self.cost_giou}
        preset = "detr" if self.class_cost == "softmax" else "deformable_detr"
        return {"preset": preset, "weights": weights, "nonfinite": self.nonfinite}

    @torch.no_grad()
    def forward(self, outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]) -> Pairs:
        """Pairs of each image: (queries, targets), int64 on the CPU, sorted by query.

        Args:
            outputs: "pred_logits" (B, Q, C) and "pred_boxes" (B, Q, 4), centre and size in 0 to 1.
            targets: for each image "labels" (n,) and "boxes" (n, 4).
        """
        objects = packed(targets, "labels")
        return match_pairs(outputs["pred_logits"], outputs["pred_boxes"], objects, **self.options)
