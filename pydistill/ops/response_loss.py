"""Distance between what two heads in bird's-eye view answer, near the centres of boxes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._keypoints import check_normalizer, scalar
from pydistill.ops._register import Op, accumulator, differentiable

_TABLE = 12  # numbers that say where a channel of a head is
Heads = Tensor | Sequence[Tensor]


class ResponseLosses(NamedTuple):
    """The two scalars of ``response_loss``."""

    classes: Tensor
    """Of the strongest class."""
    numbers: Tensor
    """Of the regressed numbers."""


def response_loss(
    student_heatmaps: Heads,
    teacher_heatmaps: Heads,
    student_regressions: Heads,
    teacher_regressions: Heads,
    region: Tensor,
    *,
    student_is_logit: bool = True,
    teacher_temperature: float = 2.0,
    student_clamp: float = 1e-4,
    teacher_clamp: float = 1e-4,
    normalizer: Tensor | float | None = None,
    eps: float = 1e-4,
) -> ResponseLosses:
    r"""How far the student's scores and numbers are from the teacher's in a region.

    With :math:`s_i, t_i` the largest scores of cell i over all classes, :math:`r` the n regressed numbers and G the
    region,

    .. math::
        \ell_{cls} = \frac{1}{M + \epsilon} \sum_i G_i\, |f(s_i) - h(t_i)|, \quad
        \ell_{reg} = \frac{1}{M + \epsilon} \sum_i G_i \frac1n \sum_k |r^s_{ik} - r^t_{ik}|

    where :math:`M = \sum G`, :math:`f(s) = \mathrm{clamp}(\sigma(s), \delta, 1 - \delta)` and
    :math:`h(t) = \mathrm{clamp}(\sigma(t / T), \delta', 1 - \delta')`.

    Args:
        student_heatmaps: logits of the classes, a tensor (B, C, H, W) or one of each task, (B, C_i, H, W); float64,
            float32, float16 or bfloat16, of any strides that lead evenly from pixel to pixel (NCHW, channels last);
            others are copied. Heads are not joined.
        teacher_heatmaps: the same shapes, a constant. The student's dtype or float32; others are converted.
        student_regressions: the regressed numbers, the same way; may be an empty list.
        teacher_regressions: the same shapes, a constant.
        region: G, (B, H, W), bool or floating point. A constant. Scores where it is 0 are not used, whatever they are,
            and an aligned run of 32 such cells is not read.
        student_is_logit: whether the student's heat maps are logits. Else they are probabilities, and f(s) = s.
        teacher_temperature: T > 0, of the teacher alone, a number: nothing about the teacher learns.
        student_clamp: :math:`\delta`, in [0, 1/2).
        teacher_clamp: :math:`\delta'`. One of the released trainings has 1e-3.
        normalizer: in place of M, a number or a tensor of one element, read on its device: for M averaged over
            processes.
        eps: :math:`\epsilon`.

    Returns:
        Both losses, float64 of float64 students, else float32. The gradient of the first goes to the strongest class,
        the first one of several; where f clamps it is 0. A NaN where the region is not 0 makes its loss NaN. Results
        repeat bit for bit.

    Raises:
        ValueError: If a shape, a device or an option is not one of the above; under ``pydistill.checking`` also for a
            region, or scores and numbers in it, that are not finite.
        TypeError: If a dtype is not one of the above.

    Reference:
        Zhou et al. 2023 (UniDistill), arXiv:2303.15083, section 3.4; ``ResponseDistillLoss`` of
        megvii-research/CVPR2023-UniDistill.
    """
    student, teacher, classes = _checked(
        student_heatmaps, teacher_heatmaps, student_regressions, teacher_regressions, region,
        teacher_temperature, student_clamp, teacher_clamp, normalizer, eps,
    )  # fmt: skip
    wide = accumulator(student[0].dtype)
    region = region.detach().to(wide)
    losses = _response_loss(
        student, region, teacher, scalar(normalizer, region), classes, student_is_logit, student_clamp,
        1 / teacher_temperature, teacher_clamp, eps,
    )  # fmt: skip
    return ResponseLosses(*losses.unbind())


def response_loss_reference(
    student_heatmaps: Heads,
    teacher_heatmaps: Heads,
    student_regressions: Heads,
    teacher_regressions: Heads,
    region: Tensor,
    *,
    student_is_logit: bool = True,
    teacher_temperature: float = 2.0,
    student_clamp: float = 1e-4,
    teacher_clamp: float = 1e-4,
    normalizer: Tensor | float | None = None,
    eps: float = 1e-4,
) -> ResponseLosses:
    """The specification: what the kernels must compute, in plain PyTorch."""
    given = student_heatmaps, teacher_heatmaps, student_regressions, teacher_regressions
    heads = [[x] if isinstance(x, Tensor) else list(x) for x in given]
    wide = accumulator((heads[0] + heads[2])[0].dtype)
    region = region.detach().to(wide)
    out = (region == 0)[:, None]
    none = region.new_zeros(region.shape[0], 0, *region.shape[1:])
    s, t, rs, rt = (torch.cat([none, *(x.to(wide).masked_fill(out, 0) for x in xs)], 1) for xs in heads)
    t, rt = t.detach(), rt.detach()
    p = s.sigmoid().clamp(student_clamp, 1 - student_clamp) if student_is_logit else s
    q = (t / teacher_temperature).sigmoid().clamp(teacher_clamp, 1 - teacher_clamp)
    mass = (
        region.sum()
        if normalizer is None
        else torch.as_tensor(normalizer, dtype=wide, device=region.device).reshape(())
    )
    empty = region.new_zeros(()) + s.sum() * 0 + rs.sum() * 0
    classes = (region * (p.max(1).values - q.max(1).values).abs()).sum() if p.shape[1] else empty
    numbers = (region * (rs - rt).abs().mean(1)).sum() if rs.shape[1] else empty
    return ResponseLosses(*(torch.where(x == 0, x, x / (mass + eps)) for x in (classes, numbers)))


def _listed(name: str, heads: Heads) -> list[Tensor]:
    return [heads] if isinstance(heads, Tensor) else _check.listed("response_loss", name, heads)


def check_options(op: str, temperature: float, teacher_clamp: float, student_clamp: float = 0.0) -> None:
    """Raises where an option is outside its range."""
    _check.numbers(op, teacher_temperature=temperature, student_clamp=student_clamp, teacher_clamp=teacher_clamp)
    if not temperature > 0:
        raise ValueError(f"{op}: expected teacher_temperature > 0, got {temperature}")
    for name, clamp in (("student_clamp", student_clamp), ("teacher_clamp", teacher_clamp)):
        if not 0 <= clamp < 0.5:
            raise ValueError(f"{op}: expected {name} in [0, 1/2), got {clamp}")


def _checked(
    student_heatmaps: Heads,
    teacher_heatmaps: Heads,
    student_regressions: Heads,
    teacher_regressions: Heads,
    region: Tensor,
    temperature: float,
    student_clamp: float,
    teacher_clamp: float,
    normalizer: Tensor | float | None,
    eps: float,
) -> tuple[list[Tensor], list[Tensor], int]:
    """The heads of student and teacher, heat maps first, and how many these are."""
    op, heads = "response_loss", []
    _check.tensors(op, region=region)
    if region.ndim != 3:
        raise ValueError(f"{op}: expected region of shape (B, H, W), got {list(region.shape)}")
    if not region.is_floating_point() and region.dtype != torch.bool:
        raise TypeError(f"{op}: expected region of dtype bool or floating point, got {region.dtype}")
    b, h, w = region.shape
    for what, ours, theirs in (
        ("heatmaps", student_heatmaps, teacher_heatmaps),
        ("regressions", student_regressions, teacher_regressions),
    ):
        ours, theirs = _listed(f"student_{what}", ours), _listed(f"teacher_{what}", theirs)
        if len(ours) != len(theirs):
            raise ValueError(f"{op}: expected as many teacher_{what} as the student's {len(ours)}, got {len(theirs)}")
        for x, y in zip(ours, theirs):
            if x.ndim != 4 or (x.shape[0], *x.shape[2:]) != (b, h, w):
                raise ValueError(f"{op}: expected student_{what} of shape ({b}, C, {h}, {w}), got {list(x.shape)}")
            if y.shape != x.shape:
                raise ValueError(f"{op}: expected teacher_{what} of shape {list(x.shape)}, got {list(y.shape)}")
            for name, z in (("student", x), ("teacher", y)):
                if not z.is_floating_point():
                    raise TypeError(f"{op}: expected {name}_{what} of a floating point dtype, got {z.dtype}")
        heads.append((ours, theirs))
    student, teacher = (sum((pair[i] for pair in heads), []) for i in (0, 1))
    if not student:
        raise ValueError(f"{op}: expected heat maps or regressions, got none")
    dtypes = {x.dtype for x in student}
    if len(dtypes) > 1:
        raise TypeError(f"{op}: expected the student's heads of one dtype, got {sorted(map(str, dtypes))}")
    check_options(op, temperature, teacher_clamp, student_clamp)
    check_normalizer(op, normalizer)
    _check.numbers(op, eps=eps)
    if not eps >= 0:
        raise ValueError(f"{op}: expected eps >= 0, got {eps}")
    if _check.enabled(region, *student, *teacher):
        _check.finite(op, "region", region)
        for x in (*student, *teacher):
            _check.finite(op, "heads", x, (region != 0)[:, None])
    dtype = dtypes.pop()
    # The teacher's heads share a dtype: the student's, or float32 beside half ones.
    same = all(y.dtype == dtype for y in teacher)
    kind = dtype if same else accumulator(dtype)
    return student, [y.detach().to(kind) for y in teacher], len(heads[0][0])


def _even(x: Tensor) -> Tensor:
    """``x`` (B, C, H, W), copied where no one stride leads from pixel to pixel."""
    h, w = x.shape[2:]
    return x if h <= 1 or w <= 1 or x.stride(2) == w * x.stride(3) else x.contiguous()


def _table(heads: Sequence[Tensor]) -> Tensor:
    return heads[0].new_empty(sum(x.shape[1] for x in heads), _TABLE, dtype=torch.int64)


def _forward(
    student: Sequence[Tensor],
    region: Tensor,
    teacher: Sequence[Tensor],
    normalizer: Tensor | None,
    classes: int,
    logit: bool,
    student_clamp: float,
    teacher_scale: float,
    teacher_clamp: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    kernels, where = _C.on(region)
    b, h, w = region.shape
    partial = region.new_empty(3, kernels.response_tiles(b, h * w))
    losses, factor = region.new_empty(2), region.new_empty(())
    kernels.response_loss(
        where, region.contiguous(), [_even(x) for x in student], [_even(x) for x in teacher], classes, normalizer,
        logit, student_clamp, teacher_scale, teacher_clamp, eps, _table(student), partial, losses, factor,
    )  # fmt: skip
    return losses, factor


def _parts(heads: Sequence[Tensor], together: bool) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients laid out as the heads are: ``together`` in one memory, which a GPU fills with zeros at once, or apart.

    On a CPU they are apart, because so large a block would be mapped afresh in each step.
    """
    sizes = [x.numel() for x in heads]
    memory = heads[0].new_empty(sum(sizes)) if together else None
    parts = [x.new_empty(x.numel()) for x in heads] if memory is None else torch.split(memory, sizes)
    return memory, [_laid_out(part, x) for part, x in zip(parts, heads)]


