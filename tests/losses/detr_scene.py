"""A small batch for the tests of DETRDistillLoss: three images with 3, 0 and 2 boxes."""

import torch

from pydistill.losses import SetPrediction, SetTargets

DETECTORS = ("deformable_detr", "conditional_detr", "detr", "rt_detr", "d_fine", "adamixer")
CLASSES, CHANNELS, SHAPES = 5, 6, ((8, 10), (4, 5))


def rand(rng, *shape):
    return torch.rand(shape, generator=rng, dtype=torch.float64)


def targets(images=3, padding=4):
    rng = torch.Generator().manual_seed(7)
    boxes = torch.cat([rand(rng, 3, 4, 2) * 0.6 + 0.2, rand(rng, 3, 4, 2) * 0.4 + 0.1], -1)
    labels, sizes = (
        torch.tensor([[1, 4, 0, 77], [77] * 4, [2, 2, 77, 77]]),
        torch.tensor([[96, 128], [64, 64], [80, 50]]),
    )
    counts = torch.tensor([3, 0, 2]).clamp(max=padding)
    return SetTargets(labels[:images, :padding], boxes[:images, :padding], counts[:images], sizes[:images])


def prediction(seed, stages=2, queries=12, detector="deformable_detr", images=3, dtype=torch.float64, grad=False):
    """Queries near the boxes of ``targets`` and elsewhere, so that matchings mean something."""
    rng = torch.Generator().manual_seed(seed)
    near = targets().boxes.repeat(1, queries // 4 + 1, 1)[:, :queries]
    boxes = (near + 0.3 * (rand(rng, stages, 3, queries, 4) - 0.5)).clamp(0.05 + 0.01 * seed, 0.95 - 0.01 * seed)
    logits = 3 * rand(rng, stages, 3, queries, CLASSES + (detector == "detr")) - 2
    maps = [rand(rng, 3, CHANNELS, *shape) - 0.3 for shape in SHAPES]
    made = [logits, boxes, rand(rng, stages, 3, queries, CHANNELS) - 0.4]
    made, maps = [x[:, :images].to(dtype) for x in made], [x[:images].to(dtype) for x in maps]
    return SetPrediction(*(x.requires_grad_(grad) for x in made), [x.requires_grad_(grad) for x in maps])


def tensors(p):
    return [p.logits, p.boxes, *(() if p.queries is None else (p.queries,)), *p.features]


def of_tensors(parts):
    return SetPrediction(parts[0], parts[1], parts[2], list(parts[3:]))


def gradients(terms, *predictions):
    """Of all inputs, 0 for those that nothing depends on."""
    inputs = [x for p in predictions for x in tensors(p)]
    grads = torch.autograd.grad(sum(terms.values()), inputs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]
