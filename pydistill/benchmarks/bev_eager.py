"""The losses of UniDistill as one writes them in PyTorch, with the released code's arithmetic."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def sampled(x: Tensor, points: Tensor) -> Tensor:
    """(B, M, K, C) of x (B, C, H, W) at points in cells."""
    sides = points.new_tensor(x.shape[:1:-1])
    return F.grid_sample(x, points / sides * 2 - 1, align_corners=False).permute(0, 2, 3, 1)


def feature(student: Tensor, teacher: Tensor, points: Tensor, valid: Tensor) -> Tensor:
    boxes = (sampled(student, points) - sampled(teacher, points)).abs().mean((2, 3))
    return (boxes * valid).sum() / (valid.sum() + 1e-4)


def relation(student: Tensor, teacher: Tensor, points: Tensor, valid: Tensor) -> Tensor:
    grams = []
    for x in (student, teacher):
        p = sampled(x, points)
        p = p / (p.norm(dim=-1, keepdim=True) + 1e-4)
        grams.append(p @ p.mT)
    return ((grams[0] - grams[1]).abs().mean((2, 3)) * valid).sum() / (valid.sum() + 1e-4)


def response(student: list[Tensor], teacher: list[Tensor], region: Tensor, tasks: int) -> Tensor:
    """The heat maps of all tasks come first."""
    s, t = torch.cat(student[:tasks], 1), torch.cat(teacher[:tasks], 1)
    p, q = s.sigmoid().clamp(1e-4, 1 - 1e-4), (t / 2).sigmoid().clamp(1e-4, 1 - 1e-4)
    classes = ((p.max(1).values - q.max(1).values).abs() * region).sum()
    numbers = ((torch.cat(student[tasks:], 1) - torch.cat(teacher[tasks:], 1)).abs().mean(1) * region).sum()
    return (classes + numbers) / (region.sum() + 1e-4)


def region(boxes: Tensor, valid: Tensor, start: float, cell: float, size: int) -> Tensor:
    """On the host, a box at a time, as the released code does."""
    maps = np.zeros((len(boxes), size, size), np.float32)
    for image, sample in enumerate(boxes.cpu().numpy()):
        for box, real in zip(sample, valid[image].tolist()):
            if not real:
                continue
            length, width = box[3] / cell, box[4] / cell
            total, area = length + width, length * width
            lengths = (
                (total + np.sqrt(total**2 - 4 * area * 0.3 / 1.7)) / 2,
                (2 * total + np.sqrt(4 * total**2 - 4.8 * area)) / 2,
                (-1.4 * total + np.sqrt(1.96 * total**2 + 3.36 * area)) / 2,
            )
            radius = max(0, int(min(lengths)))
            side = np.arange(-radius, radius + 1)
            sigma = (2 * radius + 1) / 6
            bell = np.exp(-(side[:, None] ** 2 + side**2) / (2 * sigma * sigma))
            bell[bell < np.finfo(bell.dtype).eps * bell.max()] = 0
            x, y = int((box[0] - start) / cell), int((box[1] - start) / cell)
            left, right = min(x, radius), min(size - x, radius + 1)
            low, high = min(y, radius), min(size - y, radius + 1)
            if left + right <= 0 or low + high <= 0 or not (0 <= x < size and 0 <= y < size):
                continue
            part = maps[image, y - low : y + high, x - left : x + right]
            np.maximum(part, bell[radius - low : radius + high, radius - left : radius + right], out=part)
    return torch.from_numpy(maps).to(boxes.device)
