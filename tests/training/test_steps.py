"""The step and what follows it: weights, accumulation, resuming, statistics, and that nothing waits for the device."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pydistill import Adapter, Distiller, Term
from tests.conformance import NoCopies, relative_error
from tests.training.nets import Net, batches, mean, pair, same_bits, sgd, train


def test_the_weight_follows_the_schedule_step_by_step():
    distiller = Distiller(Net(4, seed=0), None, {"t": Term(mean, "body", weight=2.0, start=1, ramp=4)})
    images = batches(1)[0][0]
    raw, seen = distiller.student.body(F.relu(distiller.student.stem(images))).mean().item(), []
    for _ in range(7):
        seen.append(distiller(images).loss.item() / raw)
        distiller.advance()
    assert seen == pytest.approx([0, 0, 0.5, 1, 1.5, 2, 2], rel=1e-6)


def test_accumulation_counts_optimiser_steps_not_forwards():
    def gradients(sizes):
        distiller = Distiller(Net(4, seed=0), Net(4, seed=1), {"hint": Term(F.mse_loss, "body", "body", ramp=2)})
        distiller.advance()
        for images, labels in zip(*(t.split(sizes) for t in batches(1, size=8)[0]), strict=True):
            distilled = distiller(images)
            ((F.cross_entropy(distilled.output, labels) + distilled.loss) * len(images) / 8).backward()
            assert distiller.step == 1
        return [p.grad for p in distiller.parameters()]

    for accumulated, whole in zip(gradients(2), gradients(8), strict=True):
        assert relative_error(accumulated, whole) < 1e-5


def test_a_checkpoint_resumes_to_the_same_bits():
    data = batches(6)
    torch.manual_seed(7)
    whole = pair(ramp=8, adapter=Adapter("1x1", 4, 4))
    optimizer = sgd(whole)
    train(whole, data[:4], optimizer)
    saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    train(whole, data[4:], optimizer)

    resumed = pair(ramp=8, adapter=Adapter("1x1", 4, 4))
    resumed.advance()
    resumed(data[0][0])  # the weight on the device is that of step 1
    optimizer = sgd(resumed)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    assert resumed.step == 4
    train(resumed, data[4:], optimizer)
    assert resumed.step == 6 and same_bits(resumed, whole)


def test_forgetting_to_advance_is_an_error():
    def steps(distiller, optimizer):
        for images, labels in batches(40):
            F.cross_entropy(distiller(images).output, labels).backward()
            optimizer.step()

    message = r"Distiller: expected advance\(\) after each optimizer.step\(\), got 16 updates of the student at step 0"
    distiller = pair(start=100)
    with pytest.raises(RuntimeError, match=message):
        steps(distiller, sgd(distiller))
    distiller = pair(start=100)
    steps(distiller, torch.optim.SGD([torch.zeros(1, requires_grad=True)]))  # forwards of one long accumulation


def test_statistics_are_means_of_raw_terms():
    distiller = Distiller(
        Net(4, seed=0),
        None,
        {
            "a": Term(lambda f: {"x": f.mean(), "y": f.square().mean()}, "body", weight=0.01),
            "b": Term(mean, "", start=2),
        },
    )
    assert distiller.statistics() == {}
    bodies = []
    for images, _ in batches(2):
        distiller(images)
        distiller.advance()
        bodies.append(distiller.student.body(F.relu(distiller.student.stem(images))).detach().double())
    expected = {"a.x": sum(f.mean() for f in bodies) / 2, "a.y": sum(f.square().mean() for f in bodies) / 2}
    assert distiller.statistics() == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-6)
    assert distiller.statistics() == {}
    distiller(images)
    assert distiller.statistics().keys() == {"a.x", "a.y", "b"}
    distiller.eval()(images)
    assert distiller.statistics() == {}


def test_a_step_never_waits_for_the_device():
    distiller = pair(ramp=3, adapter=Adapter("3x3", 4, 4))
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    for images, labels in batches(4):
        with NoCopies():
            distilled = distiller(images)
            (F.cross_entropy(distilled.output, labels) + distilled.loss).backward()
            optimizer.step()
            optimizer.zero_grad()
            distiller.advance()
    with pytest.raises(AssertionError, match="synchronises"), NoCopies():
        distilled.loss.item()


def test_a_step_on_a_gpu_copies_nothing_to_the_host_or_back():
    distiller = pair(ramp=3, adapter=Adapter("1x1", 4, 4))
    with FakeTensorMode(), torch.no_grad():
        for module in (*distiller.modules(), *distiller.teacher.modules()):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.empty(parameter.shape, device="cuda")))
        images = torch.empty(4, 3, 6, 6, device="cuda")
        with NoCopies():
            for step in range(4):
                distilled = distiller(images)
                assert len(distilled.losses) == (step > 0) and distilled.loss.device.type == "cuda"
                distiller.advance()
