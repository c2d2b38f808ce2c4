"""mmdetection's DETR heads, whose queries get their objects in all images and layers at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models import dense_heads
from torch import Tensor

from pydistill.hosts.mmdet._registry import get_box_tensor
from pydistill.hosts.mmdet.assigner import HungarianAssigner
from pydistill.hosts.mmdet.match_costs import image_sizes
from pydistill.ops import pack_targets

_CROSS_ENTROPY = dict(type="CrossEntropyLoss", use_sigmoid=False, bg_cls_weight=0.1, loss_weight=1.0, class_weight=1.0)


class _LayerTargets(NamedTuple):
    """What ``get_targets`` returns, of a layer that is matched already; it travels as ``batch_gt_instances``."""

    labels: list[Tensor]
    label_weights: list[Tensor]
    boxes: list[Tensor]
    box_weights: list[Tensor]
    positives: int
    negatives: int


class _Matched(dense_heads.DETRHead):
    """Between mmdet's heads and its ``DETRHead``: one matching for all layers. The losses are mmdet's own."""

    def __init__(self, *args: Any, **kwargs: Any):
        config = kwargs.get("train_cfg")
        if config and config["assigner"]["type"] == "HungarianAssigner":
            kwargs["train_cfg"] = {**config, "assigner": {**config["assigner"], "type": HungarianAssigner}}
        super().__init__(*args, **kwargs)

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        batch_gt_instances: Any,
        batch_img_metas: Any,
        batch_gt_instances_ignore: Any = None,
    ) -> dict[str, Tensor]:
        """The terms of mmdet for all layers, ``(L, B, Q, C)`` and ``(L, B, Q, 4)``."""
        predictions = all_layers_cls_scores, all_layers_bbox_preds
        if batch_gt_instances_ignore is not None:
            raise ValueError(f"{type(self).__name__}: expected no batch_gt_instances_ignore, got some")
        if not self._batched():
            terms: dict[str, Tensor] = super().loss_by_feat(*predictions, batch_gt_instances, batch_img_metas)
            return terms
        targets = self._targets(*predictions, batch_gt_instances, batch_img_metas)
        layers = [
            self.loss_by_feat_single(*layer, batch_img_metas=batch_img_metas) for layer in zip(*predictions, targets)
        ]
        prefixes = ["", *(f"d{i}." for i in range(len(layers) - 1))]  # the last layer comes first
        names = ("loss_cls", "loss_bbox", "loss_iou")
        return {p + name: x for p, layer in zip(prefixes, layers[-1:] + layers) for name, x in zip(names, layer)}

    def get_targets(
        self, cls_scores_list: Any, bbox_preds_list: Any, batch_gt_instances: Any, batch_img_metas: Any
    ) -> tuple[Any, ...]:
        """What mmdet calls targets, of one layer, for each image; the counts are of the objects."""
        if isinstance(batch_gt_instances, _LayerTargets):
            return batch_gt_instances
        if not self._batched():
            targets: tuple[Any, ...] = super().get_targets(
                cls_scores_list, bbox_preds_list, batch_gt_instances, batch_img_metas
            )
            return targets
        layer = torch.stack(list(cls_scores_list))[None], torch.stack(list(bbox_preds_list))[None]
        return self._targets(*layer, batch_gt_instances, batch_img_metas)[0]

    def _batched(self) -> bool:
        return isinstance(self.assigner, HungarianAssigner) and self.assigner.batched

    def _targets(self, scores: Tensor, boxes: Tensor, instances: Sequence[Any], metas: Any) -> list[_LayerTargets]:
        """Of each layer, without a look at what was matched: the device is not waited for."""
        corners = [get_box_tensor(image.bboxes) for image in instances]
        images, queries = scores.shape[1:3]
        room = max(1, *map(len, corners))
        labels, counts = pack_targets([image.labels for image in instances], room)
        sizes = image_sizes(metas, corners[0])
        packed = pack_targets(corners, room)[0] / sizes[:, None, [1, 0, 1, 0]]
        near, far = packed[..., :2], packed[..., 2:]
        targets = torch.cat([(near + far) / 2, far - near], -1)
        match = self.assigner.match(scores, boxes, labels, targets, counts, sizes).target_of_query
        found, index = match >= 0, match.clamp(min=0)
        label = torch.where(found, labels.expand(len(scores), -1, -1).gather(2, index), self.num_classes)
        each = torch.arange(images, device=index.device)[:, None]
        target = targets[each, index] * found[..., None]
        weights = found[..., None].to(target.dtype).expand(target.shape)
        ones = target.new_ones(images, queries)
        positives = sum(min(len(b), queries) for b in corners)
        counted = positives, images * queries - positives
        return [
            _LayerTargets(list(a), list(ones), list(b), list(c), *counted) for a, b, c in zip(label, target, weights)
        ]


class DETRHead(_Matched):
    """The head of DETR with :class:`HungarianAssigner`, one matching for all images and layers.

    The losses, of any types, are mmdet's, and so are the layers. Divisors count the objects, not the matched queries,
    so a query that ``nonfinite="forbid"`` left to the background changes none. An assigner whose costs are not one call
    works as in mmdet, image by image.

    Args:
        kwargs: mmdet's.
    """

    def __init__(self, num_classes: int, *args: Any, loss_cls: Any = _CROSS_ENTROPY, **kwargs: Any):
        loss_cls, background = dict(loss_cls), 0
        weight = loss_cls.get("class_weight")
        if weight is not None:  # mmdet does this in no class but its own
            background = loss_cls.pop("bg_cls_weight", weight)
            loss_cls["class_weight"] = torch.tensor([weight] * num_classes + [background])
        super().__init__(num_classes, *args, loss_cls=loss_cls, **kwargs)
        self.bg_cls_weight = background


class DeformableDETRHead(dense_heads.DeformableDETRHead, _Matched):
    """The head of Deformable DETR, as :class:`DETRHead`; the encoder's proposals are matched apart."""


class ConditionalDETRHead(dense_heads.ConditionalDETRHead, _Matched):
    """The head of Conditional DETR, as :class:`DETRHead`."""


class DABDETRHead(dense_heads.DABDETRHead, _Matched):
    """The head of DAB-DETR, as :class:`DETRHead`."""


class DINOHead(dense_heads.DINOHead, _Matched):
    """The head of DINO, as :class:`DETRHead`; the encoder's proposals are matched apart."""
