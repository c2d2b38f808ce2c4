import numpy as np
import pytest
import torch

from pydistill.ops import matched_box_loss, matched_class_loss, matched_distillation_loss
from tests.conformance import each_device, relative_error
from tests.golden import golden

EPS = torch.finfo(torch.float32).eps  # what the released code adds to the number of pairs


def released(device):
    """The released code's predictions, and its match (L, B, Q)."""
    z = golden("detr_distill")
    arrays = [z[f"dd_{name}"] for name in ("student_logits", "student_boxes", "teacher_logits", "teacher_boxes")]
    match = [[z[f"dd_match_{stage}_{image}"] for image in range(2)] for stage in range(3)]
    logits, boxes, *teacher = (torch.from_numpy(x).to(device) for x in arrays)
    return z, [logits.requires_grad_(), boxes.requires_grad_(), *teacher, torch.from_numpy(np.array(match)).to(device)]


@each_device
def test_released_losses_and_gradients(device):
    z, tensors = released(device)
    sizes = torch.from_numpy(z["dd_img_hw"]).to(device)
    terms = matched_distillation_loss(
        *tensors, image_sizes=sizes, clamp_targets=True, giou_eps=1e-6, normalizer=2 * 24 + EPS
    )
    values = dict(zip(z["dd_loss_names"].tolist(), z["dd_loss_values"].tolist()))
    for name, weight, term in zip(("cls", "bbox", "iou"), (1, 5, 2), terms, strict=True):
        want = torch.tensor([values[f"{stage}loss_{name}_distill"] for stage in ("d0.", "d1.", "")])
        assert relative_error(weight * term.detach(), want) < 2e-7
        learner, kind = (0, "logits") if name == "cls" else (1, "boxes")
        (grad,) = torch.autograd.grad(weight * term.sum(), tensors[learner], retain_graph=True)
        assert relative_error(grad, torch.from_numpy(z[f"dd_grad_{kind}_{name}_distill"])) < 2e-7


@each_device
@pytest.mark.parametrize("pairs", ["all", "positives", "negatives", "pos_neg"])
def test_pairs_weigh_what_the_table_says(device, pairs):
    """Against the sums of the pairs taken one by one; teachers of fewer queries leave students out."""
    _, (logits, boxes, *teacher, match) = released(device)
    teacher, match = [x[:, :, :18] for x in teacher], match.masked_fill(match >= 18, -1)
    positive = torch.arange(18, device=device).expand(3, 2, 18) % 3 == 0
    terms = matched_distillation_loss(logits, boxes, *teacher, match, pairs=pairs, positive=positive)
    rows = [matched_class_loss(logits, teacher[0], match, form="soft_bce", reduction="none")]
    rows += matched_box_loss(boxes, teacher[1], match, reduction="none")
    of_pair = positive.gather(-1, match.clamp_min(0)) & (match >= 0)
    signs = {"all": (1, 1, 1, 1), "positives": (1, 0, 1, 0), "negatives": (0, 1, 0, 1), "pos_neg": (1, 0, 1, 1)}[pairs]
    for term, row, (of_positive, of_negative) in zip(terms, rows, (signs[:2], signs[2:], signs[2:]), strict=True):
        want = (row * torch.where(of_pair, of_positive, of_negative)).sum((1, 2)) / (2 * 18)
        assert relative_error(term, want) < 1e-12 and (row[match < 0] == 0).all()


@each_device
def test_normalizers(device):
    _, tensors = released(device)
    want = matched_distillation_loss(*tensors, normalizer=1.0)
    stages = torch.tensor([2.0, 0.0, 4.0], device=device, dtype=torch.float64)
    for got, one in zip(matched_distillation_loss(*tensors, normalizer=stages), want, strict=True):
        assert relative_error(got[[0, 2]], one[[0, 2]] / stages[[0, 2]]) < 1e-12
    none = matched_distillation_loss(*tensors[:4], torch.full_like(tensors[4], -1), normalizer=stages)
    assert all((term == 0).all() for term in none)


def test_wrong_arguments():
    _, tensors = released("cpu")
    with pytest.raises(ValueError, match=r"expected pairs to be one of all, .*got 'some'"):
        matched_distillation_loss(*tensors, pairs="some")
    with pytest.raises(ValueError, match="expected positive, since positive and negative pairs differ"):
        matched_distillation_loss(*tensors, pairs="pos_neg")
    with pytest.raises(TypeError, match=r"positive of dtype torch.bool, got torch.float32"):
        matched_distillation_loss(*tensors, pairs="pos_neg", positive=torch.ones(3, 2, 24))
    with pytest.raises(ValueError, match=r"positive of shape \[3, 2, 24\], got \[2, 23\]"):
        matched_distillation_loss(*tensors, pairs="pos_neg", positive=torch.ones(2, 23).bool())
    with pytest.raises(ValueError, match=r"target_of_query of shape \[3, 2, 24\], got \[2, 24\]"):
        matched_distillation_loss(*tensors[:4], tensors[4][0])
    with pytest.raises(ValueError, match=r"normalizer that broadcasts to \[3\], got \[2\]"):
        matched_distillation_loss(*tensors, normalizer=torch.ones(2))
