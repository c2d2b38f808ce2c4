"""The loss that makes the attention of one stage imitate that of another."""

from typing import Any, Literal

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._register import Op, accumulator, differentiable, present
from pydistill.ops.attention_map import (
    NORMALIZE,
    SOFTMAX,
    Mapping,
    Normalize,
    attention_map_reference,
    backward_buffers,
    check_features,
    check_options,
    energy_backward,
    energy_of,
    fake_energy,
    gradient_like,
    scale_buffer,
    size_of,
    walkable,
)  # fmt: skip

Reduction = Literal["batchmean", "mean", "sum"]

_REDUCTIONS = ("batchmean", "mean", "sum")


def attention_distillation_loss(
    shallow: Tensor,
    deep: Tensor,
    *,
    size: tuple[int, int] | None = None,
    mapping: Mapping = "sum_power",
    power: float = 2.0,
    normalize: Normalize | None = None,
    temperature: float = 1.0,
    align_corners: bool = False,
    reduction: Reduction = "batchmean",
    detach_target: bool = True,
) -> Tensor:
    r"""How far the attention of a shallow stage is from that of a deeper one.

    .. math:: L = \frac1r \sum_{n,y,x} \big( \Psi(F^{shallow})_{nyx} - \Psi(F^{deep})_{nyx} \big)^2

    Args:
        shallow: (N, C, h, w), the features that learn.
        deep: (N, C', h', w'), the features that teach, or their ready map (N, H, W).
        size: (H, W) at which the maps are compared; None: that of ``shallow``.
        mapping, power, normalize, temperature, align_corners: of ``attention_map``.
        reduction: r = N ("batchmean", the authors' advice: not divided by H W), N H W ("mean", the PyTorch port) or 1
            ("sum"). An empty batch gives 0.
        detach_target: no gradient to ``deep``. The paper calls it the target; both ports let it learn, too.

    Returns:
        0-dim loss, float64 for float64 features, else float32. Each of the N maps adds between 0 and 2. NaN where a
        feature is NaN.

    Raises:
        ValueError: a shape or an option outside the above. TypeError: another dtype.

    Reference:
        arXiv:1908.00821, section 3.2; reductions: cardwing/Codes-for-Lane-Detection issues 180 and 207,
        InhwanBae/ENet-SAD_Pytorch.
    """
    op = "attention_distillation_loss"
    _check.tensors(op, shallow=shallow, deep=deep)
    check_features(shallow, op, mapping, normalize, temperature, power)
    height, width = size_of(shallow, size, op)
    _check_deep(shallow, deep, height, width)
    factor = loss_factor(op, reduction, shallow.shape[0], height * width)
    if deep.dtype != shallow.dtype and deep.dtype != accumulator(shallow.dtype):
        deep = deep.to(accumulator(shallow.dtype))
    maximum, norm = mapping == "max_power", NORMALIZE.index(normalize)
    options = (height, width, maximum, power, norm, temperature, align_corners, factor)
    result: Tensor = _distillation_loss(shallow, deep.detach() if detach_target else deep, *options)
    return result


def attention_distillation_loss_reference(
    shallow: Tensor,
    deep: Tensor,
    *,
    size: tuple[int, int] | None = None,
    reduction: Reduction = "batchmean",
    detach_target: bool = True,
    **options: Any,
) -> Tensor:
    """The specification: what the kernels must compute, in plain PyTorch."""
    size = size or (shallow.shape[2], shallow.shape[3])
    target = deep if deep.ndim == 3 else attention_map_reference(deep, size, **options)
    difference = attention_map_reference(shallow, size, **options) - (target.detach() if detach_target else target)
    per = {"batchmean": max(shallow.shape[0], 1), "mean": max(difference.numel(), 1), "sum": 1}[reduction]
    return difference.square().sum() / per


