"""One process of a distributed training; ``torchrun`` starts it. Rank 0 writes the trained parameters to argv[1].

Every process takes its share of each batch, so that any number of processes trains on the same joint batches.
"""

import sys
import warnings

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from pydistill import Adapter, Distiller, Term
from tests.training.nets import Net, batches, sgd, train


def build() -> Distiller:
    """Float64, with a term that sleeps first, one that ends and an adapter each."""
    torch.manual_seed(0)
    terms = {
        "hint": Term(F.mse_loss, "body", "body", Adapter("1x1", 4, 8), weight=2.0, start=2, ramp=2),
        "kd": Term(F.mse_loss, "head", "head", Adapter("linear", 5, 5), end=4),
        "sad": Term(lambda fs: F.mse_loss(fs[0].mean(1), fs[1].mean(1).detach()), ["stem", "body"], start=1),
    }
    return Distiller(Net(4, seed=0), Net(8, seed=1), terms).double()


def run(rank: int, world: int, model: torch.nn.Module) -> None:
    data = [(images.double().chunk(world)[rank], labels.chunk(world)[rank]) for images, labels in batches(6)]
    train(model, data, sgd(model))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    warnings.simplefilter("error", UserWarning)  # such as DDP's, about parameters that got no gradient
    distiller = build()
    run(dist.get_rank(), dist.get_world_size(), DistributedDataParallel(distiller))
    if dist.get_rank() == 0:
        torch.save(distiller.state_dict(), sys.argv[1])
    dist.destroy_process_group()
