"""What the terms of one step of ``LDLoss`` share, each computed when it is first read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pydistill.losses.ld.prediction import DensePrediction, Parts, by_level, each, joined, shape_of
from pydistill.losses.ld.presets import Detector, LDRules
from pydistill.losses.ld.regions import vlr_weight
from pydistill.losses.ld.targets import Scene, Targets, targets_of
from pydistill.losses.normalizers import joint_mean
from pydistill.losses.once import once
from pydistill.ops import distance_to_box, integral
from pydistill.ops._register import accumulator
from pydistill.ops._shared_gradient import share_gradient


@dataclass
class Settings:
    """Of ``LDLoss``, whose documentation has the fields."""

    detector: Detector
    rules: LDRules
    weights: dict[str, float]
    gamma: float
    temperature: float
    kd_temperature: float
    imitation_region: str


@dataclass
class Step:
    """One batch."""

    settings: Settings
    on: set[str]  # terms that are asked for
    student: DensePrediction
    teacher: DensePrediction
    scene: Scene
    features: tuple[Sequence[Tensor], Sequence[Tensor]]

    @once
    def dtype(self) -> torch.dtype:
        """Of all numbers but the inputs."""
        return accumulator(self.student.dtype)

    @once
    def logits(self) -> Parts:
        """(B, A, C): the student's; their losses share one gradient."""
        return each(self.student.logits, share_gradient)

    @once
    def distributions(self) -> Parts:
        """(B, A, 4, n): the student's; their losses share one gradient."""
        return each(self.student.distributions(), share_gradient)

    @once
    def targets(self) -> Targets:
        """What each anchor learns."""
        return targets_of(self.scene, self.settings.detector.assigner, shape_of(self.student.logits)[2], self.dtype)

    @once
    def scores(self) -> Tensor | None:
        """(B, A, C): the student's joint probabilities, of detectors that predict them."""
        return self.joint_scores(self.student)

    @once
    def score(self) -> Tensor:
        """(B, A): the student's largest class probability, a constant."""
        if self.scores is not None:
            return self.scores.detach().amax(-1).to(self.dtype)
        return by_level(lambda x: x.detach().amax(-1), self.logits).to(self.dtype).sigmoid()

    def joint_scores(self, prediction: DensePrediction) -> Tensor | None:
        """(B, A, C): probabilities of class and quality, of detectors that predict them."""
        scores = prediction.scores if self.settings.detector.classification == "quality_of_scores" else None
        return None if scores is None else joined(scores)

    @once
    def main_weight(self) -> Tensor:
        """(B, A): how sure the student is, 0 where not positive."""
        return self.score * self.targets.positive

    @once
    def region_weight(self) -> Tensor:
        """(B, A): 0 outside the valuable localization region."""
        s = self.settings
        weight = vlr_weight(self.scene, self.targets, s.rules, s.detector.assigner, s.gamma)
        return weight * self.score if s.rules.vlr_weight == "score" else weight

    @once
    def centerness_target(self) -> Tensor:
        """(B, A): 0 where not positive."""
        return self.targets.centerness()

    @once
    def box_weight(self) -> Tensor:
        """(B, A): of the terms of boxes."""
        kind = self.settings.detector.box_weight
        if kind == "score":
            return self.main_weight
        return self.centerness_target if kind == "centerness" else self.targets.positive.to(self.dtype)

    @once
    def _decoded(self) -> Tensor | None:
        """Which boxes are needed; None: all."""
        everywhere = "imitation" in self.on and self.settings.imitation_region == "general_instance"
        return None if everywhere else self.targets.positive.unsqueeze(-1)

    @once
    def student_boxes(self) -> Tensor:
        """(B, A, 4) in strides; the points where a box is not needed."""
        return distance_to_box(self.targets.points, self._distances(self.distributions))

    @once
    def teacher_boxes(self) -> Tensor:
        """The same of the teacher, constants."""
        return distance_to_box(self.targets.points, self._distances(self.teacher.detach().distributions())).to(
            self.dtype
        )

    def _distances(self, distributions: Parts) -> Tensor:
        if self._decoded is None:
            return by_level(integral, distributions)
        return by_level(lambda x, needed: integral(x, mask=needed), distributions, self._decoded)

    @once
    def divisors(self) -> dict[str, Tensor]:
        """0-dim, means over the processes where rules ask for it, by what they count."""
        on, rules, positive = self.on, self.settings.rules, self.targets.positive
        count = positive.sum(1)
        floored = count if rules.samples == "batch" else count.clamp(min=1)
        sums = {"samples": floored.sum().to(self.dtype)}
        local = sums["samples"]
        if self.settings.detector.box_weight != "one" and on & {"box", "dfl", "pseudo_box"}:
            sums["box"] = self.box_weight.sum() + rules.box_offset
        if on & {"main_ld", "vlr_ld"} and rules.ld_normalizer == "images":
            sums["images"] = local.new_empty(()).fill_(len(positive))
        if "main_kd" in on and rules.kd_normalizer == "rows":
            sums["positives"] = count.sum().to(self.dtype)
        if "vlr_kd" in on and rules.kd_normalizer == "rows":
            sums["region"] = (self.region_weight > 0).sum().to(self.dtype)
        found = joint_mean(sums)
        if rules.samples == "process":
            found = found | {"samples": local}
        elif rules.samples == "batch":
            found = found | {"samples": found["samples"].clamp(min=1)}
        return {"box": found["samples"]} | found
