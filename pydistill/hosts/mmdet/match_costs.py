"""mmdetection's match costs over :func:`pydistill.ops.match_cost`, and how several make one call."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pydistill.hosts.mmdet._registry import get_box_tensor
from pydistill.ops import match_cost, pairwise_iou
from pydistill.ops._match_options import TERMS

Options = dict[str, Any]


class MatchCost(ABC):
    """What all of mmdet's costs share: a weight, and ``cost(pred_instances, gt_instances, img_meta)``."""

    def __init__(self, weight: float = 1.0):
        self.weight = weight

    @abstractmethod
    def options(self) -> Options | None:
        """The options of ``match_cost`` that make this cost alone; None where it has none that do."""

    def __call__(self, pred_instances: Any, gt_instances: Any, img_meta: Any = None, **kwargs: Any) -> Tensor:
        """The costs of one image, ``(num_preds, num_gts)``, float32 or float64, without gradient."""
        options = combined([self])
        assert options is not None
        arguments, options = problem(options, pred_instances, gt_instances, img_meta)
        return match_cost(*arguments, **options)[0]


class BBoxL1Cost(MatchCost):
    """L1 distance of boxes, corners in pixels, as parts of the image.

    Args:
        box_format: ``"xyxy"`` or ``"xywh"``, which is centre and size: what is compared.
        weight: what the cost is multiplied by.
    """

    def __init__(self, box_format: str = "xyxy", weight: float = 1.0):
        super().__init__(weight)
        if box_format not in ("xyxy", "xywh"):
            raise ValueError(f'BBoxL1Cost: expected box_format "xyxy" or "xywh", got {box_format!r}')
        self.box_format = box_format

    def options(self) -> Options:
        """``l1``."""
        return {"weights": {"l1": self.weight}, "l1_format": "cxcywh" if self.box_format == "xywh" else "xyxy"}


class IoUCost(MatchCost):
    """Minus the overlap of boxes, corners in pixels.

    Args:
        iou_mode: ``"giou"``, or another ``mode`` of :func:`pydistill.ops.pairwise_iou`.
        weight: what the cost is multiplied by.
    """

    def __init__(self, iou_mode: str = "giou", weight: float = 1.0):
        super().__init__(weight)
        self.iou_mode = iou_mode

    def options(self) -> Options | None:
        """``giou``, or nothing: there is no such term."""
        return {"weights": {"giou": self.weight}, "giou_eps": 1e-6} if self.iou_mode == "giou" else None

    def __call__(self, pred_instances: Any, gt_instances: Any, img_meta: Any = None, **kwargs: Any) -> Tensor:
        """The costs of one image, ``(num_preds, num_gts)``."""
        boxes = (get_box_tensor(x.bboxes).detach() for x in (pred_instances, gt_instances))
        return -self.weight * pairwise_iou(*boxes, mode=self.iou_mode)


class ClassificationCost(MatchCost):
    """Minus the softmax of the label.

    Args:
        weight: what the cost is multiplied by.
    """

    def options(self) -> Options:
        """``class``."""
        return {"weights": {"class": self.weight}, "class_cost": "softmax"}


