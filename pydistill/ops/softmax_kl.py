"""Temperature-scaled Kullback-Leibler divergence between the softmaxes of two tensors, row by row."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._reduction import HALF, keeps_gradient, reduce_reference, reduction_of, regular, row_buffers, scaled
from pydistill.ops._register import Op, accumulator, differentiable, present


def softmax_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    dim: int = -1,
    weight: Tensor | None = None,
    bins: str = "sum",
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
    detach_target: bool = True,
) -> Tensor:
    r"""How far the student's distribution over the bins of each row is from the teacher's.

    With :math:`p = \mathrm{softmax}(t / T)` and :math:`s = \mathrm{softmax}(z / T)` over the n bins of a row,

    .. math:: \ell = T^2 w \sum_i p_i (\log p_i - \log s_i), \qquad
              \partial \ell / \partial z_i = T w (s_i - p_i), \qquad
              \partial \ell / \partial t_i = T w\, p_i \Big(\log \frac{p_i}{s_i} - \sum_j p_j \log \frac{p_j}{s_j}\Big).

    A bin with :math:`p_i = 0` adds nothing. Nothing is copied for heads whose bins are not their last dimension: pass
    ``dim``. Accumulates in float32, in float64 for float64; float16 logits up to 60000 are fine.

    Args:
        student: Logits z, any shape, float64, float32, float16 or bfloat16. All dimensions but ``dim`` count rows.
        teacher: Logits t, of the same shape. The student's dtype or float32; others are converted.
        temperature: T > 0, of both sides; a number. A learnable one is folded into the logits by the caller: pass z / T
            and t / T, and multiply the loss by T^2.
        dim: The dimension that holds the n bins.
        weight: w, one number per row: broadcasts to the student's shape without ``dim``. A constant, without gradient.
            A row of weight 0 is not read; its loss and its gradient are 0 whatever its logits are.
        bins: ``"sum"``: the Kullback-Leibler divergence. ``"mean"``: divided by n, as in the released code.
        reduction: ``"none"``: one loss per row. ``"sum"``. ``"mean"``: the sum over the number of rows, or over
            ``avg_factor``.
        avg_factor: What ``"mean"`` divides the sum by, a number or a tensor of one element that is read on its device.
            A constant. A sum of 0 over a factor of 0 is 0; with a factor of 0 the gradient is 0.
        detach_target: Whether the teacher is a constant. If not, its gradient is finite also where p underflows.

    Returns:
        The losses, of the student's shape without ``dim``, or their scalar reduction; float64 for float64, else
        float32. A NaN logit makes its own row NaN. Results repeat bit for bit.

    Raises:
        ValueError: If a shape, an option or the temperature is not one of the above.
        TypeError: If the dtype is not one of the above.

    Reference:
        Hinton et al. 2015, arXiv:1503.02531, section 2, for T^2; Zheng et al. 2022 (LD), arXiv:2102.12252, for rows
        that are box sides. The released LD code takes the mean over the bins, ``bins="mean"``: n times smaller than
        the divergence. Its teacher gradient (without ``detach_target``) is NaN where the teacher's softmax underflows;
        here it is the limit, 0.
    """
    _check.tensors("softmax_kl", student=student, teacher=teacher)
    _check.numbers("softmax_kl", temperature=temperature, dim=dim)
    if bins not in ("sum", "mean"):
        raise ValueError(f'softmax_kl: expected bins "sum" or "mean", got {bins!r}')
    ndim = student.dim()
    if not -ndim <= dim < ndim:
        raise ValueError(f"softmax_kl: expected dim within the dimensions of {list(student.shape)}, got {dim}")
    dim %= ndim
    how = reduction_of("softmax_kl", student, _rows_shape(student, dim), weight, reduction, avg_factor)
    scale = temperature * temperature
    if bins == "mean":
        scale /= max(student.shape[dim], 1)
    if teacher.dtype != student.dtype:
        teacher = teacher.to(torch.float32 if student.dtype in HALF else student.dtype)
    if detach_target and teacher.requires_grad:
        teacher = teacher.detach()
    keep = how.weight is None and how.avg_factor is None and keeps_gradient(student) and not teacher.requires_grad
    result: Tensor = _softmax_kl(
        student, teacher, how.weight, how.avg_factor, temperature, dim, scale, how.factor, how.reduce, keep
    )
    if _check.enabled():  # here, because the shapes are right by now
        _check_logits(student, teacher, how.weight, dim)
    return result


def softmax_kl_reference(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    dim: int = -1,
    weight: Tensor | None = None,
    bins: str = "sum",
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
    detach_target: bool = True,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    wide = accumulator(student.dtype)
    student, teacher = student.to(wide).movedim(dim, -1), teacher.to(wide).movedim(dim, -1)
    if detach_target:
        teacher = teacher.detach()
    if weight is not None:
        weight = weight.detach().to(wide).expand(student.shape[:-1])
        skipped = (weight == 0).unsqueeze(-1)
        student, teacher = student.masked_fill(skipped, 0), teacher.masked_fill(skipped, 0)
    log_s, log_p = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    p = log_p.exp()
    divergence = p * (log_p - log_s).masked_fill(p == 0, 0)
    rows = temperature**2 * (divergence.sum(-1) if bins == "sum" else divergence.mean(-1))
    return reduce_reference(rows, weight, reduction, avg_factor)


def _check_logits(student: Tensor, teacher: Tensor, weight: Tensor | None, dim: int) -> None:
    """With checking on: finite logits, but for the -inf of bins that the teacher rules out."""
    possible = teacher != -torch.inf
    read = [possible | (student != -torch.inf), possible]
    if weight is not None:
        read = [r & (weight != 0).unsqueeze(dim) for r in read]
    _check.finite("softmax_kl", "student", student, read[0])
    _check.finite("softmax_kl", "teacher", teacher, read[1])


def _rows_shape(student: Tensor, dim: int) -> torch.Size:
    return student.shape[:dim] + student.shape[dim + 1 :]


def _forward(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None,
    avg_factor: Tensor | None,
    temperature: float,
    dim: int,
    scale: float,
    factor: float,
    reduce: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    rows, partial, total, result = row_buffers(student, _rows_shape(student, dim), reduce)
    student, teacher = regular(student, dim), regular(teacher, dim)
    if weight is not None:
        weight = regular(weight, -1)
    kept = torch.empty_like(student) if keep else None
    kernels, where = _C.on(student)
    kernels.softmax_kl(
        where, student, teacher, weight, avg_factor, temperature, dim, scale, factor, rows, partial, total, kept
    )
    return result, kept


def _backward(
    grad: Tensor,
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None,
    avg_factor: Tensor | None,
    kept: Tensor | None,
    temperature: float,
    dim: int,
    scale: float,
    need_student: bool,
    need_teacher: bool,
    consume: bool = False,
    into: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    wide = accumulator(student.dtype)
    if grad.dtype != wide:
        grad = grad.to(wide)
    if kept is not None:
        of_kept = scaled(kept, grad.unsqueeze(dim) if grad.dim() else grad, consume)
        return of_kept if into is None else into.add_(of_kept), None
    student, teacher, grad = regular(student, dim), regular(teacher, dim), regular(grad, -1)
    if weight is not None:
        weight = regular(weight, -1)
    dstudent = into
    if dstudent is None and need_student:
        dstudent = torch.empty_like(student)
    dteacher = torch.empty_like(teacher) if need_teacher else None
    kernels, where = _C.on(student)
    kernels.softmax_kl_backward(
        where, grad, student, teacher, weight, avg_factor, temperature, dim, scale, into is not None, dstudent, dteacher
    )
    return dstudent, dteacher


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor | None]) -> None:
    student, teacher, weight, avg_factor, temperature, dim, scale, factor, _, _ = inputs
    ctx.save_for_backward(student, teacher, weight, avg_factor, present(output[1]))
    ctx.options = temperature, dim, scale * factor


def _recall(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (grad, *ctx.saved_tensors, *ctx.options, *ctx.needs_input_grad[:2])


def _fake(student: Tensor, dim: int, reduce: bool, keep: bool) -> tuple[Tensor, Tensor | None]:
    loss = student.new_empty(() if reduce else _rows_shape(student, dim), dtype=accumulator(student.dtype))
    return loss, torch.empty_like(regular(student, dim)) if keep else None


_softmax_kl = differentiable(
    Op(
        "softmax_kl(Tensor student, Tensor teacher, Tensor? weight, Tensor? avg_factor, float temperature, int dim, "
        "float scale, float factor, bool reduce, bool keep) -> (Tensor, Tensor)",
        _forward,
        fake=lambda student, *options: _fake(student, options[4], *options[-2:]),
    ),
    Op(
        "softmax_kl_backward(Tensor grad, Tensor student, Tensor teacher, Tensor? weight, Tensor? avg_factor, "
        "Tensor? kept, float temperature, int dim, float scale, bool need_student, bool need_teacher) "
        "-> (Tensor, Tensor)",
        _backward,
        fake=lambda grad, student, teacher, *options: (
            torch.empty_like(regular(student, options[4])) if options[-2] else None,
            torch.empty_like(regular(teacher, options[4])) if options[-1] else None,
        ),
        consumes=True,
        adds=True,
    ),
    save=_save,
    recall=_recall,
)
