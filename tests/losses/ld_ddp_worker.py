"""One process of a distributed step of LDLoss; ``torchrun`` starts it. Rank 0 writes the gradients to argv[1].

The first process has the images with boxes, the second one image without any.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pydistill.losses import DensePrediction, LDLoss
from tests.losses.ld_scene import BOXES, COUNTS, LABELS, PRESETS, SIZES, STRIDES, grid, prediction

IMAGES = ([0, 2], [1])  # of each process


class Students(nn.Module):
    """For each preset a linear head of its own, and what it loses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleDict({preset: nn.Linear(6, 5 + 68 + 1 + 5).double() for preset in PRESETS})
        for head in self.heads.values():
            nn.init.normal_(head.weight)
        options = dict(vlr_kd=1.0, imitation=1.0, pseudo_box=1.0)
        self.losses = {preset: LDLoss(STRIDES, preset=preset, **options) for preset in PRESETS}

    def forward(self, x, teacher, boxes, labels, counts):
        total = 0.0
        for preset, head in self.heads.items():
            logits, sides, centerness, scores = head(x).split([5, 68, 1, 5], -1)
            student = DensePrediction(logits, sides, centerness[..., 0], scores.sigmoid())
            features = [
                part.transpose(1, 2).unflatten(2, (96 // s, 128 // s))
                for part, s in zip(logits.split(SIZES, 1), STRIDES)
            ]
            others = [f.detach().roll(1, 1) for f in features]
            losses = self.losses[preset](
                student, teacher, grid(), SIZES, boxes, labels, counts, features=(features, others)
            )
            total = total + sum(losses.values())
        return total


def gradients(model: nn.Module, students: Students, images: list[int]) -> dict[str, torch.Tensor]:
    x = torch.randn(3, 252, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    teacher = prediction(1)
    teacher = DensePrediction(teacher.logits[images], teacher.sides[images], None, teacher.scores[images])
    model(x[images], teacher, BOXES[images], LABELS[images], COUNTS[images]).backward()
    return {name: p.grad for name, p in students.named_parameters()}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    students = Students()
    found = gradients(DistributedDataParallel(students), students, IMAGES[dist.get_rank()])
    if dist.get_rank() == 0:
        torch.save(found, sys.argv[1])
    dist.destroy_process_group()
