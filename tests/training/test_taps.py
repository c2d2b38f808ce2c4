import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pydistill import Distiller, Term
from pydistill.taps import Taps
from tests.training.nets import Net, batches


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def features(taps, path, model, *args):
    with taps.record():
        model(*args)
    return taps[path]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(self.layer(x))


class InPlace(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 3), nn.ReLU(inplace=True))


def test_a_path_delivers_what_its_module_returned():
    model, (images, _) = Net(4, seed=0), batches(1)[0]
    assert torch.equal(
        features(Taps(model, ["body.0"]), "body.0", model, images), model.body[0](F.relu(model.stem(images)))
    )
    assert torch.equal(features(Taps(model, [""]), "", model, images), model(images))


def test_a_path_that_matches_nothing_lists_its_neighbours():
    with pytest.raises(ValueError, match=r"expected the path of a module of the student, got 'boddy'; near .*'body'"):
        Distiller(Net(4, seed=0), None, {"sad": Term(torch.sum, "boddy")})
    with pytest.raises(ValueError, match=r"expected the path of a module of the teacher, got 'heads'; near .*'head'"):
        Distiller(Net(4, seed=0), Net(4, seed=1), {"kd": Term(F.mse_loss, "head", "heads")})


def test_a_module_that_is_never_reached_is_an_error():
    term = Term(lambda feature: feature.sum(), "unused")
    with pytest.raises(RuntimeError, match="expected tap 'unused' of the student to be reached in the forward, got 0"):
        Distiller(Twice(), None, {"t": term})(torch.rand(2, 3))
    with pytest.raises(RuntimeError, match="expected tap 'unused' of the teacher to be reached in the forward, got 0"):
        Distiller(Twice(), Twice(), {"t": Term(F.mse_loss, "", "unused")})(torch.rand(2, 3))


def test_a_module_called_twice_needs_a_choice():
    model, x = Twice(), torch.rand(2, 3)
    first, second = model.layer(x), model.layer(model.layer(x))
    assert torch.equal(features(Taps(model, ["layer[0]"]), "layer[0]", model, x), first)
    assert torch.equal(features(Taps(model, ["layer[1]"]), "layer[1]", model, x), second)
    assert all(map(torch.equal, features(Taps(model, ["layer[*]"]), "layer[*]", model, x), [first, second]))
    with pytest.raises(RuntimeError, match=r"expected one call of tap 'layer' of the model, got 2; tap 'layer\[\*\]'"):
        features(Taps(model, ["layer"]), "layer", model, x)
    with pytest.raises(
        RuntimeError, match=r"expected tap 'layer\[2\]' of the model to be reached in the forward, got 2"
    ):
        features(Taps(model, ["layer[2]"]), "layer[2]", model, x)


def test_an_output_overwritten_in_place_is_an_error():
    model, x = InPlace(), torch.randn(2, 3)
    assert torch.equal(features(Taps(model, ["1"]), "1", model, x), model(x))
    with pytest.raises(RuntimeError, match="expected the output of tap '0' of the model unchanged"):
        features(Taps(model, ["0"]), "0", model, x)


def test_a_feature_without_gradient_is_an_error_in_training():
    student = Net(4, seed=0, checkpointing=True)  # the reentrant kind cuts the tapped feature's gradient silently
    images = batches(1)[0][0]
    distiller = Distiller(student, Net(4, seed=1), {"hint": Term(F.mse_loss, "body.0", "body.0")})
    message = r"expected a gradient in the student's feature 'body\.0' in training, got none.*use_reentrant=True"
    with pytest.raises(RuntimeError, match=message):
        distiller(images)
    assert distiller.eval()(images).losses.keys() == {"hint"}

    frozen = Net(4, seed=0)
    frozen.stem.requires_grad_(False)
    with pytest.raises(RuntimeError, match="expected a gradient in the student's feature 'stem' in training, got none"):
        Distiller(frozen, Net(4, seed=1), {"hint": Term(F.mse_loss, "stem", "stem")})(images)


def test_hooks_exist_only_inside_a_forward():
    student, teacher, images = Net(4, seed=0), Net(4, seed=1), batches(1)[0][0]
    seen = []

    def loss(s, t):
        seen.append(hooks(student) + hooks(teacher))
        return F.mse_loss(s, t)

    student.register_forward_pre_hook(lambda *_: seen.append(hooks(student)))
    for _ in range(3):  # wrapping again adds nothing
        distiller = Distiller(student, teacher, {"hint": Term(loss, "body", "body")})
        distiller(images)
    assert seen == [1, 0] * 3 and hooks(student) == hooks(teacher) == 0


def test_an_exception_in_the_forward_leaves_no_hook():
    student = Net(4, seed=0)
    distiller = Distiller(student, None, {"t": Term(torch.sum, "body")})
    with pytest.raises(RuntimeError):
        distiller(torch.rand(1, 9, 2, 2))
    assert hooks(student) == 0


def test_no_feature_outlives_its_step():
    student, kept = Net(4, seed=0), []

    def loss(feature):
        kept.append(weakref.ref(feature))
        return feature.mean()

    distiller = Distiller(student, None, {"t": Term(loss, "body")})
    distiller(batches(1)[0][0])
    gc.collect()
    assert kept[0]() is None


def test_copies_and_pickles_work_alone():
    images = batches(1)[0][0]
    original = Distiller(Net(4, seed=0), Net(4, seed=1), {"hint": Term(F.mse_loss, "body", "body")})
    expected = original(images).loss
    for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        with torch.no_grad():
            copied.student.stem.weight.zero_()
            assert original(images).loss == expected != copied(images).loss
        assert hooks(copied.student) == 0 and not copied.teacher.training
    student = copy.deepcopy(original.student)
    torch.save(student, buffer := io.BytesIO())
    assert b"pydistill" not in buffer.getvalue()
    assert Distiller(student, original.teacher, original.terms)(images).loss == expected


def test_closing_removes_the_hooks_of_a_compiled_student():
    student = Net(4, seed=0)
    student.compile(backend="eager")
    with Distiller(student, None, {"t": Term(lambda f: f.mean(), "body")}) as distiller:
        assert hooks(student) == 1
        assert hooks(copy.deepcopy(distiller).student) == 1
    assert hooks(student) == 0
    with pytest.raises(RuntimeError, match=r"Distiller: expected an open distiller, got a call after close\(\)"):
        distiller(batches(1)[0][0])