def _laid_out(part: Tensor, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    last = x.stride(1) == 1 and c > 1 and h * w > 1
    return part.view(b, h, w, c).permute(0, 3, 1, 2) if last else part.view(b, c, h, w)


def _backward(
    grad: Tensor,
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    region: Tensor,
    factor: Tensor,
    classes: int,
    logit: bool,
    student_clamp: float,
    teacher_scale: float,
    teacher_clamp: float,
) -> list[Tensor]:
    kernels, where = _C.on(region)
    student = [_even(x) for x in student]
    memory, parts = _parts(student, region.is_cuda)
    kernels.response_loss_backward(
        where, grad.to(region.dtype).contiguous(), student, [_even(x) for x in teacher], classes, region.contiguous(),
        factor, logit, student_clamp, teacher_scale, teacher_clamp, _table(student), memory, parts,
    )  # fmt: skip
    return parts


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    student, region, teacher, _, *options, _ = inputs
    ctx.save_for_backward(region, output[1], *student, *teacher)
    ctx.options = options


def _recall(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    region, factor, *heads = ctx.saved_tensors
    n = len(heads) // 2
    return (grad, heads[:n], heads[n:], region, factor, *ctx.options)


_response_loss = differentiable(
    Op(
        "response_loss(Tensor[] student, Tensor region, Tensor[] teacher, Tensor? normalizer, int classes, bool logit, "
        "float student_clamp, float teacher_scale, float teacher_clamp, float eps) -> (Tensor, Tensor)",
        _forward,
        lambda student, region, *_: (region.new_empty(2), region.new_empty(())),
    ),
    Op(
        "response_loss_backward(Tensor grad, Tensor[] student, Tensor[] teacher, Tensor region, Tensor factor, "
        "int classes, bool logit, float student_clamp, float teacher_scale, float teacher_clamp) -> Tensor[]",
        _backward,
        lambda grad, student, *_: _parts([_even(x) for x in student], student[0].is_cuda)[1],
    ),
    _save,
    _recall,
)
