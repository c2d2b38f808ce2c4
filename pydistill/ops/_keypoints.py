"""What the losses at key points share: their checks, and where their points read the maps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._layout import laid_out, walkable
from pydistill.ops._register import accumulator

_MOST = 1024  # points of a box


class Reading(NamedTuple):
    """Maps as the kernels walk them, and the cells that each point reads, of one call."""

    student: Tensor
    teacher: Tensor
    interleaved: bool
    cell: Tensor
    weight: Tensor
    used: Tensor
    blocks: int
    groups: int
    per_group: int

    def owners(self) -> tuple[Tensor, Tensor]:
        """The cells of each group of boxes, ascending, and where each of them was."""
        b, _, k, corners = self.cell.shape
        ascending, order = self.cell.view(b, self.groups, self.per_group * k * corners).sort(dim=-1, stable=True)
        return ascending, order


def read(student: Tensor, teacher: Tensor, keypoints: Tensor, valid: Tensor, swap_xy: bool) -> Reading:
    """Lays maps out alike, and finds the cells."""
    kernels, where = _C.on(student)
    student, interleaved = laid_out(student)
    layout = torch.channels_last if interleaved else torch.contiguous_format
    teacher = teacher if walkable(teacher, interleaved) else teacher.contiguous(memory_format=layout)
    b, m, k, _ = keypoints.shape
    block, groups, per_group = kernels.keypoint_layout(m, k, interleaved, keypoints.element_size())
    cell = keypoints.new_empty(b, groups * per_group, k, 4, dtype=torch.int32)
    weight, used = torch.empty_like(cell, dtype=keypoints.dtype), keypoints.new_empty(b * m)
    h, w = student.shape[2:]
    kernels.keypoint_cells(where, keypoints.contiguous(), valid.contiguous(), h, w, swap_xy, cell, weight, used)
    blocks = -(-student.shape[1] // block)
    return Reading(student, teacher, interleaved, cell, weight, used, blocks, groups, per_group)


def empty_like(student: Tensor) -> Tensor:
    """A gradient, as the kernels lay it out."""
    return torch.empty_like(laid_out(student)[0])


class Arguments(NamedTuple):
    """Tensors as the registered operators take them."""

    student: Tensor
    teacher: Tensor
    keypoints: Tensor
    valid: Tensor
    normalizer: Tensor | None


def checked(
    op: str,
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    norm: int,
    normalizer: Tensor | float | None,
    eps: float,
) -> Arguments:
    """Raises for what is not as both losses document it."""
    _check.tensors(op, student=student, teacher=teacher, keypoints=keypoints, valid=valid)
    _check.numbers(op, norm=norm, eps=eps)
    if student.ndim != 4:
        raise ValueError(f"{op}: expected student of shape (B, C, H, W), got {list(student.shape)}")
    if teacher.shape != student.shape:
        got = f"{list(student.shape)} and {list(teacher.shape)}"
        raise ValueError(f"{op}: expected student and teacher of one shape, got {got}; adapt one of them first")
    b = student.shape[0]
    if keypoints.ndim != 4 or keypoints.shape[0] != b or keypoints.shape[3] != 2 or keypoints.shape[2] > _MOST:
        expected = f"({b}, M, K, 2) with at most {_MOST} points"
        raise ValueError(f"{op}: expected keypoints of shape {expected}, got {list(keypoints.shape)}")
    if valid.shape != keypoints.shape[:2]:
        raise ValueError(f"{op}: expected valid of shape {list(keypoints.shape[:2])}, got {list(valid.shape)}")
    for name, x in (("student", student), ("teacher", teacher), ("keypoints", keypoints)):
        if not x.is_floating_point():
            raise TypeError(f"{op}: expected {name} of a floating point dtype, got {x.dtype}")
    if valid.dtype != torch.bool:
        raise TypeError(f"{op}: expected valid of dtype bool, got {valid.dtype}")
    if norm not in (1, 2):
        raise ValueError(f"{op}: expected norm 1 or 2, got {norm!r}")
    check_normalizer(op, normalizer)
    if not eps >= 0:
        raise ValueError(f"{op}: expected eps >= 0, got {eps}")
    if _check.enabled(student, teacher, keypoints, valid):
        _check.finite(op, "student", student)
        _check.finite(op, "teacher", teacher)
        _check.finite(op, "keypoints", keypoints, valid[..., None, None])
    wide = accumulator(student.dtype)
    if teacher.dtype != student.dtype:
        teacher = teacher.to(accumulator(student.dtype))
    keypoints = keypoints.detach().to(wide)
    return Arguments(student, teacher.detach(), keypoints, valid, scalar(normalizer, keypoints))


def check_normalizer(op: str, normalizer: Tensor | float | None) -> None:
    """None, a number or a tensor of one element."""
    if isinstance(normalizer, Tensor):
        if normalizer.numel() != 1:
            raise ValueError(f"{op}: expected normalizer of one element, got {list(normalizer.shape)}")
    elif normalizer is not None:
        _check.numbers(op, normalizer=normalizer)


def scalar(value: Tensor | float | None, like: Tensor) -> Tensor | None:
    """A 0-dim tensor of ``like``'s dtype, made on its device."""
    if isinstance(value, Tensor):
        return value.detach().to(like.dtype).reshape(())
    return None if value is None else like.new_full((), value)


def used_boxes(keypoints: Tensor, valid: Tensor) -> Tensor:
    """Which boxes count, (B, M): those that are valid and whose points are all finite."""
    return valid & keypoints.isfinite().all(-1).all(-1)


def reference(
    fn: Callable[[Tensor, Tensor], Tensor],
    student: Tensor,
    teacher: Tensor,
    keypoints: Tensor,
    valid: Tensor,
    swap_xy: bool,
    normalizer: Any,
    eps: float,
) -> Tensor:
    """The loss whose boxes cost ``fn(student's points, teacher's points)``, each (boxes, K, C), in plain PyTorch."""
    wide = accumulator(student.dtype)
    student, teacher, keypoints = student.to(wide), teacher.detach().to(wide), keypoints.detach().to(wide)
    used = used_boxes(keypoints, valid)
    h, w = (max(side, 1) for side in student.shape[2:])
    u, v = keypoints.masked_fill(~used[..., None, None], -2.0).unbind(-1)
    place = torch.stack([v / h, u / w] if swap_xy else [u / w, v / h], -1)
    costs = []
    for x in (student, teacher):
        points = x.sum() * 0 + x.new_zeros(*keypoints.shape[:3], x.shape[1])
        if x.numel() and keypoints.numel():
            points = F.grid_sample(x, 2 * place - 1, padding_mode="zeros", align_corners=False).permute(0, 2, 3, 1)
        costs.append(points.flatten(0, 1).masked_fill(~used.flatten()[:, None, None], 0))
    total = fn(*costs)[used.flatten()].sum() if used.numel() else student.sum() * 0
    count = (
        used.sum().to(wide) if normalizer is None else torch.as_tensor(normalizer, dtype=wide, device=student.device)
    )
    return torch.where(total == 0, total, total / (count.reshape(()) + eps))
