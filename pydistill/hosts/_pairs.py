"""What matchers of all hosts share: ragged targets in, pairs of indices on the CPU out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pydistill.losses.detr.prediction import SetTargets
from pydistill.ops import hungarian_match, pack_targets

Pairs = list[tuple[Tensor, Tensor]]


def packed(targets: SetTargets | Sequence[Mapping[str, Tensor]], labels: str) -> SetTargets:
    """The targets of each image under the keys ``labels`` and "boxes"; or those that are packed already."""
    if isinstance(targets, SetTargets):
        return targets
    classes, counts = pack_targets([t[labels] for t in targets])
    boxes, _ = pack_targets([t["boxes"] for t in targets])
    return SetTargets(classes.long(), boxes, counts)


def match_pairs(logits: Tensor, boxes: Tensor, targets: SetTargets, groups: int = 1, **options: Any) -> Pairs:
    """(queries, targets) of each image, int64 on the CPU, sorted by query; ``options`` are ``hungarian_match``'s.

    Queries beyond a multiple of ``groups`` take no part.
    """
    size = logits.shape[1] // groups * groups
    match = hungarian_match(
        logits[:, :size],
        boxes[:, :size],
        targets.labels,
        targets.boxes,
        targets.counts,
        groups=groups,
        **options,
    )
    return pairs_of(match.target_of_query)


def pairs_of(target_of_query: Tensor) -> Pairs:
    """(queries, targets) of each image from (B, Q) with -1 where nobody is matched; the one copy to the CPU."""
    target_of_query = target_of_query.cpu()
    matched = target_of_query >= 0
    sizes = matched.sum(1).tolist()
    queries, targets = matched.nonzero()[:, 1], target_of_query[matched]
    return list(zip(torch.split(queries, sizes), torch.split(targets, sizes)))
