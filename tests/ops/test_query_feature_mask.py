import pytest
import torch

from pydistill.ops import masked_feature_loss, query_feature_mask
from pydistill.ops.query_feature_mask import query_feature_mask_reference
from tests.conformance import relative_error
from tests.golden import golden

Z = {k: torch.tensor(v) for k, v in golden("detr_distill").items() if v.dtype.kind in "if"}


@pytest.mark.parametrize("fn", [query_feature_mask, query_feature_mask_reference])
def test_golden(fn):
    """The released code's masks, from its gathered queries and from all of them with an index."""
    maps = [Z[f"tf_teacher_feat_{n}"] for n in range(3)]
    for queries, index in ((Z["tf_queries"], None), (Z["tf_hs"], Z["tf_query_index"])):
        for n, got in enumerate(fn(queries, Z["tf_scores"], maps, index=index)):
            want = torch.stack([Z[f"tf_mask_{stage}_{n}"] for stage in range(3)])
            assert relative_error(got, want) < 1e-12


def test_golden_loss():
    """Feature distillation of three stages on three levels: a loss of each stage, and of all at once its gradient."""
    maps = [Z[f"tf_teacher_feat_{n}"] for n in range(3)]
    masks = query_feature_mask(Z["tf_queries"], Z["tf_scores"], maps)
    stages, total = torch.zeros(3, dtype=torch.float64), 0
    students = [Z[f"tf_student_feat_{n}"].clone().requires_grad_() for n in range(3)]
    for student, teacher, mask in zip(students, maps, masks, strict=True):
        stages += torch.stack([masked_feature_loss(student, teacher, m, mask_power=2).detach() for m in mask])
        total = total + masked_feature_loss(student, teacher, mask.square().sum(0))
    assert relative_error(stages, Z["tf_feat_loss"]) < 1e-12
    assert relative_error(total, Z["tf_feat_loss"].sum()) < 1e-12
    for n, gradient in enumerate(torch.autograd.grad(total, students)):
        assert relative_error(gradient, Z[f"tf_grad_student_feat_{n}"]) < 1e-10
    masks = query_feature_mask(Z["tf_queries"], torch.zeros_like(Z["tf_scores"]), maps)
    for mask in masks:
        assert (mask == 1).all()
    plain = sum(masked_feature_loss(s, t, m[0]).detach() for s, t, m in zip(students, maps, masks))
    assert relative_error(plain.expand(3), Z["tf_feat_loss_zeroscore"]) < 1e-12
