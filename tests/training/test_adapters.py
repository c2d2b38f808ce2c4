import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pydistill import Adapter, Distiller, Term
from tests.conformance import relative_error
from tests.training.nets import Net, batches, sgd, train


def test_each_kind_computes_its_formula():
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    one = Adapter("1x1", 3, 7).build(0).double()
    assert (
        relative_error(one(x), torch.einsum("oc,nchw->nohw", one.weight[..., 0, 0], x) + one.bias[:, None, None])
        < 1e-12
    )

    three = Adapter("3x3", 3, 7).build(0).double()
    y = F.conv2d(x, three[0].weight, padding=1)
    mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), unbiased=False, keepdim=True)
    assert relative_error(three(x), ((y - mean) / (variance + 1e-5).sqrt()).clamp(min=0)) < 1e-12

    queries = torch.randn(2, 9, 3, dtype=torch.float64)
    linear = Adapter("linear", 3, 7).build(0).double()
    assert relative_error(linear(queries), queries @ linear.weight.T + linear.bias) < 1e-12


@pytest.mark.parametrize("kind", ["1x1", "3x3", "linear"])
def test_building_leaves_the_random_state_alone(kind):
    state = torch.get_rng_state()
    Adapter(kind, 4, 8).build(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_follow_the_users_and_differ_by_term():
    def weights(seed):
        torch.manual_seed(seed)
        adapter = Adapter("1x1", 4, 8)
        terms = {"a": Term(F.mse_loss, ["stem", "body"], ["stem", "body"], [adapter, adapter])}
        terms["b"] = Term(F.mse_loss, "body", "body", adapter)
        distiller = Distiller(Net(4, seed=0), Net(8, seed=1), terms)
        return [layer.weight for layers in distiller.adapters.values() for layer in layers]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_adapters_train_and_bring_their_feature_to_the_teachers_width():
    student, teacher = Net(4, seed=0), Net(8, seed=1)
    distiller = Distiller(student, teacher, {"hint": Term(F.mse_loss, "body", "body", Adapter("1x1", 4, 8))})
    layer = distiller.adapters["hint"][0]
    before = layer.weight.clone()
    (images, labels) = batches(1)[0]

    expected = F.mse_loss(layer(student.body(F.relu(student.stem(images)))), teacher.body(F.relu(teacher.stem(images))))
    assert relative_error(distiller(images).loss, expected) < 1e-6

    train(distiller, [(images, labels)], sgd(distiller))
    assert not torch.equal(layer.weight, before)


def test_a_sleeping_adapter_gets_gradients_of_zero():
    term = Term(F.mse_loss, "body", "body", Adapter("3x3", 4, 8), start=1)
    distiller = Distiller(Net(4, seed=0), Net(8, seed=1), {"hint": term})
    statistics = {name: value.clone() for name, value in distiller.adapters.named_buffers()}
    distilled = distiller(batches(1)[0][0])
    assert distilled.losses == {} and distilled.loss.item() == 0
    (distilled.output.sum() + distilled.loss).backward()
    assert all((p.grad == 0).all() for p in distiller.adapters.parameters())
    assert all(torch.equal(value, statistics[name]) for name, value in distiller.adapters.named_buffers())


def test_a_loss_with_parameters_trains_with_the_student_and_sleeps_with_its_term():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.projection = nn.Linear(5, 5)

        def forward(self, student, teacher):
            return F.mse_loss(self.projection(student), teacher)

    loss = Projected()
    distiller = Distiller(Net(4, seed=0), Net(8, seed=1), {"kd": Term(loss, "head", "head", start=1)})
    assert {id(p) for p in loss.parameters()} <= {id(p) for p in distiller.parameters()}
    distiller(batches(1)[0][0]).loss.backward()
    assert (loss.projection.weight.grad == 0).all()
    distiller.advance()
    distiller(batches(1)[0][0]).loss.backward()
    assert (loss.projection.weight.grad != 0).any()


def test_the_students_state_has_no_trace_of_the_distillation():
    student = Net(4, seed=0)
    names = list(student.state_dict())
    distiller = Distiller(student, Net(8, seed=1), {"hint": Term(F.mse_loss, "body", "body", Adapter("3x3", 4, 8))})
    assert list(distiller.student_state_dict()) == names
    assert any(name.startswith("adapters.hint.0") for name in distiller.state_dict())
    Net(4, seed=2).load_state_dict(distiller.student_state_dict())


def test_a_feature_of_several_calls_passes_the_adapter_call_by_call():
    class Levels(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.head = nn.Conv2d(3, width, 1)

        def forward(self, x):
            return [self.head(x), self.head(x[..., ::2])]

    student, teacher = Levels(2), Levels(4)
    seen = []

    def loss(student_levels, teacher_levels):
        seen.append([level.shape for level in student_levels])
        return sum(F.mse_loss(s, t) for s, t in zip(student_levels, teacher_levels, strict=True))

    Distiller(student, teacher, {"hint": Term(loss, "head[*]", "head[*]", Adapter("1x1", 2, 4))})(
        torch.rand(1, 3, 4, 4)
    )
    assert seen == [[(1, 4, 4, 4), (1, 4, 4, 2)]]


def test_a_wrong_adapter_is_an_error():
    with pytest.raises(ValueError, match=r"Adapter: expected kind one of \('1x1', '3x3', 'linear'\), got '5x5'"):
        Adapter("5x5", 3, 4)
    with pytest.raises(ValueError, match="Adapter: expected channels >= 1, got 0 and 4"):
        Adapter("1x1", 0, 4)
