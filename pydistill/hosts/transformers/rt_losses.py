"""The losses of RT-DETR and D-FINE in transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pydistill.hosts._pairs import packed
from pydistill.hosts.transformers import _terms as terms_of
from pydistill.hosts.transformers._d_fine import Sides, local_terms
from pydistill.hosts.transformers._stages import Losses, Matched, Pair, match_all, stack
from pydistill.hosts.transformers.losses import Auxiliary, Labels, Result, result
from pydistill.hosts.transformers.matchers import RTDetrHungarianMatcher
from pydistill.losses.detr.prediction import SetTargets

Denoising = Mapping[str, Any]


def rt_detr_loss(
    logits: Tensor,
    labels: Labels,
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    enc_topk_logits: Tensor | None = None,
    enc_topk_bboxes: Tensor | None = None,
    denoising_meta_values: Denoising | None = None,
    *,
    nonfinite: str = "finfo_max",
    **kwargs: Any,
) -> Result:
    """The loss of RT-DETR and RT-DETRv2: varifocal loss, L1 distance and GIoU.

    transformers' ``RTDetrForObjectDetectionLoss``, with its arguments. Denoising queries come before the others and
    have their own targets.

    Args:
        logits: (B, Q, C), with the denoising queries, as all that follows.
        labels: for each image "class_labels" (n,) and "boxes" (n, 4), centre and size in 0 to 1.
        device: not read.
        pred_boxes: (B, Q, 4), as the labels'.
        config: the model's.
        outputs_class: (B, L, Q, C), all decoder stages; read, as the next three, with ``config.auxiliary_loss``.
        outputs_coord: (B, L, Q, 4).
        enc_topk_logits: (B, Q', C), of the encoder.
        enc_topk_bboxes: (B, Q', 4).
        denoising_meta_values: "dn_num_split", how many queries are denoising ones and how many not, "dn_num_group",
            and "dn_positive_idx", for each image which denoising queries have a target: its first to its last, again
            for each group.
        nonfinite: as in ``HungarianMatcher``.
        kwargs: not read.

    Returns:
        The sum of the weighted terms, these by name, and with ``config.auxiliary_loss`` the other stages' "logits" and
        "pred_boxes".
    """
    decoder, encoder = (outputs_class, outputs_coord), (enc_topk_logits, enc_topk_bboxes)
    return _loss(labels, config, (logits, pred_boxes), decoder, encoder, denoising_meta_values, nonfinite)


def d_fine_loss(
    logits: Tensor,
    labels: Labels,
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    enc_topk_logits: Tensor | None = None,
    enc_topk_bboxes: Tensor | None = None,
    denoising_meta_values: Denoising | None = None,
    predicted_corners: Tensor | None = None,
    initial_reference_points: Tensor | None = None,
    *,
    nonfinite: str = "finfo_max",
    **kwargs: Any,
) -> Result:
    """The loss of D-FINE: that of RT-DETR, and of the distributions over the offsets of box sides.

    transformers' ``DFineForObjectDetectionLoss``; arguments and result as in ``rt_detr_loss``, and

    Args:
        predicted_corners: (B, L, Q, 4 (n + 1)), logits of the distributions.
        initial_reference_points: (B, L, Q, 4), the boxes whose sides are offset, centre and size.
    """
    boxes, coordinates, encoded = (
        None if b is None else b.clamp(0, 1) for b in (pred_boxes, outputs_coord, enc_topk_bboxes)
    )
    decoder = outputs_class, coordinates, predicted_corners, initial_reference_points
    encoder = enc_topk_logits, encoded
    return _loss(labels, config, (logits, boxes), decoder, encoder, denoising_meta_values, nonfinite)


def _loss(
    labels: Labels,
    config: Any,
    last: Sequence[Any],
    decoder: Sequence[Any],
    encoder: Any,
    denoising: Denoising | None,
    nonfinite: str,
) -> Result:
    """Of logits and boxes; those of ``decoder`` (B, L, Q, ...) are followed by D-FINE's corners and references."""
    targets = packed(labels, "class_labels")
    objects = targets.counts.sum().float().clamp_min(1)
    first = 0 if denoising is None else denoising["dn_num_split"][0]
    stages = [t.transpose(0, 1) for t in decoder] if config.auxiliary_loss else []  # (L, B, Q, ...)
    normal = [t.narrow(2, first, t.shape[2] - first) for t in stages]
    least = min(map(len, normal), default=0)  # D-FINE has one more of logits and boxes, and zip ends with the shortest
    earlier = [t.narrow(0, 0, least - 1) for t in normal]
    more = {f"_aux_{len(earlier[0])}": encoder} if earlier else {}
    logits, boxes = (t.narrow(1, first, t.shape[1] - first) for t in last)
    options = RTDetrHungarianMatcher(config, nonfinite=nonfinite).options
    matched = match_all(stack((logits, boxes), _pair(earlier), more, "_aux_"), targets, options)
    found = [(x, _terms(x, targets, config, objects)) for x in matched]
    if len(normal) > 2:
        x = matched[0].part(1, len(earlier[0]))
        found.append((x, _local(x, targets, config, objects, normal)))
    if stages and denoising is not None:
        own = [t.narrow(2, 0, first) for t in stages]
        names = [f"_dn_{i}" for i in range(least)]
        target_of_query = _of_denoising(denoising, targets, first).expand(least, -1, -1)
        x = Matched(names, own[0].narrow(0, 0, least), own[1].narrow(0, 0, least), target_of_query)
        divisor = objects * denoising["dn_num_group"]
        found.append((x, _terms(x, targets, config, divisor)))
        if len(own) > 2:
            found.append((x, _local(x, targets, config, divisor, own)))
    weighted = [(x, {name: t * getattr(config, f"weight_{name}") for name, t in terms.items()}) for x, terms in found]
    return result(weighted, None, _auxiliary(normal, least - 1, encoder) if stages else None)


def _pair(tensors: Sequence[Tensor]) -> Pair | None:
    return (tensors[0], tensors[1]) if tensors else None


def _terms(x: Matched, targets: SetTargets, config: Any, divisor: Tensor) -> Losses:
    alpha, gamma = config.focal_loss_alpha, config.focal_loss_gamma
    classes = terms_of.varifocal_term(x, targets, alpha, gamma, divisor)
    return {**classes, **terms_of.box_terms(x, targets, divisor)}


def _local(x: Matched, targets: SetTargets, config: Any, divisor: Tensor, stages: Sequence[Tensor]) -> Losses:
    """Of the first ``stages``; the last teaches them."""
    own = [t.narrow(0, 0, len(x.names)) for t in stages]
    last = [t.select(0, len(t) - 1) for t in stages]
    sides = Sides(own[2], own[3], last[2], last[0])
    return local_terms(x, targets, terms_of.matched_iou(x, targets), sides, config, divisor)


def _of_denoising(denoising: Denoising, targets: SetTargets, queries: int) -> Tensor:
    """(B, queries): the target of each denoising query, -1 for the negative ones."""
    positive = [q.to(targets.counts.device) for q in denoising["dn_positive_idx"]]
    places = torch.nn.utils.rnn.pad_sequence(positive, batch_first=True, padding_value=queries)
    turn = torch.arange(places.shape[1], device=places.device) % targets.counts.clamp_min(1).unsqueeze(1)
    nobody = turn.new_full((len(places), queries + 1), -1)
    return nobody.scatter(1, places, turn).narrow(1, 0, queries)


def _auxiliary(stages: Sequence[Tensor], earlier: int, encoder: Any) -> Auxiliary:
    """The stages whose losses are beside the last one's, under transformers' names."""
    parts = [t.unbind() for t in stages]
    if len(parts) > 2:
        parts += [(t[-1],) * earlier for t in (parts[2], parts[0])]
    names = ("logits", "pred_boxes", "pred_corners", "ref_points", "teacher_corners", "teacher_logits")
    return [*(dict(zip(names, tensors)) for tensors in zip(*(p[:earlier] for p in parts))), dict(zip(names, encoder))]
