"""mmdetection's Hungarian assigner over :func:`pydistill.ops.hungarian_match`."""

from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from torch import Tensor

from pydistill.hosts.mmdet import match_costs as ours
from pydistill.ops import Match, hungarian_match, linear_sum_assignment

COSTS = (
    ours.BBoxL1Cost,
    ours.BinaryFocalLossCost,
    ours.ClassificationCost,
    ours.CrossEntropyLossCost,
    ours.DiceCost,
    ours.FocalLossCost,
    ours.IoUCost,
)


class HungarianAssigner(BaseAssigner):
    """mmdet's Hungarian assigner: each query gets one object or background, at the smallest total cost.

    Costs and assignment are computed together, where the predictions are. So it is for any set of costs of this package
    that has each term once; others, and those of other packages, are summed as matrices first.

    Args:
        match_costs: configs, or one. A type of mmdet's name is the cost of this package (``"FocalLossCost"``);
            ``"mmdet.FocalLossCost"`` is mmdet's own.
        nonfinite: what a cost that is not finite means: ``"raise"`` ValueError, as SciPy does below mmdet; the other
            policies of :func:`pydistill.ops.hungarian_match` do not wait for the device. ``"forbid"`` leaves such a
            query to the background and trains on.

    Raises:
        ValueError: for no costs, and for options of a cost.
    """

    def __init__(self, match_costs: Any, nonfinite: str = "raise"):
        configs = [match_costs] if isinstance(match_costs, dict) else list(match_costs)
        if not configs:
            raise ValueError("HungarianAssigner: expected one or more match_costs, got none")
        self.match_costs, self.nonfinite = [_build(config) for config in configs], nonfinite
        self.options = ours.combined(self.match_costs)

    @property
    def batched(self) -> bool:
        """Whether :meth:`match` can be used: all costs are one call, and none is of masks or text."""
        o = self.options
        return (
            o is not None and o["class_cost"] != "binary_focal" and not (o["weights"]["mask"] or o["weights"]["dice"])
        )

    def match(
        self,
        scores: Tensor,
        boxes: Tensor,
        labels: Tensor,
        target_boxes: Tensor,
        counts: Tensor,
        image_sizes: Tensor,
    ) -> Match:
        """All images and layers at once.

        Args:
            scores: ``(..., B, Q, C)`` logits.
            boxes: ``(..., B, Q, 4)``, centre and size as parts of the image.
            labels: ``(B, T)``.
            target_boxes: ``(B, T, 4)``, as ``boxes``.
            counts: ``(B,)`` int64, objects of each image.
            image_sizes: ``(B, 2)``, height and width in pixels.
        """
        assert self.options is not None
        arguments = scores, boxes, labels, target_boxes, counts
        return hungarian_match(*arguments, image_sizes=image_sizes, nonfinite=self.nonfinite, **self.options)

    def assign(self, pred_instances: Any, gt_instances: Any, img_meta: Any = None, **kwargs: Any) -> Any:
        """An ``AssignResult`` of one image: 0 for background, else the object's index plus 1, and labels."""
        labels, count, queries = gt_instances.labels, len(gt_instances), len(pred_instances)
        if not count or not queries:
            nothing = labels.new_full((queries,), -1)
            return AssignResult(count, nothing if count else nothing + 1, None, labels=nothing)
        if self.options is not None:
            arguments, options = ours.problem(self.options, pred_instances, gt_instances, img_meta)
            found = hungarian_match(*arguments, nonfinite=self.nonfinite, **options).target_of_query
        else:
            inputs = dict(pred_instances=pred_instances, gt_instances=gt_instances, img_meta=img_meta)
            cost = torch.stack([cost(**inputs) for cost in self.match_costs]).sum(0)
            found = linear_sum_assignment(cost[None], nonfinite=self.nonfinite).column_of_row
        index = found[0]
        label = torch.where(index >= 0, labels[index.clamp(min=0)], -1)
        return AssignResult(count, index + 1, None, labels=label)


def _build(config: Any) -> Any:
    for kind in COSTS:
        if config["type"] in (kind, kind.__name__, f"pydistill.{kind.__name__}"):
            return kind(**{name: value for name, value in config.items() if name != "type"})
    return TASK_UTILS.build(config)
