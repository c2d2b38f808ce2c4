"""Two processes that train together; run as ``python -m tests.recipes.bev_processes FOLDER``."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from lightning.fabric import Fabric

from pydistill.recipes.bev.run import open_data
from pydistill.recipes.bev.training import Training, build_model
from tests.recipes.bev import TINY, write

TEACHER = replace(TINY, modality="lidar")


def train(fabric):
    config = replace(TINY, steps=2, unidistill=True, adapter="1x1", relation=0.0)
    data = open_data(config, FOLDER / "data", "train", training=True)
    training = Training(config, data, fabric=fabric, folder=FOLDER, teacher=(build_model(TEACHER), TEACHER))
    training.run()
    weights = [p.detach().clone() for p in training.distiller.parameters() if p.requires_grad]
    torch.save(weights, FOLDER / f"{fabric.global_rank}.pt")


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    write(FOLDER / "data", 2, 1)
    Fabric(accelerator="cpu", devices=2, strategy="ddp_fork").launch(train)