def energy_distillation_loss(
    shallow: Tensor,
    deep: Tensor,
    *,
    size: tuple[int, int] | None = None,
    normalize: Normalize | None = None,
    temperature: float = 1.0,
    align_corners: bool = False,
    reduction: Reduction = "batchmean",
    detach_target: bool = True,
) -> Tensor:
    r"""``attention_distillation_loss`` of features whose ``channel_energy`` E is at hand, so that each is read once.

    .. math:: L = \frac1r \sum_{n,y,x} \big( \Psi^{shallow}_{nyx} - \Psi^{deep}_{nyx} \big)^2, \qquad
              \Psi = \mathrm{softmax}_{HW}\big( s\,B(E) / \tau \big)

    with B, s and :math:`\tau` those of ``attention_map``.

    Args:
        shallow: (N, h, w), the energy of the features that learn; float64, float32, float16 or bfloat16.
        deep: (N, h', w'), the energy of those that teach. Both are converted to float64 if one of them is, else to
            float32.
        size: (H, W) at which the maps are compared; None: that of ``shallow``.
        normalize, align_corners: of ``attention_map``.
        temperature: tau > 0, a number. A learnable one is folded into the energies by the caller: without
            ``normalize`` pass E / tau.
        reduction: r = N ("batchmean"), N H W ("mean") or 1 ("sum"). An empty batch gives 0.
        detach_target: no gradient to ``deep``.

    Returns:
        0-dim loss, float64 for float64 energies, else float32. Each of the N maps adds between 0 and 2. NaN where an
        energy is NaN.

    Raises:
        ValueError: a shape or an option outside the above; under ``pydistill.checking`` energies that are not finite.
        TypeError: another dtype.

    Reference:
        Hou et al., Learning Lightweight Lane Detection CNNs by Self Attention Distillation, ICCV 2019,
        arXiv:1908.00821, section 3.2.
    """
    op = "energy_distillation_loss"
    _check.tensors(op, shallow=shallow, deep=deep)
    for name, energy in (("shallow", shallow), ("deep", deep)):
        if energy.ndim != 3:
            raise ValueError(f"{op}: expected {name} energy of shape (N, h, w), got {list(energy.shape)}")
        if not energy.is_floating_point():
            raise TypeError(f"{op}: expected {name} energy of a floating point dtype, got {energy.dtype}")
        _check.finite(op, f"{name} energy", energy)
    if shallow.shape[0] != deep.shape[0]:
        raise ValueError(f"{op}: expected as many images in both, got {shallow.shape[0]} and {deep.shape[0]}")
    check_options(op, normalize, temperature)
    wide = accumulator(torch.promote_types(shallow.dtype, deep.dtype))
    shallow, deep = shallow.to(wide), deep.to(wide)
    height, width = size_of(shallow, size, op)
    factor = loss_factor(op, reduction, shallow.shape[0], height * width)
    options = (height, width, NORMALIZE.index(normalize), temperature, align_corners, factor)
    result: Tensor = _energy_loss(shallow, deep.detach() if detach_target else deep, *options)
    return result


