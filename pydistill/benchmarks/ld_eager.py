"""One step of localization distillation for GFL as one writes it in PyTorch, with the released code's arithmetic.

Rows are picked out with indices where few take part, as the released code and mmdetection do: that is fast on a CPU.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

REG_MAX, TOPK, GAMMA = 16, 9, 0.25


class Level(NamedTuple):
    """One feature level of a batch, anchors of all images one after the other."""

    stride: int
    logits: Tensor  # (B * a, C)
    sides: Tensor  # (B * a, 4 * n)
    teacher_logits: Tensor
    teacher_sides: Tensor
    features: Tensor  # (B * a, c)
    teacher_features: Tensor
    anchors: Tensor  # (B * a, 4)
    labels: Tensor  # (B * a,), C for background
    targets: Tensor  # (B * a, 4) pixels
    region: Tensor  # (B * a,): weight in the valuable localization region
    imitated: Tensor  # (B * a,) bool


def overlaps(a: Tensor, b: Tensor, mode: str = "iou") -> Tensor:
    """(A, G) of (A, 1, 4) and (G, 4), or (A,) of (A, 4) and (A, 4)."""
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b))
    union = area_a + area_b - shared
    if mode == "iou":
        return shared / union.clamp(min=1e-6)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    if mode == "giou":
        union, around = union.clamp(min=1e-6), hull.prod(-1).clamp(min=1e-6)
        return shared / union - (around - union) / around
    distance = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).square().sum(-1)
    return shared / area_a.clamp(min=1e-6) - distance / hull.square().sum(-1).clamp(min=1e-6)  # "DIoU" as released


def regions(anchors: Tensor, sizes: list[int], boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one image: the box of each anchor or -1, the weights of the region, the fine-grained mask and the IoU."""
    iou = overlaps(anchors[:, None], boxes)
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    distance = torch.cdist(centre, (boxes[:, :2] + boxes[:, 2:]) / 2)
    picked, start = [], 0
    for part in distance.split(sizes):
        picked.append(part.topk(min(TOPK, len(part)), dim=0, largest=False).indices + start)
        start += len(part)
    candidates = torch.cat(picked)
    of_candidates = iou.gather(0, candidates)
    threshold = of_candidates.mean(0) + of_candidates.std(0)
    near = torch.cat([centre[candidates] - boxes[:, :2], boxes[:, 2:] - centre[candidates]], -1).amin(-1) > 0.01
    score = torch.full_like(iou, -1.0).scatter_(
        0, candidates, of_candidates.masked_fill(~(near & (of_candidates >= threshold)), -1)
    )
    best, index = score.max(1)
    diou = overlaps(anchors[:, None], boxes, "diou")
    band = (diou >= GAMMA * threshold) & (diou < threshold)
    region = (iou * band).amax(1)
    return index.masked_fill(best < 0, -1), region, (iou > 0.5 * iou.amax(0)).any(1), iou


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(R,): of each row the divergence, mean over the bins, times T^2."""
    p = (teacher / temperature).softmax(1)
    return F.kl_div((student / temperature).log_softmax(1), p, reduction="none").mean(1) * temperature**2


def decode(sides: Tensor, points: Tensor) -> Tensor:
    bins = torch.arange(REG_MAX + 1, dtype=sides.dtype, device=sides.device)
    distance = (sides.view(-1, 4, REG_MAX + 1).softmax(-1) * bins).sum(-1)
    return torch.cat([points - distance[:, :2], points + distance[:, 2:]], 1)


def quality_focal(logits: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    p = logits.sigmoid()
    loss = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none") * p.square()
    at = (labels < logits.shape[1]).nonzero()[:, 0]
    of = labels[at]
    bce = F.binary_cross_entropy_with_logits(logits[at, of], scores[at], reduction="none")
    loss[at, of] = bce * (scores[at] - p[at, of]).abs().square()
    return loss.sum()


def distribution_focal(sides: Tensor, target: Tensor) -> Tensor:
    left = target.long()
    upper = target - left
    low, high = (F.cross_entropy(sides, bin, reduction="none") for bin in (left, left + 1))
    return low * (1 - upper) + high * upper


def own_terms(level: Level, samples: Tensor) -> tuple[Tensor, ...]:
    """GFL's terms and main LD: classification, box and dfl before their division, main LD, and the weights' sum."""
    at = (level.labels < level.logits.shape[1]).nonzero()[:, 0]
    scores = level.logits.new_zeros(len(level.logits))
    box = dfl = ld = level.sides.sum() * 0
    weight = level.logits.new_zeros(())
    if len(at):
        weight = level.logits.detach().sigmoid().amax(1)[at]
        anchors = level.anchors[at] / level.stride
        points, target = (anchors[:, :2] + anchors[:, 2:]) / 2, level.targets[at] / level.stride
        sides = level.sides[at]
        decoded = decode(sides, points)
        scores[at] = overlaps(decoded.detach(), target)
        box = (weight * (1 - overlaps(decoded, target, "giou"))).sum()
        distance = torch.cat([points - target[:, :2], target[:, 2:] - points], 1).clamp(0, REG_MAX - 0.1)
        of_side = weight[:, None].expand(-1, 4).reshape(-1)
        rows = sides.view(-1, REG_MAX + 1)
        dfl = (of_side * distribution_focal(rows, distance.reshape(-1))).sum() / 4
        ld = (of_side * kl(rows, level.teacher_sides[at].view(-1, REG_MAX + 1), 10.0)).sum() / 4
    return quality_focal(level.logits, level.labels, scores) / samples, box, dfl, ld, weight.sum()


def extra_terms(level: Level) -> tuple[Tensor, Tensor, Tensor]:
    """VLR LD, main KD and imitation, which mmdetection does not have."""
    at = (level.labels < level.logits.shape[1]).nonzero()[:, 0]
    vlr = (level.region > 0).nonzero()[:, 0]
    ld = kd = im = level.sides.sum() * 0
    if len(vlr):
        weight = level.region[vlr, None].expand(-1, 4).reshape(-1)
        rows = [x[vlr].view(-1, REG_MAX + 1) for x in (level.sides, level.teacher_sides)]
        ld = (weight * kl(*rows, 10.0)).sum() / 16
    if len(at):
        kd = kl(level.logits[at], level.teacher_logits[at], 2.0).mean()
        rows = level.imitated.nonzero()[:, 0]
        im = F.mse_loss(level.features[rows], level.teacher_features[rows])
    return ld, kd, im


def total(own: list[tuple[Tensor, ...]], extra: list[tuple[Tensor, ...]]) -> Tensor:
    """The loss from all levels' terms, with the weights of the released configurations."""
    classification, box, dfl, ld, weight = (torch.stack(x).sum() for x in zip(*own))
    vlr, kd, imitation = (torch.stack(x).sum() for x in zip(*extra))
    return classification + (2 * box + 0.25 * dfl) / (weight + 1e-6) + 0.25 * ld + 0.25 * vlr + 10 * kd + 2 * imitation


