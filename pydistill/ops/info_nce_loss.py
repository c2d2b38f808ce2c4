"""InfoNCE: each student vector shall be nearest to its own teacher vector among all of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.ops._register import accumulator

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
        temperature: T > 0.
        detach_target: Whether the teacher is a constant.
        valid: (N,) bool. Rows that are not valid take no part, as rows or as what others are compared with, and have
            gradient 0 whatever they hold; the mean is over those that are. None: all. Without one the loss is 0.

    Returns:
        A scalar, float64 for float64 vectors, else float32. A vector of length 0 stays 0. One (N, N) matrix is kept for
        the gradient.

    Raises:
        ValueError: If a shape or the temperature is not as above.
        TypeError: If a dtype is not as above.

    Reference:
        van den Oord et al. 2018, arXiv:1807.03748, equation 4; with rows of teachers, as the code released with
        DETRDistill has its relation loss.
    """
    _check(student, teacher, temperature, valid)
    return info_nce_loss_reference(student, teacher, temperature=temperature, detach_target=detach_target, valid=valid)


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


def _check(student: Tensor, teacher: Tensor, temperature: float, valid: Tensor | None) -> None:
    if student.ndim != 2:
        raise ValueError(f"{_OP}: expected student of shape (N, D), got {list(student.shape)}")
    if teacher.shape != student.shape:
        raise ValueError(f"{_OP}: expected teacher of shape {list(student.shape)}, got {list(teacher.shape)}")
    for name, x in (("student", student), ("teacher", teacher)):
        if not x.is_floating_point():
            raise TypeError(f"{_OP}: expected {name} of a floating point dtype, got {x.dtype}")
    if not temperature > 0:
        raise ValueError(f"{_OP}: expected temperature > 0, got {temperature}")
    if valid is not None and valid.shape != student.shape[:1]:
        raise ValueError(f"{_OP}: expected valid of shape {list(student.shape[:1])}, got {list(valid.shape)}")
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"{_OP}: expected valid of dtype torch.bool, got {valid.dtype}")
