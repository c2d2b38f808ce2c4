"""A training step of each system as a CUDA graph: loss, backward and optimizer, replayed on other batches.

Without a GPU: nothing in such a step waits for the device, and nothing crosses to the host or back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pydistill.losses import (
    BEVPrediction,
    DensePrediction,
    DETRDistillLoss,
    LDLoss,
    SADLoss,
    SetTargets,
    UniDistillLoss,
)
from tests.conformance import NoCopies, assert_close
from tests.losses import bev_scene, detr_scene, ld_scene


@dataclass(frozen=True)
class System:
    """``inputs(seed)``: a batch, of which the student makes the first ``learned``; ``terms(objective, them, rest)``."""

    objective: Callable[[], nn.Module]
    inputs: Callable[[int], list[Tensor]]
    learned: int
    terms: Callable[[nn.Module, list[Tensor], list[Tensor]], dict[str, Tensor]]


def lanes(seed):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=rng) for s in ((2, 3, 8, 10), (2, 4, 4, 5), (2, 5, 4, 5), (2, 4, 2, 3))]


def dense(seed):
    student, teacher = (ld_scene.parts(ld_scene.prediction(seed + k)) for k in (0, 50))
    boxes = ld_scene.BOXES.roll(seed, 1)
    return [*student, *teacher, ld_scene.grid(), boxes, ld_scene.LABELS, ld_scene.COUNTS.roll(seed)]


def dense_terms(loss, made, rest):
    student, teacher = DensePrediction(*made, rest[0]), DensePrediction(*rest[1:5])
    return loss(student, teacher, rest[5], ld_scene.SIZES, *rest[6:])


def sets(seed):
    shapes = ((seed, 2, 12), (seed + 50, 2, 8), (seed + 90, 3, 8))  # student, group, teacher
    predictions = [detr_scene.prediction(1 + at % 7, stages, queries) for at, stages, queries in shapes]
    batch = detr_scene.targets()
    return [
        *(x for p in predictions for x in detr_scene.tensors(p)),
        *(x.roll(seed, 0) for x in vars(batch).values()),
    ]


def sets_terms(loss, made, rest):
    student, group, teacher = (detr_scene.of_tensors(x) for x in (made[:5], made[5:], rest[:5]))
    return loss(student, teacher, SetTargets(*rest[5:]), group=group)


def bev(seed):
    student, teacher, boxes, valid = bev_scene.scene(seed)
    parts = [[p.low, p.high, *p.heatmaps, *p.regressions] for p in (student, teacher)]
    return [*parts[0], *parts[1], boxes, valid]


def bev_terms(loss, made, rest):
    student, teacher = (BEVPrediction(x[0], x[1], x[2:4], x[4:7]) for x in (made, rest))
    return loss(student, teacher, *rest[7:])


SYSTEMS = {
    "lanes": System(SADLoss, lanes, 4, lambda loss, made, _: loss(made)),
    "dense": System(lambda: LDLoss(ld_scene.STRIDES, preset="gfl", vlr_kd=1.0), dense, 3, dense_terms),
    "sets": System(lambda: DETRDistillLoss(relation=0.5, projection=(detr_scene.CHANNELS, 8)), sets, 10, sets_terms),
    "bev": System(lambda: UniDistillLoss(bev_scene.GRID), bev, 7, bev_terms),
}
each_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


def fake(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")


class Training:
    """A student of one scale and one shift a tensor, its objective, its optimizer, and the memory of one batch."""

    def __init__(self, system: System, place: Callable[[Tensor], Tensor]):
        torch.manual_seed(0)
        self.system, self.objective = system, system.objective()
        for module in self.objective.modules():  # Module.to makes no fake tensors of real ones
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(place(parameter.detach())))
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, place(buffer))
        self.batch = [place(self.cast(x)) for x in system.inputs(0)]
        self.scale = nn.Parameter(place(torch.ones(system.learned)))
        self.shift = nn.Parameter(place(torch.zeros(system.learned)))
        self.parameters = [self.scale, self.shift, *self.objective.parameters()]
        self.optimizer = torch.optim.SGD(self.parameters, lr=1e-3, momentum=0.9)

    @staticmethod
    def cast(x: Tensor) -> Tensor:
        return x.detach().float() if x.is_floating_point() else x

    def load(self, seed: int) -> None:
        for held, x in zip(self.batch, self.system.inputs(seed), strict=True):
            held.copy_(self.cast(x))

    def terms(self) -> dict[str, Tensor]:
        made = [x * a + b for x, a, b in zip(self.batch, self.scale.unbind(), self.shift.unbind())]
        return self.system.terms(self.objective, made, self.batch[len(made) :])

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        sum(self.terms().values()).backward()
        self.optimizer.step()

    def state(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]


@each_system
def test_a_step_reads_nothing_and_learns(system):
    watched, plain = Training(system, Tensor.clone), Training(system, Tensor.clone)
    for seed in range(3):
        for training in (watched, plain):
            training.load(seed)
        with NoCopies():
            watched.step()
        plain.step()
    assert_close(watched.state(), plain.state(), 1e-6)  # dispatched, and straight to the kernels
    assert (watched.scale - 1).abs().max() > 1e-4


@each_system
def test_a_step_on_a_fake_gpu_copies_nothing(system):
    """The optimizer too; a CPU build records no gradients of fake CUDA tensors, so they are made up."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        training = Training(system, fake)
        training.objective.eval()  # batch statistics of fake tensors need CUDA
        with NoCopies():
            terms = training.terms()
            assert {(x.device.type, x.ndim) for x in terms.values()} == {("cuda", 0)}
            for parameter in training.parameters:
                parameter.grad = torch.empty_like(parameter)
            training.optimizer.step()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_system
def test_captured_and_replayed_on_other_batches(system):
    """The parameters after replays are those after as many eager steps."""
    captured, eager = Training(system, Tensor.cuda), Training(system, Tensor.cuda)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            captured.step()
    torch.cuda.current_stream().wait_stream(stream)
    for _ in range(3):
        eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="global"):
        captured.step()
    for seed in (1, 2, 0):
        captured.load(seed)
        graph.replay()
        eager.load(seed)
        eager.step()
        assert_close(captured.state(), eager.state(), 1e-6)
