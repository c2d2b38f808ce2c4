"""Predictions and objects for the tests of detectors' hosts."""

import torch


def objects(counts, classes, seed=0, key="class_labels", dtype=torch.float32):
    """Objects of each image: labels, and boxes as centre and size in 0 to 1."""
    g = torch.Generator().manual_seed(seed)
    targets = []
    for n in counts:
        size = 0.05 + 0.4 * torch.rand(n, 2, generator=g, dtype=torch.float64)
        centre = size / 2 + (1 - size) * torch.rand(n, 2, generator=g, dtype=torch.float64)
        labels = torch.randint(classes, (n,), generator=g)
        targets.append({key: labels, "boxes": torch.cat([centre, size], -1).to(dtype)})
    return targets


def predictions(targets, queries, classes, layers=(), seed=0, trained=False, dtype=torch.float32):
    """Logits (*layers, B, Q, classes) and boxes: random, or as of a trained network, where some queries are near
    objects and sure of their class.
    """
    g = torch.Generator().manual_seed(seed + 1000)
    shape = (*layers, len(targets), queries)
    logits = torch.randn(*shape, classes, generator=g, dtype=torch.float64)
    boxes = torch.rand(*shape, 4, generator=g, dtype=torch.float64) * 0.5 + 0.2
    if trained:
        logits -= 4
        for b, target in enumerate(targets):
            labels = next(t for name, t in target.items() if name != "boxes")
            for t, (label, box) in enumerate(zip(labels.tolist(), target["boxes"].double())):
                near = torch.randperm(queries, generator=g)[:3] if queries > 3 else [t % queries]
                for q in near:
                    logits[..., b, q, label] += 5
                    noise = 0.02 * torch.randn(*layers, 4, generator=g, dtype=torch.float64)
                    boxes[..., b, q, :] = (box + noise).clamp(0.01, 0.99)
    return logits.to(dtype), boxes.to(dtype)


def same_pairs(ours, theirs):
    """Whether the matchers returned the same, dtypes and device included."""
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
        for pair, other in zip(ours, theirs)
        for a, b in zip(pair, other)
    )
