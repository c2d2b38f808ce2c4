"""Distance between two feature maps where a mask says that they matter."""

from typing import Any

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._layout import laid_out, walkable
from pydistill.ops._register import Op, accumulator, differentiable

_CHANNELS, _NORMALIZERS = ("mean", "sum"), ("elements", "mask")


def masked_feature_loss(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    norm: int = 2,
    mask_power: int = 1,
    channels: str = "mean",
    normalizer: str | float | Tensor = "elements",
) -> Tensor:
    r"""How far the student's features are from the teacher's in the pixels of a mask.

    With :math:`m` the mask, q the ``norm`` and p the ``mask_power``, over images n, channels c and pixels i,

    .. math:: \ell = \frac{1}{C' M} \sum_{ni} m_{ni}^p \sum_c |s_{nci} - t_{nci}|^q

    with :math:`C' = C` for ``channels="mean"`` and 1 for ``"sum"``, and M the ``normalizer``. The mean of the squares
    in a region is ``normalizer="mask"`` with a bool mask.

    Args:
        student: s, (N, C, H, W), float64, float32, float16 or bfloat16; NCHW or channels last, others are copied.
        teacher: t, of the same shape, a constant. The student's dtype or float32; others are converted. A teacher in
            the other layout than the student is copied.
        mask: m, (N, H, W), bool or floating point, of any sign. A constant. The features of a pixel whose mask is 0 are
            not used, whatever they are, and tiles of 256 of such pixels are not read at all.
        norm: q, 2 or 1.
        mask_power: p, 1 or, where the mask multiplies the features before they are squared, 2.
        channels: ``"mean"`` or ``"sum"``, of a pixel's channels.
        normalizer: M. ``"elements"``: N H W. ``"mask"``: the sum of the mask (not of its power). Else a number or a
            tensor of one element, which is read on its device. A sum of 0 over an M of 0 is 0; with an M of 0 the
            gradient is 0.

    Returns:
        The scalar loss, float64 for float64 students, else float32. A NaN where the mask is not 0 makes it NaN, and the
        gradient of its own element. At :math:`s = t` the gradient of norm 1 is 0. Results repeat bit for bit.

    Raises:
        ValueError: If a shape, a device or an option is not one of the above; under ``pydistill.checking`` also for a
            mask, or for features where it is not 0, that are not finite.
        TypeError: If a dtype is not one of the above.

    Reference:
        Zheng et al. 2022 (LD), arXiv:2102.12252, section 3, for regions of anchors; the masks of DETRDistill
        (arXiv:2211.10156) multiply features, ``mask_power=2``.
    """
    _check_arguments(student, teacher, mask, norm, mask_power, channels, normalizer)
    wide = accumulator(student.dtype)
    n, c, h, w = student.shape
    scale, divisor = 1.0 / max(c, 1) if channels == "mean" else 1.0, None
    if isinstance(normalizer, Tensor):
        divisor = normalizer.detach().to(wide).reshape(())
    elif normalizer != "mask":
        number = n * h * w if normalizer == "elements" else float(normalizer)
        scale, divisor = (scale / number, None) if number else (scale, student.new_zeros((), dtype=wide))
    if teacher.dtype != student.dtype:
        teacher = teacher.to(accumulator(student.dtype))
    if _check.enabled(student, teacher, mask):
        used = (mask != 0).unsqueeze(1)
        for name, x in (("student", student), ("teacher", teacher)):
            _check.finite("masked_feature_loss", name, x, used)
        _check.finite("masked_feature_loss", "mask", mask)
    result: Tensor = _masked_feature_loss(
        student, teacher.detach(), mask.detach().to(wide), divisor, norm, mask_power == 2, scale, normalizer == "mask"
    )
    return result


