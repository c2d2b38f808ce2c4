"""DETRDistill as one writes it: images and stages in Python, SciPy on the CPU, boxes of pairs in plain PyTorch."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss

CONFIG = SimpleNamespace(
    class_cost=1, bbox_cost=5, giou_cost=2, num_labels=91, focal_alpha=0.25, auxiliary_loss=True, decoder_layers=6,
    bbox_loss_coefficient=5, giou_loss_coefficient=2,
)  # fmt: skip


def detector(logits, boxes, labels, target_boxes):
    """transformers' loss of Deformable DETR, of all stages (L, B, Q, ...)."""
    targets = [{"class_labels": c, "boxes": b} for c, b in zip(labels, target_boxes)]
    options = dict(outputs_class=logits, outputs_coord=boxes)
    return DeformableDetrForObjectDetectionLoss(logits[-1], targets, logits.device, boxes[-1], CONFIG, **options)[0]


def corners(b):
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


def giou(a, b):
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    either = areas[0] + areas[1] - both
    return both / either - (hull - either) / hull


def instances(logits, boxes, teacher_logits, teacher_boxes):
    """All pairs, as the released code takes them."""
    total, images, queries = 0.0, logits.shape[1], logits.shape[2]
    for x, b, t, c in zip(logits, boxes, teacher_logits, teacher_boxes):
        for i in range(images):
            p = t[i].sigmoid()
            with torch.no_grad():
                cost = F.softplus(x[i]).sum(1, keepdim=True) - x[i] @ p.T + 5 * torch.cdist(b[i], c[i], p=1)
                cost = cost - 2 * giou(corners(b[i])[:, None], corners(c[i]))
                match = torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1]).to(p.device)
            total = total + F.binary_cross_entropy_with_logits(x[i], p[match], reduction="sum")
            total = total + 5 * F.l1_loss(b[i], c[i][match], reduction="sum")
            total = total + 2 * (1 - giou(corners(b[i]), corners(c[i][match]))).sum()
    return total / (images * queries)


def features(student, teacher, queries, teacher_logits, teacher_boxes, target_boxes, topk=100):
    """Squared differences under the masks of the best queries, stage by stage and image by image."""
    total = 0.0
    for stage, of_stage in enumerate(queries):
        masks = [[] for _ in teacher]
        for i, h in enumerate(of_stage):
            scores, index = teacher_logits[stage, i].sigmoid().flatten().topk(topk)
            index = index // teacher_logits.shape[-1]
            a, b = corners(teacher_boxes[stage, i][index])[:, None], corners(target_boxes[i])
            both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
            iou = both / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both)
            quality = scores * iou.max(1).values
            for mask, f in zip(masks, teacher):
                cosine = torch.einsum("kd,dyx->kyx", F.normalize(h[index], dim=1), F.normalize(f[i], dim=0))
                m = (quality[:, None, None] * cosine).sum(0).clamp(min=1e-2)
                mask.append(m / m.max())
        for mask, s, t in zip(masks, student, teacher):
            m = torch.stack(mask).unsqueeze(1)
            total = total + F.mse_loss(m * s, m * t)
    return total
