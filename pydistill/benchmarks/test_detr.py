"""A set detector's whole step, forward and backward, 6 decoder stages of 300 queries, 8 images with 20 boxes.

``test_detr_step``: the detector's own terms against transformers' loss of Deformable DETR, matching included.
``test_detr_distill_step``: with a teacher, all terms but relation as the released code has them, against that loss
twice and the rest in plain PyTorch (``detr_eager``).
"""

import pytest
import torch

from pydistill.losses import DETRDistillLoss, SetPrediction, SetTargets

STAGES, IMAGES, QUERIES, TARGETS, CLASSES, CHANNELS = 6, 8, 300, 20, 91, 256
SHAPES = [(100, 134), (50, 67), (25, 34), (13, 17)]  # of a picture of 800 x 1072 pixels


def scene(device):
    """Boxes; a teacher of which one query for each box is near it; a student and a group that resemble the teacher."""
    rng = torch.Generator().manual_seed(0)

    def near(x, scale):
        return x + scale * torch.randn(x.shape, generator=rng)

    low, size = torch.tensor([0.2, 0.2, 0.1, 0.1]), torch.tensor([0.6, 0.6, 0.2, 0.2])
    targets = low + size * torch.rand(IMAGES, TARGETS, 4, generator=rng)
    labels = torch.randint(0, CLASSES, (IMAGES, TARGETS), generator=rng)
    boxes = (low + size * torch.rand(IMAGES, QUERIES, 4, generator=rng)).expand(STAGES, -1, -1, -1).clone()
    boxes[:, :, :TARGETS] = near(targets.expand(STAGES, -1, -1, -1), 0.02).clamp(0.05, 0.95)
    logits = torch.randn(STAGES, IMAGES, QUERIES, CLASSES, generator=rng) - 3
    hit = torch.nn.functional.one_hot(labels, CLASSES)
    logits[:, :, :TARGETS] += 4 * hit
    queries = torch.randn(STAGES, IMAGES, QUERIES, CHANNELS, generator=rng)
    maps = [torch.randn(IMAGES, CHANNELS, *s, generator=rng) for s in SHAPES]
    made = [SetPrediction(logits, boxes, queries, maps)]
    for _ in range(2):
        of_boxes, of_maps = near(boxes, 0.05).clamp(0.02, 0.98), [near(x, 0.5) for x in maps]
        made.append(SetPrediction(near(logits, 1.0), of_boxes, near(queries, 0.5), of_maps))
    teacher, student, group = (
        SetPrediction(p.logits.to(device), p.boxes.to(device), p.queries.to(device), [x.to(device) for x in p.features])
        for p in made
    )
    counts, sizes = torch.full((IMAGES,), TARGETS), torch.tensor([[800, 1072]]).repeat(IMAGES, 1)
    return student, teacher, group, SetTargets(*(x.to(device) for x in (labels, targets, counts, sizes)))


def compared(compare, losses, learners, tolerance, moved):
    """All of them agree, and are timed in turns."""
    for x in learners:
        x.requires_grad_()
    runs = {name: lambda loss=loss: torch.autograd.grad(loss(), learners) for name, loss in losses.items()}
    values = {name: loss().item() for name, loss in losses.items()}
    assert all(abs(x - values["ours"]) < tolerance * values["ours"] for x in values.values()), values
    compare(**runs, bytes_moved=4 * (moved + sum(x.numel() for x in learners)))


def test_detr_step(compare, device):
    eager = pytest.importorskip("pydistill.benchmarks.detr_eager")
    student, _, _, t = scene(device)
    loss = DETRDistillLoss(matching="hf_deformable_detr", classification=1.0)
    learners = [student.logits, student.boxes]
    losses = {
        "transformers": lambda: eager.detector(student.logits, student.boxes, t.labels, t.boxes),
        "ours": lambda: torch.stack([*loss(student, None, t).values()]).sum(),
    }
    compared(compare, losses, learners, 1e-4, sum(x.numel() for x in learners))


def test_detr_distill_step(compare, device):
    eager = pytest.importorskip("pydistill.benchmarks.detr_eager")
    student, teacher, group, t = scene(device)
    options = dict(reference="released", relation=0.0, matching="hf_deformable_detr")
    loss = DETRDistillLoss(**options, classification=1.0, group=1.0)
    learners = [student.logits, student.boxes, *student.features, group.logits, group.boxes]

    def theirs():
        total = eager.detector(student.logits, student.boxes, t.labels, t.boxes)
        total = total + eager.detector(group.logits, group.boxes, t.labels, t.boxes)
        total = total + eager.instances(student.logits, student.boxes, teacher.logits, teacher.boxes)
        quality = teacher.queries, teacher.logits, teacher.boxes, t.boxes
        return total + eager.features(student.features, teacher.features, *quality)

    def ours():
        terms = loss(student, teacher, t, group=group)
        terms["group_classification"] = terms["group_classification"] / 2  # transformers weighs it 1
        return torch.stack([*terms.values()]).sum()

    read = [*learners, teacher.logits, teacher.boxes, teacher.queries, *teacher.features]
    compared(compare, {"eager": theirs, "ours": ours}, learners, 1e-3, sum(x.numel() for x in read))
