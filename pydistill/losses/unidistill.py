"""Cross-modality distillation in bird's-eye view (UniDistill)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pydistill.adapters import Adapter, adapt, build_adapters
from pydistill.losses.normalizers import joint_mean
from pydistill.losses.options import Loss, check_not_negative, printed
from pydistill.ops import (
    BEVGrid,
    box_keypoints,
    gaussian_region,
    keypoint_feature_loss,
    keypoint_relation_loss,
    response_loss,
)
from pydistill.ops._keypoints import used_boxes
from pydistill.ops.bev_grid import check_grid
from pydistill.ops.response_loss import check_options

Path = Literal["camera_from_lidar", "camera_from_fusion", "lidar_from_camera", "lidar_from_fusion", "same_modality"]
Reference = Literal["paper", "released"]
Formula = Literal["released", "corrected"]


@dataclass(frozen=True)
class BEVPrediction:
    """What a detector in bird's-eye view holds and answers for B samples; (B, C, H, W) tensors, rows along y."""

    low: Tensor | None = None
    """Features before the encoder of the view."""
    high: Tensor | None = None
    """Features behind it, that the heads read."""
    heatmaps: Sequence[Tensor] = field(default=())
    """Logits of the classes, one tensor a task."""
    regressions: Sequence[Tensor] = field(default=())
    """Numbers of the boxes, any number of tensors."""


@dataclass(frozen=True)
class _Weights:
    feature: float
    relation: float
    response: float
    teacher_clamp: float = 1e-4  # as released


PATHS: dict[str, _Weights] = {
    "camera_from_lidar": _Weights(100, 40, 10),
    "camera_from_fusion": _Weights(10, 5, 10, 1e-3),
    "lidar_from_camera": _Weights(10, 5, 1),
    "lidar_from_fusion": _Weights(10, 1, 10),
    "same_modality": _Weights(10, 5, 10),
}


