"""Trains ENet twice from one seed, with the fused operators and with plain PyTorch, and compares losses and weights.

    python tools/compare_lanes.py [--steps 100] [--size 96 160] [--batch 8]

SAD acts from the first step, between E2 and E3 and between E3 and E4. Both trainings have the same network, optimiser,
batches and dropout; only the objective's operators differ.

They are compared step by step, the plain training taking each step from the fused one's state: left alone, two
trainings of this network part, since ENet unpools at the places of maxima, and where two values tie,
the last bit decides which is the maximum. That is shown too, beside a fused training of which one weight began one
rounding error away.
"""

import argparse
import copy
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from pydistill.ops.attention_distillation_loss import attention_distillation_loss_reference
from pydistill.ops.soft_iou_loss import soft_iou_loss_reference
from pydistill.recipes.lanes.config import LaneConfig
from pydistill.recipes.lanes.generate import write_tusimple
from pydistill.recipes.lanes.splits import open_data
from pydistill.recipes.lanes.training import Training


class PlainSAD(nn.Module):
    """SAD as a chain of PyTorch calls, of the pairs that the default has."""

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """The loss of each pair of neighbours."""
        return {
            f"sad_{m}_{m + 1}": attention_distillation_loss_reference(features[m], features[m + 1], normalize="mean")
            for m in range(len(features) - 1)
        }


class PlainTask(nn.Module):
    """Cross entropy, soft IoU and existence as a chain of PyTorch calls."""

    def forward(self, segmentation: Tensor, existence: Tensor, labels: Tensor, exists: Tensor) -> dict[str, Tensor]:
        """The weighted terms."""
        weight = torch.tensor([0.4, 1, 1, 1, 1], device=segmentation.device)
        return {
            "segmentation": F.cross_entropy(segmentation, labels, weight, ignore_index=255),
            "iou": 0.1 * soft_iou_loss_reference(segmentation, labels),
            "existence": 0.1 * F.binary_cross_entropy_with_logits(existence, exists),
        }


@dataclass(frozen=True)
class Comparison:
    """How far the two objectives are apart, at worst over the steps.

    Attributes:
        losses: relative difference of each loss.
        updates: norm of the difference of the weights after a step, over the norm of what the step changed.
        seconds: of all steps, fused and plain.
    """

    losses: float
    updates: float
    seconds: tuple[float, float]


def compare(folder: Path, fabric: Fabric, *, steps: int, size: tuple[int, int], batch: int) -> Comparison:
    """Takes each of ``steps`` steps with both objectives from the same state, on scenes generated below ``folder``."""
    fused, plain = (_training(folder, fabric, steps, size, batch) for _ in range(2))
    _make_plain(plain)
    losses, updates, seconds = 0.0, 0.0, [0.0, 0.0]
    for step in range(1, steps + 1):
        before = _weights(fused)
        plain.student.load_state_dict(fused.student.state_dict())
        plain.optimizer.load_state_dict(copy.deepcopy(fused.optimizer.state_dict()))
        for side, training in enumerate((fused, plain)):
            began = time.perf_counter()
            training.run(step)
            seconds[side] += time.perf_counter() - began
        after = [_weights(training) for training in (fused, plain)]
        updates = max(updates, float((after[0] - after[1]).norm() / (after[1] - before).norm()))
        rows = fused.history[-1], plain.history[-1]
        losses = max(losses, *(abs(rows[0][name] - rows[1][name]) / abs(rows[1][name]) for name in _terms(rows[1])))
    return Comparison(losses, updates, (seconds[0], seconds[1]))


def separate(folder: Path, fabric: Fabric, *, steps: int, size: tuple[int, int], batch: int) -> tuple[float, float]:
    """How far the weights of two trainings that are left alone part, relative to the weights' norm.

    Returns:
        Fused and plain; fused and fused with the first weight one rounding error away.
    """
    fused, plain, nudged = (_training(folder, fabric, steps, size, batch) for _ in range(3))
    _make_plain(plain)
    with torch.no_grad():
        weight = next(nudged.student.parameters())
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], weight.new_tensor(math.inf))
    for training in (fused, plain, nudged):
        training.run()
    ours = _weights(fused)
    apart = [float((_weights(other) - ours).norm() / ours.norm()) for other in (plain, nudged)]
    return apart[0], apart[1]


def _training(folder: Path, fabric: Fabric, steps: int, size: tuple[int, int], batch: int) -> Training:
    config = LaneConfig(
        size=size, batch=batch, steps=steps, lr=0.01, line_width=32, sad=True, sad_start=0.0, sad_ramp=0.0, log_every=1
    )
    data = open_data(config, write_tusimple(folder, 0, 48, 1), "train", training=True)
    return Training(config, data, fabric=fabric)


def _make_plain(training: Training) -> None:
    training.loss = PlainTask()  # type: ignore[assignment]
    training.health = None
    training.distiller.loss_modules["sad"] = PlainSAD()


def _weights(training: Training) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in training.student.parameters()])


def _terms(row: dict[str, float]) -> list[str]:
    return [name for name in row if name in ("segmentation", "iou", "existence") or name.startswith("sad.")]


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 160))
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    with tempfile.TemporaryDirectory() as folder:
        plan = {"steps": options.steps, "size": size, "batch": options.batch}
        found = compare(Path(folder), Fabric(devices=1), **plan)
        apart = separate(Path(folder), Fabric(devices=1), **plan)
    print(f"{options.steps} steps of {options.batch} pictures of {size[0]} x {size[1]}, torch {torch.__version__}")
    print(f"step by step: losses differ by at most {found.losses:.1e}, updates of the weights by {found.updates:.1e}")
    fused, plain = found.seconds
    print(f"left alone: weights part by {apart[0]:.1e}; after one rounding error in one weight by {apart[1]:.1e}")
    print(f"{fused:.1f} s fused, {plain:.1f} s plain, {plain / fused:.2f} times")


if __name__ == "__main__":
    main()