def masked_feature_loss_reference(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    norm: int = 2,
    mask_power: int = 1,
    channels: str = "mean",
    normalizer: str | float | Tensor = "elements",
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    wide = accumulator(student.dtype)
    student, teacher, mask = student.to(wide), teacher.detach().to(wide), mask.detach().to(wide)
    unused = (mask == 0).unsqueeze(1)
    difference = student.masked_fill(unused, 0) - teacher.masked_fill(unused, 0)
    pixels = (difference.square() if norm == 2 else difference.abs()).sum(1) / (
        max(student.shape[1], 1) if channels == "mean" else 1
    )
    total = (mask**mask_power * pixels).sum()
    divisor = {"elements": mask.numel(), "mask": mask.sum()}.get(str(normalizer), normalizer)
    divisor = torch.as_tensor(divisor, dtype=wide, device=total.device).reshape(())
    return torch.where((total == 0) & (divisor == 0), total, total / divisor)


def _check_arguments(
    student: Tensor, teacher: Tensor, mask: Tensor, norm: int, mask_power: int, channels: str, normalizer: Any
) -> None:
    op = "masked_feature_loss"
    _check.tensors(op, student=student, teacher=teacher, mask=mask)
    _check.numbers(op, norm=norm, mask_power=mask_power)
    if student.ndim != 4:
        raise ValueError(f"{op}: expected student of shape (N, C, H, W), got {list(student.shape)}")
    if teacher.shape != student.shape:
        raise ValueError(f"{op}: expected teacher of shape {list(student.shape)}, got {list(teacher.shape)}")
    n, _, h, w = student.shape
    if mask.shape != (n, h, w):
        raise ValueError(f"{op}: expected mask of shape {[n, h, w]}, got {list(mask.shape)}")
    for name, x in (("student", student), ("teacher", teacher)):
        if not x.is_floating_point():
            raise TypeError(f"{op}: expected {name} of a floating point dtype, got {x.dtype}")
    if not mask.is_floating_point() and mask.dtype != torch.bool:
        raise TypeError(f"{op}: expected mask of dtype bool or floating point, got {mask.dtype}")
    for name, power in (("norm", norm), ("mask_power", mask_power)):
        if power not in (1, 2):
            raise ValueError(f"{op}: expected {name} 1 or 2, got {power!r}")
    if channels not in _CHANNELS:
        raise ValueError(f"{op}: expected channels in {_CHANNELS}, got {channels!r}")
    if isinstance(normalizer, Tensor):
        if normalizer.numel() != 1:
            raise ValueError(f"{op}: expected normalizer of one element, got {list(normalizer.shape)}")
    elif normalizer not in _NORMALIZERS and not isinstance(normalizer, (int, float)):
        raise ValueError(f"{op}: expected normalizer in {_NORMALIZERS}, a number or a tensor, got {normalizer!r}")


def _laid_out(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Both in the student's layout, NCHW or channels last, copied where they are in another."""
    student, interleaved = laid_out(student)
    layout = torch.channels_last if interleaved else torch.contiguous_format
    teacher = teacher if walkable(teacher, interleaved) else teacher.contiguous(memory_format=layout)
    return student, teacher, interleaved


def _forward(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    normalizer: Tensor | None,
    norm: int,
    squared: bool,
    scale: float,
    by_mask: bool,
) -> tuple[Tensor, Tensor]:
    kernels, where = _C.on(student)
    n, _, h, w = student.shape
    partial = mask.new_empty(kernels.masked_feature_tiles(n, h * w))
    mass = torch.empty_like(partial) if by_mask else None
    loss, factor = mask.new_empty(()), mask.new_empty(())
    student, teacher, interleaved = _laid_out(student, teacher)
    kernels.masked_feature_loss(
        where, student, teacher, mask.contiguous(), normalizer, norm, squared, interleaved, scale,
        partial, mass, loss, factor,
    )  # fmt: skip
    return loss, factor


def _backward(
    grad: Tensor, student: Tensor, teacher: Tensor, mask: Tensor, factor: Tensor, norm: int, squared: bool
) -> Tensor:
    kernels, where = _C.on(student)
    student, teacher, interleaved = _laid_out(student, teacher)
    dstudent = torch.empty_like(student)
    kernels.masked_feature_loss_backward(
        where, grad.to(mask.dtype), student, teacher, mask.contiguous(), factor, norm, squared, interleaved, dstudent
    )
    return dstudent


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    student, teacher, mask, _, norm, squared, _, _ = inputs
    ctx.save_for_backward(student, teacher, mask, output[1])
    ctx.options = norm, squared


def _recall(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (grad, *ctx.saved_tensors, *ctx.options)


_masked_feature_loss = differentiable(
    Op(
        "masked_feature_loss(Tensor student, Tensor teacher, Tensor mask, Tensor? normalizer, int norm, bool squared, "
        "float scale, bool by_mask) -> (Tensor, Tensor)",
        _forward,
        lambda student, teacher, mask, *_: (mask.new_empty(()), mask.new_empty(())),
    ),
    Op(
        "masked_feature_loss_backward(Tensor grad, Tensor student, Tensor teacher, Tensor mask, Tensor factor, "
        "int norm, bool squared) -> Tensor",
        _backward,
        lambda grad, student, teacher, *_: torch.empty_like(_laid_out(student, teacher)[0]),
    ),
    _save,
    _recall,
)