class UniDistillLoss(Loss):
    r"""What a teacher of any modality knows of the boxes in bird's-eye view: features, relations and answers.

    ============ =====================================================================================================
    feature      ``keypoint_feature_loss`` of the low features at nine points of each box
    relation     ``keypoint_relation_loss`` of the high features at these points
    classes      ``response_loss`` near the centres of the boxes: of the strongest class,
    numbers      and of the regressed numbers
    ============ =====================================================================================================

    times their weights; the last two share one. The numbers of boxes and the size of the region are means over all
    processes, so that two processes with half a batch each give the gradients of one with the whole batch.

    Where the teacher is worse than the student, as a camera for LiDAR, the paper lets a convolution stand between the
    student's features and the losses. It trains with the student: hand ``loss.parameters()`` to the optimiser as well.

    Args:
        grid: the cells of heads and region. Feature maps of another size span the same ground.
        path: student and teacher: ``"camera_from_lidar"``, ``"camera_from_fusion"``, ``"lidar_from_camera"``,
            ``"lidar_from_fusion"``, whose weights are the paper's, or ``"same_modality"``, which the paper does not
            have.
        reference: ``"paper"``, or ``"released"``: reads the maps at (v, u), lets an empty sample count as one box of no
            size at the origin unless all are empty, paints the origin for each padded row up to the fullest sample, and
            has the teacher's clamp of 1e-3 of its camera from fusion.
        feature, relation, response: Weights. None: of ``path``. A term of weight 0 is not computed.
        low_adapter, high_adapter: What stands between the student's features and the losses: an
            :class:`pydistill.adapters.Adapter` of kind "1x1" or "3x3", a module, or None. That of a term of weight 0 is
            left out, as DDP wants a gradient of each parameter.
        teacher_temperature: Of the teacher's logits, > 0.
        teacher_clamp, swap_xy: Override what ``reference`` says: how far the teacher's probabilities stay from 0 and 1,
            in [0, 1/2), and whether the maps are read at (v, u).
        formula: Of the region's radii, as in :func:`pydistill.ops.gaussian_region`. None: ``"released"``, as the paper
            has none.

    Raises:
        ValueError: for values outside the above.
        TypeError: for a grid that is no ``BEVGrid``.

    Reference:
        Zhou et al. 2023 (UniDistill), arXiv:2303.15083, section 3; megvii-research/CVPR2023-UniDistill.
    """

    @printed("grid", "path", "reference")
    def __init__(
        self,
        grid: BEVGrid,
        *,
        path: Path = "camera_from_lidar",
        reference: Reference = "paper",
        feature: float | None = None,
        relation: float | None = None,
        response: float | None = None,
        low_adapter: Adapter | nn.Module | None = None,
        high_adapter: Adapter | nn.Module | None = None,
        teacher_temperature: float = 2.0,
        teacher_clamp: float | None = None,
        swap_xy: bool | None = None,
        formula: Formula | None = None,
    ):
        super().__init__()
        check_grid("UniDistillLoss", grid)
        for name, value, known in (
            ("path", path, tuple(PATHS)),
            ("reference", reference, get_args(Reference)),
            ("swap_xy", swap_xy, (None, False, True)),
            ("formula", formula, (None, *get_args(Formula))),
        ):
            if value not in known:
                raise ValueError(f"UniDistillLoss: expected {name} in {known}, got {value!r}")
        preset = PATHS[path]
        self.weights = {
            name: getattr(preset, name) if value is None else float(value)
            for name, value in (("feature", feature), ("relation", relation), ("response", response))
        }
        check_not_negative("UniDistillLoss", self.weights)
        self.grid, self.released = grid, reference == "released"
        preset_clamp = preset.teacher_clamp if self.released else 1e-4
        self.teacher_clamp = preset_clamp if teacher_clamp is None else float(teacher_clamp)
        check_options("UniDistillLoss", teacher_temperature, self.teacher_clamp)
        self.teacher_temperature = teacher_temperature
        self.swap_xy = self.released if swap_xy is None else swap_xy
        self.formula = "released" if formula is None else formula
        used = low_adapter if self.weights["feature"] else None, high_adapter if self.weights["relation"] else None
        self.adapters = build_adapters(used, "unidistill")

    def forward(
        self, student: BEVPrediction, teacher: BEVPrediction, boxes: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """The weighted terms.

        Args:
            student: Of B samples. What a term of weight 0 would need may be missing.
            teacher: The same, a constant; feature maps of the adapted student's shapes, heads of the student's.
            boxes: (B, M, 7 or more): x, y, z, l, w, h in metres, the yaw in radians; padded.
            valid: (B, M) bool: which of them are real. One that is inverted or not finite does not count.

        Returns:
            Of each term that is on its 0-dim loss, weighted. Their sum is the loss.

        Raises:
            ValueError: if shapes are not as above, or student and teacher do not fit each other, which are both named.
        """
        boxes, valid, painted = self._boxes(boxes.detach(), valid)
        points = box_keypoints(boxes, self.grid)
        region = gaussian_region(boxes, painted, self.grid, formula=self.formula)
        used = used_boxes(points, valid) & (boxes.narrow(-1, 3, 2) >= 0).all(-1)
        divisors = joint_mean({"boxes": used.sum().to(region.dtype), "region": region.sum()})
        terms = {}
        if self.weights["feature"]:
            ours, theirs = self._features(student.low, teacher.low, "low")
            terms["feature"] = self.weights["feature"] * keypoint_feature_loss(
                ours, theirs, self._on(points, ours), used, swap_xy=self.swap_xy, normalizer=divisors["boxes"]
            )
        if self.weights["relation"]:
            ours, theirs = self._features(student.high, teacher.high, "high")
            terms["relation"] = self.weights["relation"] * keypoint_relation_loss(
                ours, theirs, self._on(points, ours), used, swap_xy=self.swap_xy, normalizer=divisors["boxes"]
            )
        if self.weights["response"]:
            losses = response_loss(
                student.heatmaps,
                teacher.heatmaps,
                student.regressions,
                teacher.regressions,
                region,
                teacher_temperature=self.teacher_temperature,
                teacher_clamp=self.teacher_clamp,
                normalizer=divisors["region"],
            )
            terms["classes"] = self.weights["response"] * losses.classes
            terms["numbers"] = self.weights["response"] * losses.numbers
        return terms

    def _boxes(self, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, those whose points are read, and those that paint the region."""
        if not self.released or boxes.ndim != 3 or valid.shape != boxes.shape[:2]:  # the operators say what is wrong
            return boxes, valid, valid
        boxes = boxes.where(valid.unsqueeze(-1), 0)
        fullest = valid.any(0)  # rows up to the fullest sample's count: the released loader pads no further
        first = torch.arange(valid.shape[1], device=valid.device) == 0
        return boxes, valid | (first & fullest.any()), fullest.expand_as(valid)

    def _features(self, ours: Tensor | None, theirs: Tensor | None, level: str) -> tuple[Tensor, Tensor]:
        if ours is None or theirs is None:
            who = "student" if ours is None else "teacher"
            raise ValueError(f"UniDistillLoss: expected {level} features of the {who}, got none")
        adapted = adapt(self.adapters[0 if level == "low" else 1], ours)
        if adapted.ndim != 4 or adapted.shape != theirs.shape:
            got = f"{list(adapted.shape)} of the student and {list(theirs.shape)} of the teacher"
            hint = f"; give {level}_adapter" if adapted.shape[2:] == theirs.shape[2:] else ""
            raise ValueError(f"UniDistillLoss: expected {level} features (B, C, H, W) of one shape, got {got}{hint}")
        return adapted, theirs

    def _on(self, points: Tensor, feature: Tensor) -> Tensor:
        h, w = feature.shape[2:]
        if (h, w) == (self.grid.height, self.grid.width):
            return points
        u, v = points.unbind(-1)
        return torch.stack([u * (w / self.grid.width), v * (h / self.grid.height)], -1)
