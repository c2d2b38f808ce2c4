"""Pictures of a dense detector for the suites: two of 800 x 1344 pixels at scale 1, with 22400 anchors each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pydistill.benchmarks.cases import contenders, sides, times
from pydistill.benchmarks.timing import rotate

STRIDES, IMAGES, ANCHORS, CLASSES, BINS, BOXES = (8, 16, 32, 64, 128), 2, 22400, 80, 17, 20


def locations(
    device: str, scale: float, classes: int = CLASSES, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits near a detector's first ones, labels, of which 1% are not ``classes``, the background, and scores."""
    rng = torch.Generator().manual_seed(0)
    anchors = times(scale, ANCHORS)
    logits = torch.randn(IMAGES, anchors, classes, generator=rng) - 4
    labels = torch.randint(classes, (IMAGES, anchors), generator=rng)
    labels = labels.masked_fill(torch.rand(IMAGES, anchors, generator=rng) > 0.01, classes)
    scores = torch.rand(IMAGES, anchors, generator=rng)
    return logits.to(device, dtype).requires_grad_(), labels.to(device), scores.to(device, dtype)


def picture(device: str, scale: float) -> tuple[Tensor, list[int], Tensor, Tensor]:
    """Square anchors of side 8 strides, how many there are a level, boxes of 16 to 500 pixels, and their counts."""
    levels, (height, width) = [], sides(scale, 800, 1344)
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        centre = torch.stack([x, y], -1).reshape(-1, 2).float()
        levels.append(torch.cat([centre - 4 * stride, centre + 4 * stride], 1))
    rng = torch.Generator().manual_seed(0)
    size = 16 * (500 / 16) ** torch.rand(IMAGES, BOXES, 2, generator=rng) * min(scale, 1.0) ** 0.5
    corner = torch.rand(IMAGES, BOXES, 2, generator=rng) * (torch.tensor([width, height]) - size)
    boxes, counts = torch.cat([corner, corner + size], -1), torch.full((IMAGES,), BOXES)
    return torch.cat(levels).to(device), [len(level) for level in levels], boxes.to(device), counts.to(device)


def random_boxes(device: str, *shape: int) -> Tensor:
    """Proper boxes of 1 to 101 pixels a side."""
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(*shape, 2, generator=rng) * 100
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=rng) * 100], -1).to(device)


def compare_on_anchors(
    compare: Callable[..., None],
    ours: Callable[..., Any],
    reference: Callable[..., Any],
    anchors: Tensor,
    boxes: Tensor,
    counts: Tensor,
    *,
    a_pair: int,
    written: int,
) -> None:
    """Times what looks for each of the anchors, or points, among the boxes of each image.

    Floor: the anchors are read once an image: it finds nothing. ``a_pair``: operations for an anchor and a box;
    ``written``: bytes for an anchor of an image.
    """
    images, pairs = len(boxes), boxes.shape[1] * len(anchors)
    compare(
        **contenders(ours, reference, anchors, boxes, counts),
        floor=rotate(lambda x: [x.sum() for _ in range(images)], anchors),
        bytes_moved=images * len(anchors) * (4 * anchors.shape[1] + written),
        operations=images * pairs * a_pair,
    )
