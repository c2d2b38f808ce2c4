"""The losses of DETR, Deformable DETR and LW-DETR in transformers, and of what shares them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pydistill.hosts._pairs import packed
from pydistill.hosts.transformers import _terms as terms_of
from pydistill.hosts.transformers._stages import Losses, Matched, Pair, match_all, stack
from pydistill.hosts.transformers.matchers import (
    DeformableDetrHungarianMatcher,
    HungarianMatcher,
    LwDetrHungarianMatcher,
)
from pydistill.losses.detr.prediction import SetTargets
from pydistill.losses.normalizers import joint_mean

Labels = Sequence[Mapping[str, Tensor]]
Auxiliary = list[dict[str, Any]]
Result = tuple[Tensor, Losses, Auxiliary | None]


def detr_loss(
    logits: Tensor,
    labels: Labels,
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    *,
    nonfinite: str = "finfo_max",
    **kwargs: Any,
) -> Result:
    """The loss of DETR, YOLOS and Table Transformer: cross entropy, L1 distance and GIoU.

    transformers' ``ForObjectDetectionLoss``, with its arguments; what a model hands over is its docstring's.

    Args:
        logits: (B, Q, C + 1), the last class of no object.
        labels: for each image "class_labels" (n,) and "boxes" (n, 4), centre and size in 0 to 1.
        device: not read.
        pred_boxes: (B, Q, 4), as the labels'.
        config: the model's.
        outputs_class: (L, B, Q, C + 1), all decoder stages, with ``config.auxiliary_loss``.
        outputs_coord: (L, B, Q, 4).
        nonfinite: as in ``HungarianMatcher``.
        kwargs: not read.

    Returns:
        The weighted sum, the terms by name, and with ``config.auxiliary_loss`` the earlier stages' "logits" and
        "pred_boxes".
    """
    matcher = HungarianMatcher(config.class_cost, config.bbox_cost, config.giou_cost, nonfinite=nonfinite)
    targets = packed(labels, "class_labels")
    earlier = _earlier(outputs_class, outputs_coord, config)
    divisor = _objects(targets)
    found = []
    for x in match_all(stack((logits, pred_boxes), earlier), targets, matcher.options):
        terms = terms_of.softmax_term(x, targets, config.eos_coefficient)
        found.append((x, {**terms, **_boxes_and_cardinality(x, targets, divisor, softmax=True)}))
    return result(found, _weights(1, config), _auxiliary(earlier))


def deformable_detr_loss(
    logits: Tensor,
    labels: Labels,
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    *,
    nonfinite: str = "finfo_max",
    **kwargs: Any,
) -> Result:
    """The loss of Deformable, Conditional and DAB-DETR: focal loss, L1 distance and GIoU.

    transformers' ``DeformableDetrForObjectDetectionLoss``; arguments and result as in ``detr_loss``, but for C classes.
    """
    costs = config.class_cost, config.bbox_cost, config.giou_cost
    matcher = DeformableDetrHungarianMatcher(*costs, nonfinite=nonfinite)
    targets = packed(labels, "class_labels")
    earlier = _earlier(outputs_class, outputs_coord, config)
    divisor = _objects(targets)
    found = []
    for x in match_all(stack((logits, pred_boxes), earlier), targets, matcher.options):
        terms = terms_of.focal_term(x, targets, config.focal_alpha, divisor)
        found.append((x, {**terms, **_boxes_and_cardinality(x, targets, divisor, softmax=False)}))
    return result(found, _weights(1, config), _auxiliary(earlier))


def lw_detr_loss(
    logits: Tensor,
    labels: Labels,
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    enc_outputs_class: Tensor | None = None,
    enc_outputs_coord: Tensor | None = None,
    *,
    nonfinite: str = "finfo_max",
    **kwargs: Any,
) -> Result:
    """The loss of LW-DETR and of RF-DETR without masks: its own cross entropy of classes, L1 distance and GIoU.

    transformers' ``LwDetrForObjectDetectionLoss``; arguments and result as in ``detr_loss``, but for C classes. Queries
    are in ``config.group_detr`` groups, as there also in evaluation.

    Args:
        enc_outputs_class: (B, Q', C), of the encoder.
        enc_outputs_coord: (B, Q', 4).
    """
    costs = config.class_cost, config.bbox_cost, config.giou_cost
    matcher = LwDetrHungarianMatcher(*costs, nonfinite=nonfinite)
    targets = packed(labels, "class_labels")
    earlier = _earlier(outputs_class, outputs_coord, config)
    encoder = {}
    if enc_outputs_class is not None and enc_outputs_coord is not None:
        encoder["_enc"] = enc_outputs_class, enc_outputs_coord
    divisor = _objects(targets, config.group_detr)
    found = []
    stages = stack((logits, pred_boxes), earlier, encoder)
    for x in match_all(stages, targets, matcher.options, config.group_detr):
        terms = terms_of.quality_term(x, targets, terms_of.matched_iou(x, targets), config.focal_alpha, divisor)
        found.append((x, {**terms, **_boxes_and_cardinality(x, targets, divisor, softmax=False)}))
    return result(found, _weights(config.class_loss_coefficient, config), _auxiliary(earlier))


def _earlier(outputs_class: Tensor | None, outputs_coord: Tensor | None, config: Any) -> Pair | None:
    """All decoder stages but the last, where the config wants their losses."""
    if not config.auxiliary_loss or outputs_class is None or outputs_coord is None:
        return None
    return outputs_class.narrow(0, 0, len(outputs_class) - 1), outputs_coord.narrow(0, 0, len(outputs_coord) - 1)


def _auxiliary(earlier: Pair | None) -> Auxiliary | None:
    return None if earlier is None else [{"logits": x, "pred_boxes": b} for x, b in zip(*earlier)]


def _objects(targets: SetTargets, groups: int = 1) -> Tensor:
    """The number of objects of a process, at least 1: the mean where there are several."""
    return joint_mean({"objects": targets.counts.sum().float() * groups})["objects"].clamp_min(1)


def _boxes_and_cardinality(x: Matched, targets: SetTargets, divisor: Tensor, softmax: bool) -> Losses:
    return {**terms_of.box_terms(x, targets, divisor), **terms_of.cardinality(x, targets, softmax)}


def _weights(classification: float, config: Any) -> dict[str, float]:
    boxes = {"loss_bbox": config.bbox_loss_coefficient, "loss_giou": config.giou_loss_coefficient}
    return {"loss_ce": classification, **boxes}


def result(
    found: Sequence[tuple[Matched, Losses]], weights: Mapping[str, float] | None, auxiliary: Auxiliary | None
) -> Result:
    """What a loss returns. Without ``weights`` all terms are in the sum as they are."""
    if weights is None:
        parts = [t.sum() for _, terms in found for t in terms.values()]
    else:
        parts = [weights[name] * t.sum() for _, terms in found for name, t in terms.items() if name in weights]
    named = {name: t for x, terms in found for name, t in x.named(terms).items()}
    return torch.stack(parts).sum(), named, auxiliary
