"""One process of a distributed step of DETRDistillLoss; ``torchrun`` starts it. Rank 0 writes the gradients to argv[1].

The first process has the images with boxes, the second one image without any.
"""

import sys
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pydistill.losses import DETRDistillLoss, SetPrediction, SetTargets
from tests.losses.detr_scene import CHANNELS, CLASSES, prediction, targets

IMAGES = ([0, 2], [1])  # of each process
CASES = {
    "deformable_detr": {},
    "detr": dict(instance_stage="last"),
    "rt_detr": dict(instance_divisor="positives", assignment="rematch"),
    "adamixer": dict(feature_region="boxes", stages=[0, 1]),
}


class Students(nn.Module):
    """For each case a linear head of its own, and what it loses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleDict({name: nn.Linear(CHANNELS, CLASSES + 5 + CHANNELS).double() for name in CASES})
        self.losses = {name: DETRDistillLoss(detector=name, **options) for name, options in CASES.items()}

    def forward(self, queries, maps, images):
        total = 0.0
        for name, head in self.heads.items():
            classes = CLASSES + (name == "detr")

            def detected(x, head=head, classes=classes):
                logits, boxes, _ = head(x).split([classes, 4, CHANNELS + 1 - (classes - CLASSES)], -1)
                return SetPrediction(logits, boxes.sigmoid())

            own = [(head(x.permute(0, 2, 3, 1))[..., -CHANNELS:]).permute(0, 3, 1, 2) for x in maps]
            teacher, t = picked(prediction(1, 3, 8, name), images), targets()
            t = SetTargets(*(x[images] for x in (t.labels, t.boxes, t.counts, t.image_sizes)))
            student, group = replace(detected(queries[:, :, :12]), features=own), detected(queries[:, :, 12:])
            total = total + sum(self.losses[name](student, teacher, t, group=group).values())
        return total


def picked(p, images):
    return SetPrediction(p.logits[:, images], p.boxes[:, images], p.queries[:, images], [x[images] for x in p.features])


def gradients(model: nn.Module, students: Students, images: list[int]) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    queries = torch.randn(2, 3, 20, CHANNELS, generator=rng, dtype=torch.float64)[:, images]
    model(queries, picked(prediction(0), images).features, images).backward()
    return {name: p.grad for name, p in students.named_parameters()}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    students = Students()
    found = gradients(DistributedDataParallel(students), students, IMAGES[dist.get_rank()])
    if dist.get_rank() == 0:
        torch.save(found, sys.argv[1])
    dist.destroy_process_group()
