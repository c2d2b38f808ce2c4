"""SAD adds no parameter and no inference operation to a lane network."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pydistill.distiller import Distiller
from pydistill.losses.sad import SADLoss
from pydistill.recipes.lanes.enet import ENetSAD
from pydistill.recipes.lanes.resnet import ResNetSAD
from pydistill.schedule import Term

SIZE = (32, 64)
NETWORKS = {
    "ENet": lambda: ENetSAD(SIZE),
    "ENet, separate weights": lambda: ENetSAD(SIZE, shared=False, dilated=True),
    "ResNet-18": lambda: ResNetSAD(18, SIZE, width=0.125),
    "ResNet-34": lambda: ResNetSAD(34, SIZE, width=0.125),
}


class _Operations(TorchDispatchMode):
    """Records every ATen operation, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def _operations(call):
    with torch.no_grad(), _Operations() as recorded:
        call()
    return recorded.names


@pytest.mark.parametrize("name", NETWORKS)
def test_sad_is_free_at_inference(name):
    torch.manual_seed(0)
    student = NETWORKS[name]().eval()
    x = torch.rand(1, 3, *SIZE)
    plain = _operations(lambda: student(x))
    parameters = [(key, p.shape) for key, p in student.named_parameters()]
    keys = list(student.state_dict())
    output = student(x)

    terms = {
        "middle": Term(SADLoss(normalize="mean"), student.stages[1:], weight=0.1),
        "all": Term(SADLoss(normalize="mean"), student.stages, weight=0.1, start=4),
    }
    distiller = Distiller(student, terms=terms).eval()
    assert [(key, p.shape) for key, p in student.named_parameters()] == parameters
    assert {f"student.{key}" for key, _ in parameters} == {key for key, _ in distiller.named_parameters()}
    assert list(distiller.student_state_dict()) == keys == list(student.state_dict())

    with_sad = _operations(lambda: distiller(x))
    assert with_sad[: len(plain)] == plain and len(with_sad) > len(plain)  # the loss comes after the network, if asked
    assert _operations(lambda: student(x)) == plain
    distiller.close()
    assert _operations(lambda: student(x)) == plain
    assert all(a.equal(b) for a, b in zip(student(x), output))
    assert "aten.convolution.default" in plain


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_learn_from_sad_alone(name):
    """The stages are there for SAD: E2 and E3, or layer2 and layer3, move towards the next deeper stage."""
    torch.manual_seed(0)
    student = NETWORKS[name]()
    distiller = Distiller(student, terms={"sad": Term(SADLoss(normalize="mean"), student.stages[1:])})
    distilled = distiller(torch.rand(2, 3, *SIZE))
    distilled.loss.backward()
    assert set(distilled.losses) == {"sad.sad_0_1", "sad.sad_1_2"} and distilled.loss > 0
    first = next(p for n, p in student.named_parameters() if n.startswith(("initial.conv", "backbone.conv1")))
    assert first.grad.abs().sum() > 0
    assert all(p.grad is None for n, p in student.named_parameters() if n.startswith(("decoder", "head", "p1", "neck")))
