"""What every operator shares by being registered, shown by one or two of them."""

import pytest
import torch
from torch.autograd import forward_ad

from pydistill.ops import (
    box_iou,
    giou_loss,
    keypoint_relation_loss,
    masked_feature_loss,
    pairwise_iou,
    response_loss,
    sigmoid_focal_loss,
    softmax_kl,
)
from tests.conformance import each_device, relative_error


def rows_of_kl(x):
    return softmax_kl(x, x.detach().flip(0))


def rows_of_focal(x):
    return sigmoid_focal_loss(x, torch.tensor([[0, 1, 2], [3, 4, 0]], device=x.device), reduction="none")


def rows_of_boxes(x):
    return giou_loss(x, x.detach().flip(0), reduction="none")


class Boxes(torch.Tensor):
    """As torchvision's bounding boxes are."""


def test_no_hessian_in_silence():
    student, teacher = torch.randn(4, 8), torch.randn(4, 8)
    with pytest.raises(RuntimeError, match="softmax_kl: expected a first derivative, got a second one"):
        torch.autograd.functional.hessian(lambda x: softmax_kl(x, teacher, reduction="sum"), student)


def test_a_first_derivative_may_create_a_graph():
    """Where the gradient goes nowhere, or where only what is before the operator is differentiated again."""
    x, w, teacher = torch.randn(4, 8, requires_grad=True), torch.tensor(2.0, requires_grad=True), torch.randn(4, 8)
    (plain,) = torch.autograd.grad(softmax_kl(x * w, teacher, reduction="sum"), w)
    loss = softmax_kl(x * w, teacher, reduction="sum")
    torch.autograd.grad(loss, x, create_graph=True)
    (again,) = torch.autograd.grad(loss, w)
    assert relative_error(again, plain.double()) < 1e-6


def test_no_tangent_is_lost_in_silence():
    teacher = torch.randn(4, 8)
    with forward_ad.dual_level():
        student = forward_ad.make_dual(torch.randn(4, 8), torch.ones(4, 8))
        with pytest.raises(RuntimeError, match="softmax_kl: expected no tangents, got some"):
            softmax_kl(student, teacher)
        plain = forward_ad.unpack_dual(student).primal
        assert torch.equal(softmax_kl(plain, teacher), softmax_kl(plain.clone(), teacher))


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: softmax_kl(x, y, reduction="sum"),
        lambda x, y: softmax_kl(y, x, reduction="sum"),
        lambda x, y: pairwise_iou(x[:, 0, 0], y[:, 0, 0]),
        lambda x, y: masked_feature_loss(x, x, y[:, 0]),
        lambda x, y: response_loss(x, y, x, x, x[:, 0]),
        lambda x, y: keypoint_relation_loss(x, y, torch.zeros(2, 3, 9, 2), torch.ones(2, 3, dtype=torch.bool)),
    ],
)
def test_no_numbers_from_a_tensor_that_has_none(call):
    """A teacher built on the device "meta" and never filled is an error, not whatever memory holds."""
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    with pytest.raises(ValueError, match="expected .* device.*, got .*meta"):
        call(x, torch.rand(2, 3, 4, 4, device="meta"))


def test_subclasses_are_tensors():
    a, b = torch.rand(3, 4), torch.rand(5, 4)
    found = box_iou(a.as_subclass(Boxes), b)
    assert type(found) is Boxes  # as PyTorch's own operators return
    assert torch.equal(found.as_subclass(torch.Tensor), box_iou(a, b))


@each_device
@pytest.mark.parametrize("rows", [rows_of_kl, rows_of_focal, rows_of_boxes])
def test_rows_may_be_modified_in_place(rows, device):
    x = (torch.rand(2, 3, 4) + torch.tensor([0.0, 0, 1, 1])).to(device).requires_grad_()
    mask = torch.tensor([[1.0, 0, 2], [0, 3, 0]], device=device)
    (want,) = torch.autograd.grad((rows(x) * mask).sum(), x)
    losses = rows(x)
    losses *= mask
    (got,) = torch.autograd.grad(losses.sum(), x)
    assert relative_error(got, want.double()) < 1e-6
