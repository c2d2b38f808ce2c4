"""InfoNCE: each student vector shall be nearest to its own teacher vector among all of them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.ops import _check as _check_data
from pydistill.ops._register import Op, accumulator, differentiable

_OP = "info_nce_loss"


def info_nce_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 0.07,
    detach_target: bool = True,
    valid: Tensor | None = None,
) -> Tensor:
    r"""The mean cross entropy with which each teacher vector picks its own student vector out of all N.

    With :math:`\hat s, \hat t` the vectors over their lengths,

    .. math:: L = -\frac{1}{N} \sum_i \log \frac{e^{\hat t_i \hat s_i / T}}{\sum_j e^{\hat t_i \hat s_j / T}}.

    Args:
        student: (N, D), any floating dtype.
        teacher: (N, D); row i belongs to row i of the student.
        temperature: T > 0, a number. A learnable one cannot be folded into the vectors, whose lengths do not count:
            where T learns, take ``cross_entropy(t @ s.mT / T, arange(N))`` of unit vectors.
        detach_target: Whether the teacher is a constant.
        valid: (N,) bool. Rows that are not valid take no part, as rows or as what others are compared with, and have
            gradient 0 whatever they hold; the mean is over those that are. None: all. Without one the loss is 0.

    Returns:
        A scalar, float64 for float64 vectors, else float32. A vector of length 0 stays 0. One (N, N) matrix is kept for
        the gradient. The products are torch's: their last bits may depend on the number of threads.

    Raises:
        ValueError: If a shape or the temperature is not as above.
        TypeError: If a dtype is not as above.

    Reference:
        van den Oord et al. 2018, arXiv:1807.03748, equation 4; with rows of teachers, as the code released with
        DETRDistill has its relation loss.
    """
    _check(student, teacher, temperature, valid)
    if detach_target:
        teacher = teacher.detach()
    if _check_data.enabled(student, teacher):
        for name, x in (("student", student), ("teacher", teacher)):
            _check_data.finite(_OP, name, x, None if valid is None else valid.unsqueeze(-1))
    wide = accumulator(student.dtype)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = (_unit(x.to(wide), valid) for x in (student, teacher))
    result: Tensor = _info_nce_loss(student, teacher, valid, temperature)
    return result


def info_nce_loss_reference(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 0.07,
    detach_target: bool = True,
    valid: Tensor | None = None,
) -> Tensor:
    """The specification, in plain PyTorch."""
    wide = accumulator(student.dtype)
    student, teacher = student.to(wide), teacher.to(wide)
    if detach_target:
        teacher = teacher.detach()
    if valid is None:
        valid = torch.ones(len(student), dtype=torch.bool, device=student.device)
    student, teacher = (F.normalize(x.masked_fill(~valid[:, None], 0), dim=-1) for x in (student, teacher))
    logits = (teacher @ student.mT / temperature).masked_fill(~valid, -torch.inf)
    rows = torch.where(valid, logits.masked_fill(~valid[:, None], 0).logsumexp(1) - logits.diagonal(), 0)
    return rows.sum() / valid.sum().clamp_min(1)


def _unit(x: Tensor, valid: Tensor | None) -> Tensor:
    return F.normalize(x if valid is None else torch.where(valid.unsqueeze(-1), x, 0), dim=-1)


def check_temperature(op: str, temperature: float) -> None:
    """Raises where ``temperature`` is not positive."""
    _check_data.numbers(op, temperature=temperature)
    if not temperature > 0:
        raise ValueError(f"{op}: expected temperature > 0, got {temperature}")


def _check(student: Tensor, teacher: Tensor, temperature: float, valid: Tensor | None) -> None:
    _check_data.tensors(_OP, student=student, teacher=teacher)
    _check_data.optional(_OP, valid=valid)
    if student.ndim != 2:
        raise ValueError(f"{_OP}: expected student of shape (N, D), got {list(student.shape)}")
    if teacher.shape != student.shape:
        raise ValueError(f"{_OP}: expected teacher of shape {list(student.shape)}, got {list(teacher.shape)}")
    for name, x in (("student", student), ("teacher", teacher)):
        if not x.is_floating_point():
            raise TypeError(f"{_OP}: expected {name} of a floating point dtype, got {x.dtype}")
    check_temperature(_OP, temperature)
    if valid is not None and valid.shape != student.shape[:1]:
        raise ValueError(f"{_OP}: expected valid of shape {list(student.shape[:1])}, got {list(valid.shape)}")
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"{_OP}: expected valid of dtype torch.bool, got {valid.dtype}")


def _forward(
    student: Tensor, teacher: Tensor, valid: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss; e^(logits - the largest of the row), the one (N, N) matrix; what a row of it weighs in the gradient.

    Rows and columns that are not valid are 0 in the matrix.
    """
    n = len(student)
    if not n:
        return student.new_zeros(()), student.new_empty(0, 0), student.new_empty(0)
    with torch.autocast(student.device.type, enabled=False):
        powers = (teacher / temperature) @ student.mT
        own = powers.diagonal().clone()
        if valid is not None:
            powers.masked_fill_(~valid, -torch.inf)
        most = powers.amax(1, keepdim=True)
        if valid is not None:
            most.masked_fill_(most == -torch.inf, 0)  # no column is valid
        total = powers.sub_(most).exp_().sum(1)
        rows = total.log() + most.squeeze(1) - own
        if valid is None:
            return rows.sum() / n, powers, 1 / (n * total)
        share = 1 / valid.sum().clamp_min(1).to(total.dtype)
        return torch.where(valid, rows, 0).sum() * share, powers, torch.where(valid, share / total, 0)


def _backward(
    grad: Tensor,
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None,
    powers: Tensor,
    weight: Tensor,
    temperature: float,
    of_teacher: bool,
) -> tuple[Tensor, Tensor]:
    """With P the matrix of probabilities, weighted by rows, and D its rows' weights: (P - D)^T teacher / T."""
    if not len(student):
        return torch.zeros_like(student), torch.zeros_like(teacher)
    with torch.autocast(student.device.type, enabled=False):
        scale = (grad.to(student.dtype) / temperature) * weight.unsqueeze(1)
        diagonal = scale * powers.sum(1, keepdim=True)
        dstudent = powers.mT @ (teacher * scale) - teacher * diagonal
        dteacher = (powers @ student) * scale - student * diagonal if of_teacher else torch.zeros_like(teacher)
    return dstudent, dteacher


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output[1:])
    ctx.temperature = inputs[3]


def _fake(student: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    n = len(student)
    return student.new_empty(()), student.new_empty(n, n), student.new_empty(n)


_info_nce_loss = differentiable(
    Op(
        "info_nce_loss(Tensor student, Tensor teacher, Tensor? valid, float temperature) -> (Tensor, Tensor, Tensor)",
        _forward,
        _fake,
    ),
    Op(
        "info_nce_loss_backward(Tensor grad, Tensor student, Tensor teacher, Tensor? valid, Tensor powers, "
        "Tensor weight, float temperature, bool of_teacher) -> (Tensor, Tensor)",
        _backward,
        lambda grad, student, teacher, *_: (torch.empty_like(student), torch.empty_like(teacher)),
    ),
    _save,
    lambda ctx, grad: (grad, *ctx.saved_tensors, ctx.temperature, ctx.needs_input_grad[1]),
)
