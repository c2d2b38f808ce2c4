"""DETRDistillLoss: the paper's objective, restated, for every detector and switch."""

import pytest

from pydistill.losses import DETRDistillLoss
from tests.conformance import assert_close, relative_error
from tests.losses import detr_restated as restated
from tests.losses.detr_scene import DETECTORS, gradients, prediction, targets

CASES = {
    **{name: (name, {}, {}) for name in DETECTORS},
    "last stage": ("deformable_detr", dict(instance_stage="last"), dict(paired=[2, 2])),
    "last stage of DETR": ("detr", dict(instance_stage="last", pairs="all"), dict(paired=[2, 2], pairs=("all", "all"))),
    "given stages": ("deformable_detr", dict(stages=[0, 1]), dict(stages=[0, 1])),
    "negatives": ("deformable_detr", dict(pairs="negatives"), dict(pairs=("negatives", "negatives"))),
    "positives": ("deformable_detr", dict(pairs="positives"), dict(pairs=("positives", "positives"))),
    "classes of all, boxes of positives": (
        "deformable_detr",
        dict(instance_class_pairs="all", instance_box_pairs="positives"),
        dict(pairs=("all", "positives")),
    ),
    "over the positives": ("deformable_detr", dict(instance_divisor="positives"), dict(divisor="positives")),
    "re-matched group": ("deformable_detr", dict(assignment="rematch"), dict(assignment="rematch")),
    "all queries' masks": ("deformable_detr", dict(feature_region="query"), dict(region="query")),
    "box masks": ("deformable_detr", dict(feature_region="boxes"), dict(region="boxes")),
    "no masks": ("deformable_detr", dict(feature_region="none"), dict(region="none")),
    "few queries' masks": ("detr", dict(gamma=0.2, topk=3), dict(gamma=0.2, topk=3)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "queries"), [*((case, 8) for case in CASES), ("deformable_detr", 16), ("detr", 16), ("adamixer", 12)]
)
def test_objective_is_the_restated_one(case, queries):
    """Of a student with two stages and 12 queries, a teacher with three stages and fewer, more or as many queries."""
    detector, options, told = CASES[case]
    student, group = prediction(0, detector=detector, grad=True), prediction(2, 2, queries, detector, grad=True)
    teacher = prediction(1, 3, queries, detector)
    got = DETRDistillLoss(detector=detector, relation=1.0, **options)(student, teacher, targets(), group=group)
    want = restated.objective(student, teacher, targets(), group, detector=detector, **{"stages": [1, 2], **told})
    assert set(got) == set(want)
    for name in got:
        assert relative_error(got[name], want[name]) < 1e-9, name
    assert_close(gradients(got, student, group), gradients(want, student, group), 1e-9)
