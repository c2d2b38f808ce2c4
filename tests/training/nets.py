"""A small network with named parts, a training loop and a comparison, shared by these tests."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pydistill import Distiller, Term

CLASSES = 5


class Net(nn.Module):
    """Two convolutions, dropout and a classifier, without batch norm. ``checkpointing`` recomputes the body."""

    def __init__(self, width: int, *, seed: int, dropout: float = 0.0, checkpointing: bool | None = None):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, width, 3, padding=1)
            self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Tanh())
            self.head = nn.Linear(width, CLASSES)
        self.dropout = nn.Dropout(dropout)
        self.use_reentrant = checkpointing  # None: no checkpointing

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        if self.use_reentrant is None:
            x = self.body(x)
        else:
            x = checkpoint(self.body, x, use_reentrant=self.use_reentrant)
        return self.head(self.dropout(x).mean((2, 3)))


def batches(count: int, size: int = 4, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Pictures (size, 3, 6, 6) and labels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, 6, 6, generator=generator), torch.randint(CLASSES, (size,), generator=generator))
        for _ in range(count)
    ]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(distiller: Any, data: Iterable[tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer) -> list[float]:
    """The loop of the manual. Returns the total loss of every step."""
    totals = []
    for images, labels in data:
        distilled = distiller(images)
        total = F.cross_entropy(distilled.output, labels) + distilled.loss
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        getattr(distiller, "module", distiller).advance()
        totals.append(total.item())
    return totals


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def mean(feature):
    return feature.mean()


def pair(**options):
    """A student, a teacher and one term between their bodies."""
    student, teacher = Net(4, seed=0, dropout=0.3), Net(4, seed=1, dropout=0.3)
    return Distiller(student, teacher, {"hint": Term(F.mse_loss, "body", "body", **options)})
