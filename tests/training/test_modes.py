"""The distiller under DDP, autocast, torch.compile and gradient checkpointing."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pydistill import Adapter, Distiller, Term
from tests.conformance import relative_error
from tests.training import ddp_worker
from tests.training.nets import Net, batches, sgd, train

ROOT = Path(__file__).parents[2]


def hint(student, teacher, **options):
    return Distiller(student, teacher, {"hint": Term(F.mse_loss, "body.0", "body.0", Adapter("1x1", 4, 8), **options)})


def test_two_processes_equal_one_with_the_joint_batch(tmp_path):
    result = tmp_path / "state.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += ["-m", "tests.training.ddp_worker", str(result)]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr

    alone = ddp_worker.build()
    untrained = {name: value.clone() for name, value in alone.state_dict().items()}
    ddp_worker.run(0, 1, alone)
    state = torch.load(result)
    assert state.pop("_extra_state") == alone.step == 6
    for name, value in state.items():
        assert relative_error(value, alone.state_dict()[name]) < 1e-12, name
        assert relative_error(value, untrained[name]) > 1e-4, name


def test_data_parallel_is_refused():
    distiller = hint(Net(4, seed=0), Net(8, seed=1))
    distiller._is_replica = True  # what nn.DataParallel sets on the copies it calls
    with pytest.raises(RuntimeError, match="Distiller: expected DistributedDataParallel, got DataParallel"):
        distiller(batches(1)[0][0])


@pytest.mark.parametrize("upcast", [True, False])
def test_under_autocast_features_are_half_and_losses_float32(upcast):
    seen = []

    def loss(student, teacher):
        seen.extend([student.dtype, teacher.dtype, (student @ student.mT).dtype])
        return (student - teacher).square().mean()

    distiller = Distiller(
        Net(4, seed=0), Net(8, seed=1), {"t": Term(loss, "body.0", "body.0", Adapter("1x1", 4, 8), upcast=upcast)}
    )
    images, labels = batches(1)[0]
    exact = distiller(images).loss
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        distilled = distiller(images)
        total = F.cross_entropy(distilled.output, labels) + distilled.loss
    assert set(seen) == {torch.float32 if upcast else torch.bfloat16}
    assert distilled.output.dtype == torch.bfloat16 and distilled.loss.dtype == torch.float32
    assert relative_error(distilled.loss, exact) < 0.02
    total.backward()
    assert all(p.grad.dtype == torch.float32 for p in distiller.parameters())


def test_a_half_student_meets_a_float32_adapter_and_teacher():
    distiller = hint(Net(4, seed=0), Net(8, seed=1))
    images = batches(1)[0][0]
    exact = distiller(images).loss
    distiller.student.bfloat16()
    distilled = distiller(images.bfloat16(), teacher_inputs=(images,))
    assert distilled.loss.dtype == torch.float32 and relative_error(distilled.loss, exact) < 0.02
    distilled.loss.backward()
    assert distiller.student.stem.weight.grad.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("way", ["the student", "the student in place", "the distiller", "with the default backend"])
def test_compiled_models_train_as_eager_ones(way):
    torch.compiler.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    options = {} if way == "with the default backend" else dict(backend=count)
    data = batches(5)
    student = Net(4, seed=0)
    eager = hint(copy.deepcopy(student), Net(8, seed=1), start=1, end=4)
    if way == "the student in place":
        student.compile(**options)
    wrap = way in ("the student", "with the default backend")
    distiller = hint(torch.compile(student, **options) if wrap else student, Net(8, seed=1), start=1, end=4)
    distiller.adapters.load_state_dict(eager.adapters.state_dict())
    called = torch.compile(distiller, **options) if way == "the distiller" else distiller
    optimizers = sgd(distiller), sgd(eager)
    for images, labels in data:
        eager_total = train(eager, [(images, labels)], optimizers[1])[0]
        distilled = called(images)
        total = F.cross_entropy(distilled.output, labels) + distilled.loss
        assert total.item() == pytest.approx(eager_total, rel=1e-5)
        assert bool(distilled.losses) == (1 <= distiller.step < 4)
        total.backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
        distiller.advance()
        # A call of the student alone compiles code without taps, which must not serve the next step.
        assert relative_error(distiller.student(images), eager.student(images)) < 1e-5
    assert graphs or not options
    assert list(distiller.student_state_dict()) == list(eager.student.state_dict())


def test_non_reentrant_checkpointing_changes_no_gradient():
    images, labels = batches(1)[0]
    gradients = []
    for checkpointing in (None, False):
        distiller = hint(Net(4, seed=0, checkpointing=checkpointing), Net(8, seed=1))
        distilled = distiller(images)
        (F.cross_entropy(distilled.output, labels) + distilled.loss).backward()
        gradients.append([p.grad for p in distiller.student.parameters()])
    for recomputed, kept in zip(*gradients, strict=True):
        assert relative_error(recomputed, kept) < 1e-6


def test_the_output_of_a_reentrant_checkpoint_keeps_its_gradient():
    gradients = []
    images = batches(1)[0][0].requires_grad_()  # which this kind of checkpoint needs
    for checkpointing in (None, True):
        distiller = Distiller(
            Net(4, seed=0, checkpointing=checkpointing), Net(4, seed=1), {"hint": Term(F.mse_loss, "body", "body")}
        )
        distiller(images).loss.backward()
        gradients.append([p.grad for p in distiller.student.body.parameters()])
    for recomputed, kept in zip(*gradients, strict=True):
        assert relative_error(recomputed, kept) < 1e-6


def test_the_task_alone_trains_while_every_term_sleeps():
    distiller = Distiller(nn.Linear(3, 2), None, {"t": Term(torch.sum, "", weight=0)})
    distilled = distiller(torch.rand(4, 3))
    assert distilled.loss.item() == 0 and not distilled.loss.requires_grad
    (distilled.output.sum() + distilled.loss).backward()
    assert relative_error(distiller.student.bias.grad, torch.full((2,), 4.0)) == 0
