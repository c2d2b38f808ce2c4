"""Decoder stages as transformers' models hand them to their loss: stacked, matched in one call, named in the result."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill.losses.detr.prediction import SetPrediction, SetTargets
from pydistill.ops import MatchProblem, hungarian_match_all

Losses = dict[str, Tensor]


class Stages(NamedTuple):
    """S decoder stages with equally many queries."""

    names: Sequence[str]
    """What follows the name of a term, for each stage"""
    logits: Tensor
    """(S, B, Q, C)"""
    boxes: Tensor
    """(S, B, Q, 4)"""

    def problem(self, targets: SetTargets, groups: int, options: Mapping[str, Any]) -> MatchProblem:
        """Their matching; queries beyond a multiple of ``groups`` take no part."""
        size = self.logits.shape[2] // groups * groups
        return MatchProblem(
            self.logits.narrow(2, 0, size),
            self.boxes.narrow(2, 0, size),
            targets.labels,
            targets.boxes,
            targets.counts,
            groups=groups,
            **options,
        )


class Matched(NamedTuple):
    """Stages and who is matched with whom."""

    names: Sequence[str]
    logits: Tensor
    boxes: Tensor
    target_of_query: Tensor
    """(S, B, Q) int64, -1 where nobody is"""

    @property
    def prediction(self) -> SetPrediction:
        """The stages as the losses take them."""
        return SetPrediction(self.logits, self.boxes)

    def part(self, start: int, length: int) -> "Matched":
        """Some of the stages."""
        tensors = (t.narrow(0, start, length) for t in (self.logits, self.boxes, self.target_of_query))
        return Matched(self.names[start : start + length], *tensors)

    def named(self, terms: Mapping[str, Tensor]) -> Losses:
        """Terms (S,) as scalars with the stages' names, stage by stage."""
        rows = {name: values.unbind() for name, values in terms.items()}
        return {term + name: rows[term][s] for s, name in enumerate(self.names) for term in terms}


Pair = tuple[Tensor, Tensor]  # logits and boxes


def stack(last: Pair, earlier: Pair | None, named: Mapping[str, Pair] | None = None, prefix: str = "_") -> list[Stages]:
    """The last stage (B, Q, ...), without a name, the earlier ones (L - 1, B, Q, ...), with numbers, and others like
    the last with their own names; those of another number of queries become stages of their own.
    """
    names, parts, apart = [""], [(last[0].unsqueeze(0), last[1].unsqueeze(0))], []
    if earlier is not None:
        names += [f"{prefix}{i}" for i in range(len(earlier[0]))]
        parts.append(earlier)
    for name, (logits, boxes) in (named or {}).items():
        if logits.shape == last[0].shape:
            names.append(name)
            parts.append((logits.unsqueeze(0), boxes.unsqueeze(0)))
        else:
            apart.append(Stages([name], logits.unsqueeze(0), boxes.unsqueeze(0)))
    together = parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts)))
    return [Stages(names, *together), *apart]


def match_all(
    stages: Sequence[Stages], targets: SetTargets, options: Mapping[str, Any], groups: int = 1
) -> list[Matched]:
    """Everything in one call."""
    matches = hungarian_match_all([s.problem(targets, groups, options) for s in stages])
    matched = []
    for s, match in zip(stages, matches):
        rest = s.logits.shape[2] - match.target_of_query.shape[-1]
        target_of_query = torch.nn.functional.pad(match.target_of_query, (0, rest), value=-1)
        matched.append(Matched(*s, target_of_query))
    return matched
