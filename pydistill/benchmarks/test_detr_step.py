"""A set detector's whole step, forward and backward, 6 decoder stages of 300 queries, 8 images with 20 boxes.

``test_detector``: the detector's own terms against transformers' loss of Deformable DETR, matching included.
``test_distilled``: with a teacher, all terms but relation as the released code has them, against that loss twice and
the rest in plain PyTorch (``detr_eager``). Operations are not counted.
"""

import pytest
import torch

from pydistill.benchmarks.cases import contenders, sides, times
from pydistill.benchmarks.set_scene import CLASSES, IMAGES, QUERIES, STAGES, TARGETS
from pydistill.benchmarks.timing import tensors_in
from pydistill.losses import DETRDistillLoss, SetPrediction, SetTargets

CHANNELS = 256
SHAPES = [(100, 134), (50, 67), (25, 34), (13, 17)]  # of a picture of 800 x 1072 pixels


def scene(device, scale):
    """Boxes; a teacher of which one query for each box is near it; a student and a group that resemble the teacher."""
    rng = torch.Generator().manual_seed(0)
    queries = times(scale, QUERIES)
    targets_each = min(TARGETS, queries)

    def near(x, spread):
        return x + spread * torch.randn(x.shape, generator=rng)

    low, size = torch.tensor([0.2, 0.2, 0.1, 0.1]), torch.tensor([0.6, 0.6, 0.2, 0.2])
    targets = low + size * torch.rand(IMAGES, targets_each, 4, generator=rng)
    labels = torch.randint(0, CLASSES, (IMAGES, targets_each), generator=rng)
    boxes = (low + size * torch.rand(IMAGES, queries, 4, generator=rng)).expand(STAGES, -1, -1, -1).clone()
    boxes[:, :, :targets_each] = near(targets.expand(STAGES, -1, -1, -1), 0.02).clamp(0.05, 0.95)
    logits = torch.randn(STAGES, IMAGES, queries, CLASSES, generator=rng) - 3
    logits[:, :, :targets_each] += 4 * torch.nn.functional.one_hot(labels, CLASSES)
    states = torch.randn(STAGES, IMAGES, queries, CHANNELS, generator=rng)
    maps = [torch.randn(IMAGES, CHANNELS, *sides(scale, *s), generator=rng) for s in SHAPES]
    made = [SetPrediction(logits, boxes, states, maps)]
    for _ in range(2):
        of_boxes, of_maps = near(boxes, 0.05).clamp(0.02, 0.98), [near(x, 0.5) for x in maps]
        made.append(SetPrediction(near(logits, 1.0), of_boxes, near(states, 0.5), of_maps))
    teacher, student, group = (
        SetPrediction(p.logits.to(device), p.boxes.to(device), p.queries.to(device), [x.to(device) for x in p.features])
        for p in made
    )
    for x in (*tensors_in([student.logits, student.boxes, student.features]), group.logits, group.boxes):
        x.requires_grad_()
    counts, pictures = torch.full((IMAGES,), targets_each), torch.tensor([[800, 1072]]).repeat(IMAGES, 1)
    return student, teacher, group, SetTargets(*(x.to(device) for x in (labels, targets, counts, pictures)))


def moved(*read):
    """Bytes of what is read, and of the gradients written."""
    return sum(x.numel() * x.element_size() * (1 + x.requires_grad) for x in tensors_in(read))


def test_detector(compare, device, scale):
    plain = pytest.importorskip("pydistill.benchmarks.detr_eager")
    student, _, _, targets = scene(device, scale)
    loss = DETRDistillLoss(matching="hf_deformable_detr", classification=1.0)

    def transformers(logits, boxes, t):
        return plain.detector(logits, boxes, t.labels, t.boxes)

    def ours(logits, boxes, t):
        return torch.stack([*loss(SetPrediction(logits, boxes), None, t).values()]).sum()

    runs = contenders(ours, transformers, student.logits, student.boxes, targets, compiled=False)
    runs["transformers"] = runs.pop("eager")
    compare(**runs, bytes_moved=moved(student.logits, student.boxes))


def test_distilled(compare, device, scale):
    plain = pytest.importorskip("pydistill.benchmarks.detr_eager")
    student, teacher, group, targets = scene(device, scale)
    options = dict(reference="released", relation=0.0, matching="hf_deformable_detr")
    loss = DETRDistillLoss(**options, classification=1.0, group=1.0)

    def eager(student, teacher, group, t):
        total = plain.detector(student.logits, student.boxes, t.labels, t.boxes)
        total = total + plain.detector(group.logits, group.boxes, t.labels, t.boxes)
        total = total + plain.instances(student.logits, student.boxes, teacher.logits, teacher.boxes)
        quality = teacher.queries, teacher.logits, teacher.boxes, t.boxes
        return total + plain.features(student.features, teacher.features, *quality)

    def ours(student, teacher, group, t):
        terms = loss(student, teacher, t, group=group)
        terms["group_classification"] = terms["group_classification"] / 2  # transformers weighs it 1
        return torch.stack([*terms.values()]).sum()

    compare(
        **contenders(ours, eager, student, teacher, group, targets, compiled=False, tolerance=1e-3),
        bytes_moved=moved(student.logits, student.boxes, student.features, group.logits, group.boxes, teacher),
        rounds=5,
    )