def levels_of(maps, anchors: Tensor, strides: list[int], boxes: list[Tensor], labels: list[Tensor]):
    """The levels of a batch, their anchors assigned, and the number of positives."""
    sizes = [x.shape[-2] * x.shape[-1] for x in maps[0]]
    classes, found = maps[0][0].shape[1], []
    for of_image, label in zip(boxes, labels):
        index, region, imitated, _ = regions(anchors, sizes, of_image)
        at = (index >= 0).nonzero()[:, 0]
        label_of = label.new_full((len(anchors),), classes)
        target = torch.zeros_like(anchors)
        label_of[at], target[at] = label[index[at]], of_image[index[at]]
        found.append((anchors, label_of, target, region, imitated))
    samples = sum((x[1] < classes).sum().clamp(min=1) for x in found)
    split = [[part.split(sizes) for part in image] for image in found]
    levels = [
        Level(
            stride,
            *(x[i].permute(0, 2, 3, 1).reshape(-1, x[i].shape[1]) for x in maps),
            *(torch.cat(parts) for parts in zip(*([part[i] for part in image] for image in split))),
        )
        for i, stride in enumerate(strides)
    ]
    return levels, samples


def step(maps, anchors: Tensor, strides: list[int], boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
    """The whole loss; ``maps``: student's and teacher's logits, sides and features as in :class:`Level`."""
    levels, samples = levels_of(maps, anchors, strides, boxes, labels)
    return total([own_terms(level, samples) for level in levels], [extra_terms(level) for level in levels])
