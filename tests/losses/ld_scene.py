"""A small batch for the tests of LDLoss: three images of 96 x 128 pixels with 3, 0 and 1 boxes, 252 anchors."""

import torch

from pydistill.losses import DensePrediction

STRIDES, SIZES = (8, 16, 32), [192, 48, 12]
PRESETS = ("gfl", "gflv2", "atss", "fcos", "retina")
CASES = [*((p, r) for p in PRESETS for r in ("paper", "released")), ("gfl", "mmdet")]


def grid(height=96, width=128, strides=STRIDES):
    levels = []
    for s in strides:
        y, x = torch.meshgrid(torch.arange(0, height, s), torch.arange(0, width, s), indexing="ij")
        centre = torch.stack([x, y], -1).reshape(-1, 2).double()
        levels.append(torch.cat([centre - 4 * s, centre + 4 * s], -1))
    return torch.cat(levels)


BOXES = torch.tensor(
    [
        [[10.0, 12, 75, 80], [60, 5, 121, 60], [20, 50, 46, 77]],
        [[0.0, 0, 0, 0], [5, 5, 40, 40], [0, 0, 0, 0]],
        [[33.0, 20, 71, 90], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    dtype=torch.float64,
)
LABELS, COUNTS = torch.tensor([[1, 4, 0], [0, 1, 0], [2, 0, 0]]), torch.tensor([3, 0, 1])


def prediction(seed, images=3, classes=5, bins=17, anchors=252, dtype=torch.float64, grad=False):
    rng = torch.Generator().manual_seed(seed)
    shapes = [(images, anchors, classes), (images, anchors, 4 * bins), (images, anchors)]
    parts = [torch.randn(s, generator=rng, dtype=torch.float64) for s in shapes]
    scores = torch.rand(shapes[0], generator=rng, dtype=torch.float64) * 0.8 + 0.1
    parts = [x.to(dtype).requires_grad_(grad) for x in (parts[0] - 1, 2 * parts[1], parts[2], scores)]
    return DensePrediction(*parts)


def parts(p):
    return [p.logits, p.sides, p.centerness, p.scores]


def gradients(terms, p):
    return [
        g
        for g in torch.autograd.grad(sum(terms.values()), parts(p), retain_graph=True, allow_unused=True)
        if g is not None
    ]


def run(loss, student, teacher, boxes=BOXES, labels=LABELS, counts=COUNTS, **options):
    return loss(student, teacher, grid().to(boxes.device), SIZES, boxes, labels, counts, **options)
