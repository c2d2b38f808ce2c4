import numpy as np
import torch

from pydistill.ops import matched_distillation_loss
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
