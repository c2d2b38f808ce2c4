import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pydistill import Adapter, Distiller, Term
from tests.conformance import relative_error
from tests.training.nets import Net, batches, mean, pair, same_bits, sgd, train


def plain_training(data):
    """The student's training without any distillation. Returns it and the losses."""
    student = Net(4, seed=0, dropout=0.3)
    optimizer, losses = sgd(student), []
    for images, labels in data:
        loss = F.cross_entropy(student(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return student, losses


def test_the_import_needs_no_compiled_kernels():
    program = "import sys, pydistill.distiller; assert 'pydistill._C' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_loss_and_gradient_are_those_of_the_formula():
    distiller = Distiller(
        Net(4, seed=0),
        Net(8, seed=1),
        {
            "hint": Term(F.mse_loss, "body", "body", Adapter("1x1", 4, 8), weight=0.5),
            "kd": Term(lambda s, t: {"a": F.mse_loss(s, t), "b": (s - t).abs().mean()}, "", "head", weight=3.0),
        },
    )
    images, labels = batches(1)[0]
    distilled = distiller(images)
    (F.cross_entropy(distilled.output, labels) + distilled.loss).backward()

    reference = copy.deepcopy(distiller).double()
    student, teacher, x = reference.student, reference.teacher, images.double()
    body, taught = student.body(F.relu(student.stem(x))), teacher.body(F.relu(teacher.stem(x)))
    logits, soft = student(x), teacher(x)
    expected = {
        "hint": 0.5 * F.mse_loss(reference.adapters["hint"][0](body), taught),
        "kd.a": 3 * F.mse_loss(logits, soft),
        "kd.b": 3 * (logits - soft).abs().mean(),
    }
    reference.zero_grad()
    (F.cross_entropy(logits, labels) + sum(expected.values())).backward()

    assert distilled.losses.keys() == expected.keys()
    assert all(relative_error(distilled.losses[name], expected[name]) < 1e-6 for name in expected)
    assert relative_error(distilled.loss, sum(expected.values())) < 1e-6
    for parameter, wanted in zip(distiller.parameters(), reference.parameters(), strict=True):
        assert relative_error(parameter.grad, wanted.grad) < 1e-5


def test_self_distillation_needs_no_teacher():
    def loss(features):
        shallow, deep = (f.square().mean(1) for f in features)
        return F.mse_loss(shallow, deep.detach())

    student = Net(4, seed=0)
    images = batches(1)[0][0]
    distiller = Distiller(student, terms={"sad": Term(loss, ["stem", "body"], weight=0.1)})
    shallow = student.stem(images)
    assert distiller.teacher is None
    assert relative_error(distiller(images).loss, 0.1 * loss([shallow, student.body(F.relu(shallow))])) < 1e-6


def test_targets_and_the_teachers_own_inputs_reach_them():
    seen = []

    def loss(student, teacher, targets):
        seen.extend([teacher, targets])
        return student.mean()

    distiller = Distiller(Net(4, seed=0), Net(4, seed=1), {"t": Term(loss, "", "", targets=True)})
    (images, labels), (others, _) = batches(2)
    distiller(images, targets=labels, teacher_inputs=(others,))
    distiller(images, targets=labels, teacher_inputs={"x": others})
    distiller(images, targets=labels)
    assert all(targets is labels for targets in seen[1::2])
    assert [torch.equal(logits, distiller.teacher(others)) for logits in seen[::2]] == [True, True, False]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("pack, got", [(lambda images: images, "Tensor"), (lambda images: [images], "list")])
def test_the_teachers_inputs_are_not_taken_apart(size, pack, got):
    """A tensor of one picture would be that picture without its batch; of two, two arguments."""
    distiller = Distiller(Net(4, seed=0), Net(4, seed=1), {"kd": Term(F.mse_loss, "", "")})
    images = batches(1)[0][0][:size]
    with pytest.raises(TypeError, match=f"Distiller: expected a tuple or a dict as teacher_inputs, got {got}"):
        distiller(images, teacher_inputs=pack(images))


def test_the_teacher_is_frozen_and_apart():
    distiller = pair()
    teacher, before = distiller.teacher, copy.deepcopy(distiller.teacher)
    assert not any(p.requires_grad for p in teacher.parameters())
    mine, theirs = ({id(p) for p in module.parameters()} for module in (distiller, teacher))
    assert not mine & theirs and teacher not in set(distiller.modules())
    assert set(distiller.state_dict()) == {f"student.{name}" for name in distiller.student.state_dict()} | {
        "_extra_state"
    }

    distiller.train()
    assert distiller.student.training and not any(module.training for module in teacher.modules())
    teacher.train()
    train(distiller, batches(3), torch.optim.SGD(distiller.parameters(), lr=0.1, weight_decay=0.1))
    assert not any(module.training for module in teacher.modules())
    assert same_bits(teacher, before) and all(p.grad is None for p in teacher.parameters())


def test_the_teachers_features_have_no_gradient():
    seen = []
    distiller = pair()
    distiller.terms["hint"] = Term(lambda s, t: seen.append(t.requires_grad) or F.mse_loss(s, t), "body", "body")
    distiller(batches(1)[0][0].requires_grad_())  # frozen weights alone would let the pictures' gradient through
    assert seen == [False]


def test_moving_the_distiller_moves_the_teacher():
    distiller = pair()
    assert {p.dtype for p in distiller.to(torch.float64).teacher.parameters()} == {torch.float64}
    assert {p.device.type for p in distiller.to("meta").teacher.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "options", [dict(weight=0.0), dict(start=10**6), dict(adapter=Adapter("3x3", 4, 4), start=10**6)]
)
def test_a_sleeping_term_leaves_training_bit_equal_to_none(options):
    data = batches(8)
    torch.manual_seed(7)
    expected, expected_losses = plain_training(data)

    torch.manual_seed(7)
    distiller = pair(**options)  # built in between: it must not draw from the student's random stream
    losses = train(distiller, data, sgd(distiller))
    assert losses == expected_losses and same_bits(distiller.student, expected)


def test_a_sleeping_term_calls_neither_its_loss_nor_the_teacher():
    calls = []
    teacher = Net(4, seed=1)
    teacher.register_forward_hook(lambda *_: calls.append("teacher"))

    def loss(s, t):
        calls.append("loss")
        return F.mse_loss(s, t)

    terms = {"hint": Term(loss, "body", "body", start=1, end=3), "never": Term(loss, "body", "body", weight=0)}
    terms["self"] = Term(mean, "body")
    distiller = Distiller(Net(4, seed=0), teacher, terms)
    per_step = []
    for images, _ in batches(4):
        calls.clear()
        distiller(images)
        distiller.advance()
        per_step.append(list(calls))
    assert per_step == [[], ["teacher", "loss"], ["teacher", "loss"], []]


def test_terms_that_can_never_act_are_errors():
    student, teacher = Net(4, seed=0), Net(4, seed=1)
    with pytest.raises(ValueError, match="Distiller: expected at least one term, got none"):
        Distiller(student, teacher)
    with pytest.raises(ValueError, match="Distiller: expected a teacher for the term 'kd', got None"):
        Distiller(student, None, {"kd": Term(F.mse_loss, "head", "head")})
    with pytest.raises(ValueError, match="Distiller: expected a term that uses the teacher, got none"):
        Distiller(student, teacher, {"t": Term(mean, "head")})
    with pytest.raises(ValueError, match="Distiller: expected a teacher with parameters of its own"):
        Distiller(student, student, {"kd": Term(F.mse_loss, "head", "head")})
    with pytest.raises(ValueError, match=r"Distiller: expected term names that are plain identifiers, got 'a\.b'"):
        Distiller(student, None, {"a.b": Term(mean, "head")})


@pytest.mark.parametrize("terms, message", [
    ([Term(mean, "head")], "expected terms as a dict of Term by name, got list"),
    (Term(mean, "head"), "expected terms as a dict of Term by name, got Term"),
    ({"kd": mean}, "expected a Term under the name 'kd', got function"),
])  # fmt: skip
def test_terms_of_another_type_are_errors(terms, message):
    with pytest.raises(TypeError, match=f"^Distiller: {message}$"):
        Distiller(Net(4, seed=0), None, terms)


def test_a_loss_without_gradient_or_of_another_shape_is_an_error():
    images = batches(1)[0][0]

    def call(loss):
        return Distiller(Net(4, seed=0), None, {"t": Term(loss, "head")})(images)

    with pytest.raises(RuntimeError, match="expected a gradient in the loss 't' in training, got none"):
        call(lambda feature: feature.detach().mean())
    with pytest.raises(ValueError, match=r"expected a scalar tensor from the loss 't', got \[4, 5\]"):
        call(lambda feature: feature)
    with pytest.raises(ValueError, match=r"expected a scalar tensor from the loss 't\.a', got float"):
        call(lambda feature: {"a": 0.5})


def test_a_student_of_any_output_and_signature():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x, *, scale):
            return {"levels": [self.layer(x) * scale], "name": "kept"}

    x = torch.rand(2, 3)
    distilled = Distiller(Student(), None, {"t": Term(lambda out: out["levels"][0].sum(), "")})(x, scale=2.0)
    assert distilled.output["name"] == "kept"
    assert relative_error(distilled.loss, distilled.output["levels"][0].double().sum()) < 1e-6
