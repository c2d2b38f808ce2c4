"""The matchers of transformers' detectors, with the same constructors, arguments and results."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pydistill.hosts._pairs import Pairs, match_pairs, packed

Outputs = Mapping[str, Any]
Labels = Sequence[Mapping[str, Tensor]]


class HungarianMatcher(nn.Module):
    """transformers' ``HungarianMatcher``: softmax class cost, of DETR, YOLOS, Table Transformer, segmentation.

    All images are matched in one call, each with its own objects alone, and with CUDA tensors the matching runs there:
    one copy to the CPU, of the result.

    Args:
        class_cost: weight of the class term.
        bbox_cost: weight of the L1 distance, of boxes (centre, size) in 0 to 1.
        giou_cost: weight of the GIoU.
        nonfinite: What a cost that is not finite means, see ``linear_sum_assignment``. "finfo_max" is transformers'
            rule. With it the other pairs of an image need not be the cheapest once such a pair is unavoidable;
            "forbid" leaves such pairs out, and matches the others well.

    Raises:
        ValueError: If all weights are 0.
    """

    preset = "hf_detr"

    def __init__(
        self,
        class_cost: float = 1,
        bbox_cost: float = 1,
        giou_cost: float = 1,
        *,
        nonfinite: str = "finfo_max",
    ):
        super().__init__()
        if class_cost == bbox_cost == giou_cost == 0:
            raise ValueError(f"{type(self).__name__}: expected a weight that is not 0, got none")
        self.class_cost, self.bbox_cost, self.giou_cost, self.nonfinite = class_cost, bbox_cost, giou_cost, nonfinite

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``hungarian_match`` that this matcher stands for."""
        weights = {"class": self.class_cost, "l1": self.bbox_cost, "giou": self.giou_cost}
        return {"preset": self.preset, "weights": weights, "nonfinite": self.nonfinite}

    @torch.no_grad()
    def forward(self, outputs: Outputs, targets: Labels) -> Pairs:
        """Pairs of each image: (queries, targets), int64 on the CPU, sorted by query.

        Args:
            outputs: "logits" (B, Q, C) and "pred_boxes" (B, Q, 4), centre and size in 0 to 1.
            targets: for each image "class_labels" (n,) and "boxes" (n, 4).
        """
        return match_pairs(outputs["logits"], outputs["pred_boxes"], packed(targets, "class_labels"), **self.options)


class DeformableDetrHungarianMatcher(HungarianMatcher):
    """transformers' ``DeformableDetrHungarianMatcher``: focal class cost, of Deformable, Conditional and DAB-DETR."""

    preset = "hf_deformable_detr"


class LwDetrHungarianMatcher(HungarianMatcher):
    """transformers' ``LwDetrHungarianMatcher``: focal class cost, each group of queries with all objects."""

    preset = "hf_lw_detr"

    @torch.no_grad()
    def forward(self, outputs: Outputs, targets: Labels, group_detr: int = 1) -> Pairs:
        """As ``HungarianMatcher.forward``, for ``group_detr`` groups of Q // group_detr queries, one after the other.

        Queries beyond the last whole group are not matched, as in transformers.
        """
        objects = packed(targets, "class_labels")
        return match_pairs(outputs["logits"], outputs["pred_boxes"], objects, group_detr, **self.options)


class RTDetrHungarianMatcher(HungarianMatcher):
    """transformers' ``RTDetrHungarianMatcher``, of RT-DETR, RT-DETRv2, D-FINE and DEIMv2; all is in the config.

    Args:
        config: with ``matcher_class_cost``, ``matcher_bbox_cost``, ``matcher_giou_cost``, ``use_focal_loss``,
            ``matcher_alpha`` and ``matcher_gamma``.
        nonfinite: as in ``HungarianMatcher``.
    """

    preset = "hf_rt_detr"

    def __init__(self, config: Any, *, nonfinite: str = "finfo_max"):
        costs = config.matcher_class_cost, config.matcher_bbox_cost, config.matcher_giou_cost
        super().__init__(*costs, nonfinite=nonfinite)
        self.use_focal_loss, self.alpha, self.gamma = config.use_focal_loss, config.matcher_alpha, config.matcher_gamma

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``hungarian_match`` that this matcher stands for."""
        class_cost = "focal" if self.use_focal_loss else "softmax"
        return {**super().options, "class_cost": class_cost, "alpha": self.alpha, "gamma": self.gamma}


class GroundingDinoHungarianMatcher(HungarianMatcher):
    """transformers' ``GroundingDinoHungarianMatcher``: focal cost of text tokens, averaged over those of a class."""

    preset = "hf_grounding_dino"

    @torch.no_grad()
    def forward(self, outputs: Outputs, targets: Labels) -> Pairs:
        """As ``HungarianMatcher.forward``, with "label_maps" in ``outputs``: for each image (classes, C), 1 at the
        tokens of each class.
        """
        objects = packed(targets, "class_labels")
        tokens = [m[t["class_labels"]] for m, t in zip(outputs["label_maps"], targets)]
        scores = nn.utils.rnn.pad_sequence([m / m.sum(-1, keepdim=True) for m in tokens], batch_first=True)
        return match_pairs(outputs["logits"], outputs["pred_boxes"], objects, target_scores=scores, **self.options)