def check_reduction(op: str, reduction: str) -> None:
    """Raises where ``reduction`` is none of the known."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{op}: expected reduction in {_REDUCTIONS}, got {reduction!r}")


def loss_factor(op: str, reduction: str, images: int, cells: int) -> float:
    """What the sum of squared differences is multiplied by."""
    check_reduction(op, reduction)
    return {"batchmean": 1 / max(images, 1), "mean": 1 / max(images * cells, 1), "sum": 1.0}[reduction]


def _check_deep(shallow: Tensor, deep: Tensor, height: int, width: int) -> None:
    op = "attention_distillation_loss"
    if deep.ndim not in (3, 4) or deep.shape[0] != shallow.shape[0]:
        what = f"deep of shape ({shallow.shape[0]}, C, h, w) or ({shallow.shape[0]}, H, W)"
        raise ValueError(f"{op}: expected {what}, got {list(deep.shape)}")
    if deep.ndim == 3 and tuple(deep.shape[1:]) != (height, width):
        raise ValueError(f"{op}: expected a deep map of {[height, width]}, got {list(deep.shape[1:])}")
    if not deep.is_floating_point():
        raise TypeError(f"{op}: expected deep of a floating point dtype, got {deep.dtype}")
    if deep.device != shallow.device:
        raise ValueError(f"{op}: expected deep on {shallow.device}, got {deep.device}")
    _check.finite(op, "deep", deep)


# --- kernels: allocate, launch -----------------------------------------------------------------------------------


def _loss_forward(
    shallow: Any,
    deep: Any,
    deep_map: Any,
    height: Any,
    width: Any,
    norm: Any,
    temperature: Any,
    align_corners: Any,
    factor: Any,
) -> Any:
    """The loss of two energies, or of an energy and a map. Returns loss, both maps, both scales."""
    kernels, resource = _C.on(shallow)
    n, bands = shallow.shape[0], kernels.attention_bands(height, width)
    map, other = shallow.new_empty(n, height, width), deep_map
    partial, deep_partial = shallow.new_empty(n, bands, 2), None
    scale, deep_scale = scale_buffer(shallow, norm), None
    if deep is not None:
        other = torch.empty_like(map)
        deep_partial, deep_scale = torch.empty_like(partial), scale_buffer(deep, norm)
    squares, loss = shallow.new_empty(n, bands), shallow.new_empty(())
    options = (temperature, align_corners, norm == 2, factor)
    buffers = (scale, deep_scale, partial, deep_partial, squares, map, other, loss)
    kernels.attention_distillation_loss(resource, shallow, deep, *options, *buffers)
    return loss, map, other, scale, deep_scale


def _loss_backward(
    grad: Any,
    energy: Any,
    map: Any,
    other: Any,
    scale: Any,
    norm: Any,
    temperature: Any,
    align_corners: Any,
    factor: Any,
) -> Any:
    kernels, resource = _C.on(energy)
    dots, half, denergy = backward_buffers(kernels, energy, map)
    kernels.attention_distillation_loss_backward(
        resource,
        grad.to(energy.dtype),
        energy,
        map,
        other,
        temperature,
        align_corners,
        norm == 2,
        factor,
        scale,
        dots,
        half,
        denergy,
    )
    return denergy


def _distillation_forward(
    shallow: Any,
    deep: Any,
    height: Any,
    width: Any,
    maximum: Any,
    power: Any,
    norm: Any,
    temperature: Any,
    align_corners: Any,
    factor: Any,
) -> Any:
    energy, winner = energy_of(shallow, maximum, power)
    if deep.ndim == 3:
        ready = deep.to(energy.dtype).contiguous()
        loss, map, _, scale, _ = _loss_forward(
            energy, None, ready, height, width, norm, temperature, align_corners, factor
        )
        return loss, map, None, energy, None, winner, None, scale, None
    deep_energy, deep_winner = energy_of(deep, maximum, power)
    loss, map, deep_map, scale, deep_scale = _loss_forward(
        energy, deep_energy, None, height, width, norm, temperature, align_corners, factor
    )
    return loss, map, deep_map, energy, deep_energy, winner, deep_winner, scale, deep_scale


def _distillation_backward(
    grad: Any,
    shallow: Any,
    deep: Any,
    map: Any,
    deep_map: Any,
    energy: Any,
    deep_energy: Any,
    winner: Any,
    deep_winner: Any,
    scale: Any,
    deep_scale: Any,
    power: Any,
    norm: Any,
    temperature: Any,
    align_corners: Any,
    factor: Any,
    shallow_needed: Any,
    deep_needed: Any,
) -> Any:
    options = (norm, temperature, align_corners, factor)
    target = deep.to(map.dtype).contiguous() if deep_map is None else deep_map
    dshallow = ddeep = None
    if shallow_needed:
        denergy = _loss_backward(grad, energy, map, target, scale, *options)
        dshallow = energy_backward(denergy, shallow, winner, power)
    if deep_needed and deep_map is None:
        ddeep = ((target - map) * (2 * factor * grad)).to(deep.dtype)
    elif deep_needed:
        denergy = _loss_backward(grad, deep_energy, deep_map, map, deep_scale, *options)
        ddeep = energy_backward(denergy, deep, deep_winner, power)
    return dshallow, ddeep


# --- registration ------------------------------------------------------------------------------------------------


def _fake_energy_loss(
    shallow: Any, deep: Any, height: Any, width: Any, norm: Any, temperature: Any, align_corners: Any, factor: Any
) -> Any:
    map = shallow.new_empty(shallow.shape[0], height, width)
    return shallow.new_empty(()), map, torch.empty_like(map), scale_buffer(shallow, norm), scale_buffer(deep, norm)


def _fake_distillation(
    shallow: Any,
    deep: Any,
    height: Any,
    width: Any,
    maximum: Any,
    power: Any,
    norm: Any,
    temperature: Any,
    align_corners: Any,
    factor: Any,
) -> Any:
    energy, winner = fake_energy(shallow, maximum)
    map, loss, scale = (
        energy.new_empty(energy.shape[0], height, width),
        energy.new_empty(()),
        scale_buffer(energy, norm),
    )
    if deep.ndim == 3:
        return loss, map, None, energy, None, winner, None, scale, None
    deep_energy, deep_winner = fake_energy(deep, maximum)
    deep_energy = deep_energy.to(energy.dtype)
    return (
        loss,
        map,
        torch.empty_like(map),
        energy,
        deep_energy,
        winner,
        deep_winner,
        scale,
        scale_buffer(deep_energy, norm),
    )


def _save_energy_loss(ctx: Any, inputs: Any, output: Any) -> None:
    shallow, deep, _, _, *ctx.options = inputs  # norm, temperature, align_corners, factor
    _, map, deep_map, *scales = output
    ctx.save_for_backward(shallow, deep, map, deep_map, *[present(s) for s in scales])


def _save_distillation(ctx: Any, inputs: Any, output: Any) -> None:
    shallow, deep, _, _, _, *ctx.options = inputs  # power, norm, temperature, align_corners, factor
    _, map, deep_map, energy, deep_energy, *winners_scales = output
    ready = deep.ndim == 3
    kept = (map, None if ready else deep_map, energy, None if ready else deep_energy)
    ctx.save_for_backward(shallow, deep, *kept, *[present(t) for t in winners_scales])


def _energy_loss_backward(
    grad: Any,
    shallow: Any,
    deep: Any,
    map: Any,
    deep_map: Any,
    scale: Any,
    deep_scale: Any,
    norm: Any,
    temperature: Any,
    align_corners: Any,
    factor: Any,
    shallow_needed: Any,
    deep_needed: Any,
) -> Any:
    options = (norm, temperature, align_corners, factor)
    dshallow = _loss_backward(grad, shallow, map, deep_map, scale, *options) if shallow_needed else None
    ddeep = _loss_backward(grad, deep, deep_map, map, deep_scale, *options) if deep_needed else None
    return dshallow, ddeep


def _fake_gradient(x: Tensor) -> Tensor:
    return gradient_like(walkable(x)) if x.ndim == 4 else torch.empty_like(x)


def _fake_gradients(grad: Any, shallow: Any, deep: Any, *rest: Any) -> Any:
    shallow_needed, deep_needed = rest[-2:]
    return _fake_gradient(shallow) if shallow_needed else None, _fake_gradient(deep) if deep_needed else None


_energy_loss = differentiable(
    Op(
        f"energy_distillation_loss(Tensor shallow, Tensor deep, int height, int width, {SOFTMAX}, float factor)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        lambda shallow, deep, *options: _loss_forward(shallow.contiguous(), deep.contiguous(), None, *options),
        _fake_energy_loss,
    ),
    Op(
        "energy_distillation_loss_backward(Tensor grad, Tensor shallow, Tensor deep, Tensor map, Tensor deep_map,"
        f" Tensor? scale, Tensor? deep_scale, {SOFTMAX}, float factor, bool shallow_needed, bool deep_needed)"
        " -> (Tensor, Tensor)",
        lambda grad, shallow, deep, *rest: _energy_loss_backward(grad, shallow.contiguous(), deep.contiguous(), *rest),
        _fake_gradients,
    ),
    save=_save_energy_loss,
    recall=lambda ctx, grad: (grad, *ctx.saved_tensors, *ctx.options, *ctx.needs_input_grad[:2]),
)

_distillation_loss = differentiable(
    Op(
        "attention_distillation_loss(Tensor shallow, Tensor deep, int height, int width, bool maximum, float power,"
        f" {SOFTMAX}, float factor)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        _distillation_forward,
        _fake_distillation,
    ),
    Op(
        "attention_distillation_loss_backward(Tensor grad, Tensor shallow, Tensor deep, Tensor map, Tensor? deep_map,"
        " Tensor energy, Tensor? deep_energy, Tensor? winner, Tensor? deep_winner, Tensor? scale, Tensor? deep_scale,"
        f" float power, {SOFTMAX}, float factor, bool shallow_needed, bool deep_needed) -> (Tensor, Tensor)",
        _distillation_backward,
        _fake_gradients,
    ),
    save=_save_distillation,
    recall=lambda ctx, grad: (grad, *ctx.saved_tensors, *ctx.options, *ctx.needs_input_grad[:2]),
)
