"""mmdetection's overlaps and its ATSS assigner over the kernels."""

from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from torch import Tensor

from pydistill.hosts.mmdet._registry import get_box_tensor
from pydistill.ops import assign_atss, pairwise_iou, valuable_localization_region

_NOWHERE = -1e8  # mmdet's max_overlaps of an anchor without a box
_BANDS = {"paper": ("diou", "closed"), "released": ("diou_released", "open")}  # measure and upper end of the region


class BboxOverlaps2D:
    """Overlaps of boxes: mmdet's ``iou``, ``iof`` and ``giou``, and ``diou``, ``ciou`` and ``diou_released``.

    What each is says :func:`pydistill.ops.pairwise_iou`; ``diou_released`` is the measure that the released code of
    Localization Distillation calls DIoU.

    Args:
        scale: with ``dtype="fp16"``, what boxes are divided by.
        dtype: ``"fp16"`` rounds the boxes to float16, as mmdet does. The result is float32; there, on a GPU, float16.
    """

    def __init__(self, scale: float = 1.0, dtype: str | None = None):
        self.scale, self.dtype = scale, dtype

    def __call__(self, bboxes1: Any, bboxes2: Any, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        """``(m, n)`` overlaps of ``(m, 4)`` or ``(m, 5)`` with ``(n, 4)`` or ``(n, 5)`` boxes, ``(m,)`` if aligned."""
        first, second = (self._corners(boxes) for boxes in (bboxes1, bboxes2))
        return pairwise_iou(first, second, mode=mode, aligned=is_aligned)

    def _corners(self, boxes: Any) -> Tensor:
        tensor: Tensor = get_box_tensor(boxes)
        tensor = tensor[..., :4] if tensor.numel() else tensor.reshape(-1, 4)
        return (tensor / self.scale).half() if self.dtype == "fp16" else tensor

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scale={self.scale}, dtype={self.dtype})"


class ATSSAssigner(BaseAssigner):
    """mmdet's ATSS over :func:`pydistill.ops.assign_atss`, which also gives the valuable localization region.

    The result has two properties more (``result.get_extra_property(name)``): ``threshold`` ``(num_gts,)``, the IoU from
    which anchors are positive, and ``region`` ``(num_priors,)``, the weight of each anchor in the valuable localization
    region, 0 outside (:func:`pydistill.ops.valuable_localization_region`).

    Of anchors at the same distance from a box's centre, the first are the candidates; mmdet leaves that to ``topk``.

    Args:
        topk: candidates per level.
        ignore_iof_thr: anchors with a larger share in an ignored box are ignored; not positive: off.
        gamma: lower end of the region's band as a part of its upper end.
        reference: whose region: ``"paper"``, or ``"released"`` for that of the released code.

    Raises:
        ValueError: for ``alpha`` (DDOD's cost) or an ``iou_calculator`` of another kind, which mmdet's own class has.
    """

    def __init__(
        self,
        topk: int,
        alpha: float | None = None,
        iou_calculator: Any = None,
        ignore_iof_thr: float = -1,
        gamma: float = 0.25,
        reference: str = "paper",
    ):
        if alpha is not None:
            raise ValueError(f"ATSSAssigner: expected alpha=None, got {alpha}; mmdet.ATSSAssigner has it")
        if iou_calculator is not None and iou_calculator["type"].rpartition(".")[2] != "BboxOverlaps2D":
            raise ValueError(f"ATSSAssigner: expected iou_calculator BboxOverlaps2D, got {iou_calculator['type']}")
        if reference not in _BANDS:
            raise ValueError(f"ATSSAssigner: expected reference in {tuple(_BANDS)}, got {reference!r}")
        self.topk, self.ignore_iof_thr, self.gamma, self.reference = topk, ignore_iof_thr, gamma, reference

    def assign(
        self,
        pred_instances: Any,
        num_level_priors: list[int],
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        **kwargs: Any,
    ) -> Any:
        """An ``AssignResult``: 0 for background, -1 for ignored, else the box's index plus 1."""
        priors = get_box_tensor(pred_instances.priors)[:, :4]
        boxes, labels = get_box_tensor(gt_instances.bboxes), gt_instances.labels
        counts = _count(boxes)
        ignore = None if gt_instances_ignore is None else get_box_tensor(gt_instances_ignore.bboxes)
        if len(boxes) == 0:  # there mmdet ignores nothing
            ignore = None
        assigned = assign_atss(
            priors,
            num_level_priors,
            boxes[None],
            counts,
            topk=self.topk,
            ignore_boxes=None if ignore is None else ignore[None],
            ignore_counts=None if ignore is None else _count(ignore),
            ignore_threshold=self.ignore_iof_thr,
        )
        measure, upper = _BANDS[self.reference]
        region = valuable_localization_region(
            priors, boxes[None], counts, assigned.threshold, gamma=self.gamma, measure=measure, upper=upper
        )
        index, overlaps = assigned.gt_index[0], assigned.max_iou[0]
        if len(boxes):
            overlaps = torch.where(index >= 0, overlaps, _NOWHERE)
            label = torch.where(index >= 0, labels[index.clamp(min=0)], -1)
        else:
            label = torch.full_like(index, -1)
        result = AssignResult(len(boxes), index + 1, overlaps, labels=label)
        result.set_extra_property("threshold", assigned.threshold[0])
        result.set_extra_property("region", region[0])
        return result


def _count(boxes: Tensor) -> Tensor:
    return torch.full((1,), len(boxes), dtype=torch.int64, device=boxes.device)
