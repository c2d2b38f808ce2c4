"""What the terms of one step of ``DETRDistillLoss`` share, each computed when it is first read."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pydistill.losses.detr.prediction import SetPrediction, SetTargets
from pydistill.losses.detr.presets import Detector, DETRRules, pair_weights
from pydistill.losses.normalizers import joint_mean
from pydistill.losses.once import once
from pydistill.ops import MatchProblem, hungarian_match_all, linear_sum_assignment, match_cost
from pydistill.ops._matched import matched, of_queries
from pydistill.ops._register import accumulator


@dataclass
class Settings:
    """Of ``DETRDistillLoss``, whose documentation has the fields."""

    detector: Detector
    matching: str  # preset for annotated boxes
    rules: DETRRules
    weights: dict[str, float]
    region: str


def picked(values: Tensor, stages: list[int]) -> Tensor:
    """Those stages (L, ...) of ``values``; a view where they are all of them, or one alone."""
    if stages == list(range(len(values))):
        return values
    if len(set(stages)) == 1:
        return values.narrow(0, stages[0], 1).expand(len(stages), *values.shape[1:])
    return torch.stack([values.select(0, k) for k in stages])


def of_stages(prediction: SetPrediction, stages: list[int]) -> SetPrediction:
    """Those stages of a prediction."""
    queries = None if prediction.queries is None else picked(prediction.queries, stages)
    return replace(
        prediction, logits=picked(prediction.logits, stages), boxes=picked(prediction.boxes, stages), queries=queries
    )


@dataclass
class Step:
    """One batch."""

    settings: Settings
    on: set[str]  # terms that are asked for
    student: SetPrediction
    all_of_teacher: SetPrediction  # constants
    targets: SetTargets
    group: SetPrediction
    stages: list[int]  # the teacher's, for each of the student's
    paired_stages: list[int]  # the same for instances and relation

    @once
    def dtype(self) -> torch.dtype:
        """Of all numbers but the inputs."""
        return accumulator(self.student.logits.dtype)

    @once
    def teacher(self) -> SetPrediction:
        """One stage for each of the student's."""
        return of_stages(self.all_of_teacher, self.stages)

    @once
    def paired_teacher(self) -> SetPrediction:
        """The stages that instances and relation are compared with."""
        if self.paired_stages == self.stages:
            return self.teacher
        return of_stages(self.all_of_teacher, self.paired_stages)

    @once
    def pair_weights(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of positive and negative pairs: in the class term, and in those of the box."""
        return pair_weights(self.settings.rules)

    @once
    def _needed(self) -> set[str]:
        """Who is matched with whom."""
        on, rules, needed = self.on, self.settings.rules, set()
        if on & {"classification", "l1", "giou"}:
            needed.add("student")
        if on & {"instance_class", "instance_l1", "instance_giou"}:
            needed.add("pairs")
            if any(a != b for a, b in self.pair_weights) or rules.instance_divisor == "positives":
                needed.add("instances")
        if "relation" in on:
            needed.add("pairs")
        if on & {"group_classification", "group_l1", "group_giou"}:
            needed.add("group")
        return needed

    @once
    def _taught_stages(self) -> list[int]:
        """The teacher's stages whose matching with annotated boxes is needed."""
        stages = set(self.paired_stages) if "instances" in self._needed else set()
        if "group" in self._needed and self.settings.rules.assignment == "teacher":
            stages |= set(self.stages)
        return sorted(stages)

    @once
    def _matches(self) -> dict[str, Tensor]:
        """For each query (L, B, Q) what it is matched with, -1 for nothing: all matchings of the step in one call."""
        problems = {}
        if "student" in self._needed:
            problems["student"] = self._annotated(self.student)
        if self._taught_stages:
            problems["teacher"] = self._annotated(of_stages(self.all_of_teacher, self._taught_stages))
        if "group" in self._needed and self.settings.rules.assignment == "rematch":
            problems["group"] = self._annotated(self.group)
        softmax = self.settings.detector.form == "softmax"
        if "pairs" in self._needed and not softmax:
            problems["pairs"] = self._paired()
        found = hungarian_match_all(list(problems.values()))
        matches = {name: match.target_of_query for name, match in zip(problems, found, strict=True)}
        if "pairs" in self._needed and softmax:
            matches["pairs"] = self._softmax_pairs()
        return matches

    def _annotated(self, prediction: SetPrediction) -> MatchProblem:
        t = self.targets
        return MatchProblem(
            prediction.logits.detach(),
            prediction.boxes.detach(),
            t.labels,
            t.boxes,
            t.counts,
            preset=self.settings.matching,
            image_sizes=t.image_sizes,
        )

    def _paired(self) -> MatchProblem:
        """Costs of DETRDistill: cross entropy with the teacher's probabilities, L1, GIoU."""
        student, teacher = self.student, self.paired_teacher
        return MatchProblem(
            student.logits.detach(),
            student.boxes.detach(),
            None,
            teacher.boxes,
            class_cost="soft_bce",
            target_scores=teacher.logits.to(self.dtype).sigmoid(),
            **self._pair_options(),
        )

    def _softmax_pairs(self) -> Tensor:
        """The same with the cost that DETR has of classes: minus the expected probability of the teacher's class."""
        student, teacher = self.student.logits.detach().to(self.dtype), self.paired_teacher.logits.to(self.dtype)
        boxes = self.student.boxes.detach(), None, self.paired_teacher.boxes
        cost = match_cost(student, *boxes, class_cost="none", **self._pair_options())
        cost = cost - self.settings.rules.instance_weights[0] * student.softmax(-1) @ teacher.softmax(-1).mT
        found = linear_sum_assignment(cost.flatten(0, 1)).column_of_row
        return found.view(student.shape[:3])

    def _pair_options(self) -> dict[str, Any]:
        rules = self.settings.rules
        return dict(
            weights=dict(zip(("class", "l1", "giou"), rules.instance_weights, strict=True)),
            clamp_targets=rules.clamp_teacher,
            giou_eps=rules.giou_eps,
            image_sizes=self.image_sizes,
        )

    @once
    def image_sizes(self) -> Tensor | None:
        """What ``giou_eps`` is measured in."""
        return self.targets.image_sizes if self.settings.rules.pixels else None

    @once
    def student_match(self) -> Tensor:
        """(L, B, Q): the annotated box of each query."""
        return self._matches["student"]

    @once
    def pairs(self) -> Tensor:
        """(L, B, Q): the teacher's query of each of the student's."""
        return self._matches["pairs"]

    @once
    def group_match(self) -> Tensor:
        """(L, B, Qt): the annotated box of each query of the group."""
        if self.settings.rules.assignment == "rematch":
            return self._matches["group"]
        return self._taught(self.stages)

    @once
    def positive(self) -> Tensor | None:
        """(L, B, Qt): which of the teacher's queries have an annotated box; None where it makes no difference."""
        if "instances" not in self._needed:
            return None
        return matched(self._taught(self.paired_stages), self.targets.labels.shape[1])

    def _taught(self, stages: list[int]) -> Tensor:
        return picked(self._matches["teacher"], [self._taught_stages.index(k) for k in stages])

    @once
    def positive_pairs(self) -> Tensor:
        """(L, B, Q) bool: queries whose pair is positive."""
        assert self.positive is not None
        found = of_queries(self.positive, self.pairs, -1)
        return found & matched(self.pairs, self.positive.shape[-1])

    @once
    def _own(self) -> dict[str, Tensor]:
        """What this process has of each number that something is divided by."""
        on, rules, t = self.on, self.settings.rules, self.targets
        new = t.counts.new_empty((), dtype=self.dtype)
        images, queries = len(t.counts), min(self.student.logits.shape[2], self.all_of_teacher.logits.shape[2])
        numbers = {"boxes": t.counts.clamp(0, t.labels.shape[1]).sum().to(self.dtype)}
        if "feature" in on:
            numbers["images"] = torch.empty_like(new).fill_(images)
        if on & {"instance_class", "instance_l1", "instance_giou"}:
            if rules.instance_divisor == "positives":
                numbers["pairs"] = self.positive_pairs.sum((1, 2)).to(self.dtype)
            else:
                numbers["pairs"] = torch.empty_like(new).fill_(images * queries)
        return numbers

    @once
    def _joint(self) -> dict[str, Tensor]:
        return joint_mean(self._own)

    def divisor(self, name: str, scope: str = "joint") -> Tensor:
        """Means over the processes, or this process' own: "boxes", "images", or "pairs" of each stage or of all."""
        number = (self._joint if scope == "joint" else self._own)[name]
        positives = name == "pairs" and self.settings.rules.instance_divisor == "positives"
        return number.clamp(min=1) if name == "boxes" or positives else number
