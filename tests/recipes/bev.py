"""A tiny generated set in nuScenes' layout, and batches without files."""

import numpy as np
import torch

from pydistill.recipes.bev.config import BevConfig
from pydistill.recipes.bev.data import Batch
from pydistill.recipes.bev.generate import write_nuscenes
from pydistill.recipes.bev.scenes import Difficulty

SIZE = (16, 32)
TINY = BevConfig(
    reach=24.0, cells=16, low=8, high=16, blocks=0, depths=(2.3, 26.0, 4.0), width=0.125, size=SIZE, max_points=600,
    steps=4, batch=2, warmup=1, log_every=1, evaluate_every=100, probe=2, save_every=100,
)  # fmt: skip
SPARSE = Difficulty(beams=12, columns=90, objects=(4, 8))


def write(root, train=2, test=1):
    return write_nuscenes(root, 0, train, test, size=SIZE, difficulty=SPARSE)


def batch(samples=2, seed=0):
    """Random measurements around two cars and a pedestrian a sample; one place is padding."""
    rng = torch.Generator().manual_seed(seed)
    boxes = torch.zeros(samples, 4, 9)
    boxes[:, 0] = torch.tensor([10.0, 3.0, -1.0, 4.5, 1.9, 1.6, 0.3, 2.0, 0.0])
    boxes[:, 1] = torch.tensor([-8.0, -6.0, -0.9, 4.6, 2.0, 1.7, -2.0, 0.0, 0.0])
    boxes[:, 2] = torch.tensor([5.0, -12.0, -1.0, 0.7, 0.6, 1.8, 1.0, 0.0, 1.0])
    valid = torch.tensor([True, True, True, False]).repeat(samples, 1)
    points = torch.rand(samples, 200, 5, generator=rng) * torch.tensor([60.0, 60, 6, 1, 0.5]) - torch.tensor(
        [30.0, 30, 4, 0, 0]
    )
    matrix = torch.tensor([[20.0, 0, 15.5], [0, 20, 7.0], [0, 0, 1]])
    turns = [np.radians(a) for a in (0, -55, -110, 180, 110, 55)]
    axes = [[[np.sin(a), -np.cos(a), 0], [0, 0, -1], [np.cos(a), np.sin(a), 0]] for a in turns]
    from_lidar = torch.cat([torch.tensor(axes).float(), torch.zeros(6, 3, 1)], -1)
    return Batch(
        points,
        torch.tensor([200, 150] * samples)[:samples],
        torch.randn(samples, 6, 3, *SIZE, generator=rng),
        (matrix @ from_lidar).expand(samples, -1, -1, -1),
        boxes,
        torch.tensor([0, 0, 8, 0]).repeat(samples, 1),
        valid,
        valid & torch.tensor([True, False, True, True]),
    )
