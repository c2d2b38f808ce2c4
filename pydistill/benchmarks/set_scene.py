"""Predictions of a set detector for the suites: at scale 1, 300 queries, 20 boxes and 91 classes an image."""

import torch
from torch import Generator, Tensor

STAGES, IMAGES, QUERIES, TARGETS, CLASSES = 6, 8, 300, 20, 91


def predictions(
    device: str, images: int, queries: int, targets: int, classes: int = CLASSES
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits and boxes of random queries, of which one for each target is near it; labels and boxes of the targets."""
    rng = torch.Generator().manual_seed(0)
    low, size = torch.tensor([0.2, 0.2, 0.1, 0.1]), torch.tensor([0.6, 0.6, 0.2, 0.2])
    boxes, target_boxes = (low + size * torch.rand(images, n, 4, generator=rng) for n in (queries, targets))
    boxes[:, :targets] = (target_boxes + 0.02 * torch.randn(target_boxes.shape, generator=rng)).clamp_min(0.01)
    labels = torch.randint(0, classes, (images, targets), generator=rng)
    logits = torch.randn(images, queries, classes, generator=rng)
    return logits.to(device), boxes.to(device), labels.to(device), target_boxes.to(device)


def matches(rng: Generator, queries: int, targets: int) -> Tensor:
    """(STAGES, IMAGES, queries): a random target of each query, or -1; each target once."""
    order = torch.rand(STAGES, IMAGES, queries, generator=rng).argsort(-1)
    return order.masked_fill(order >= targets, -1)