class FocalLossCost(MatchCost):
    """Focal loss of the label, as the change against background; of masks, its mean over the points.

    Args:
        alpha: weight of the positive side.
        gamma: the exponent.
        eps: inside the logarithms.
        binary_input: compare ``masks``, not ``scores`` with ``labels``.
        weight: what the cost is multiplied by.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2,
        eps: float = 1e-12,
        binary_input: bool = False,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        self.alpha, self.gamma, self.eps, self.binary_input = alpha, gamma, eps, binary_input

    def options(self) -> Options:
        """``class`` or ``mask``."""
        focal = {"alpha": float(self.alpha), "gamma": float(self.gamma), "eps": self.eps}
        if self.binary_input:
            return {"weights": {"mask": self.weight}, "mask_cost": "focal", **focal}
        return {"weights": {"class": self.weight}, "class_cost": "focal", **focal}


class BinaryFocalLossCost(FocalLossCost):
    """Focal loss of all tokens in the text against ``positive_maps``; see :class:`FocalLossCost`."""

    def options(self) -> Options:
        """``class``."""
        return {**super().options(), "weights": {"class": self.weight}, "class_cost": "binary_focal"}


class DiceCost(MatchCost):
    """Dice loss of masks.

    Args:
        pred_act: the predictions are logits; else probabilities.
        eps: added to numerator and denominator.
        naive_dice: do not square the terms of the denominator.
        weight: what the cost is multiplied by.
    """

    def __init__(self, pred_act: bool = False, eps: float = 1e-3, naive_dice: bool = True, weight: float = 1.0):
        super().__init__(weight)
        self.pred_act, self.eps, self.naive_dice = pred_act, eps, naive_dice

    def options(self) -> Options | None:
        """``dice``, of logits."""
        if not self.pred_act:
            return None
        return {"weights": {"dice": self.weight}, "dice_eps": self.eps, "dice_squared": not self.naive_dice}

    def __call__(self, pred_instances: Any, gt_instances: Any, img_meta: Any = None, **kwargs: Any) -> Tensor:
        """The costs of one image, ``(num_preds, num_gts)``."""
        if self.pred_act:
            return super().__call__(pred_instances, gt_instances, img_meta)
        p = pred_instances.masks.detach().flatten(1)
        y = gt_instances.masks.flatten(1).to(p.dtype)
        sizes = [(m if self.naive_dice else m.square()).sum(1) for m in (p, y)]
        cost: Tensor = 1 - (2 * p @ y.T + self.eps) / (sizes[0][:, None] + sizes[1] + self.eps)
        return self.weight * cost


class CrossEntropyLossCost(MatchCost):
    """Binary cross entropy of masks, the mean over the points.

    Args:
        use_sigmoid: True.
        weight: what the cost is multiplied by.
    """

    def __init__(self, use_sigmoid: bool = True, weight: float = 1.0):
        super().__init__(weight)
        if not use_sigmoid:
            raise ValueError("CrossEntropyLossCost: expected use_sigmoid=True, got False")

    def options(self) -> Options:
        """``mask``."""
        return {"weights": {"mask": self.weight}, "mask_cost": "bce"}


def combined(costs: Sequence[Any]) -> Options | None:
    """The options of ``match_cost`` that make the sum of ``costs``; None where one call has no room for all."""
    result: Options = {"weights": {}}
    for cost in costs:
        options = cost.options() if isinstance(cost, MatchCost) else None
        if options is None:
            return None
        weights = options.pop("weights")
        twice = result["weights"].keys() & weights.keys()
        if twice or any(result.get(name, value) != value for name, value in options.items()):
            return None
        result["weights"] |= weights
        result |= options
    return {"class_cost": "none", **result, "weights": {**dict.fromkeys(TERMS, 0.0), **result["weights"]}}


def problem(options: Options, pred: Any, gt: Any, meta: Any) -> tuple[tuple[Any, ...], Options]:
    """Arguments and options of ``match_cost`` for a batch of one: what it reads of mmdet's instances."""
    weights, options = options["weights"], {**options, "box_format": "xyxy"}
    boxes = target_boxes = None
    if weights["l1"] or weights["giou"]:
        boxes, target_boxes = get_box_tensor(pred.bboxes), get_box_tensor(gt.bboxes)
        options["image_sizes"] = sizes = image_sizes([meta], target_boxes)
        boxes, target_boxes = ((b / sizes[:, [1, 0, 1, 0]])[None] for b in (boxes, target_boxes))
    if weights["mask"] or weights["dice"]:
        options["mask_logits"] = pred.masks.flatten(1)[None]
        options["target_masks"] = gt.masks.flatten(1)[None].to(pred.masks.dtype)
    if options["class_cost"] == "binary_focal":
        options["target_scores"], options["token_mask"] = gt.positive_maps[None], gt.text_token_mask[:1].bool()
    some = next(x for x in (pred.get("scores"), pred.get("bboxes"), pred.get("masks")) if x is not None)
    scores = pred.scores if options["class_cost"] != "none" else get_box_tensor(some).new_zeros(len(pred), 1)
    labels = gt.labels if "labels" in gt else torch.zeros(len(gt), dtype=torch.int64, device=scores.device)
    return (scores[None], boxes, labels[None], target_boxes), options


def image_sizes(metas: Sequence[Any], like: Tensor) -> Tensor:
    """Height and width of each image in pixels, ``(B, 2)``."""
    return like.new_tensor([meta["img_shape"][:2] for meta in metas])
