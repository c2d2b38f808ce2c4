"""Training of detectors: resuming, distillation that is off, frozen parts, devices."""

from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric

from pydistill.recipes.dense.config import DISTILLED, PAPER, STUDENT, TEACHER, DenseConfig
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.run import open_data
from pydistill.recipes.dense.training import Training, check_classes, export, load_student
from pydistill.recipes.training import make_optimizer
from tests.recipes.dense import TINY, make_teacher
from tests.recipes.lanes import same, weights

pytestmark = pytest.mark.xdist_group("dense_training")  # one worker makes the files that they share

OFF = dict.fromkeys(DISTILLED, 0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_coco(tmp_path_factory.mktemp("dense"), 0, 6, 3, classes=3)
    return open_data(TINY, root, "train", training=True), open_data(TINY, root, "val")


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def run(config, data, fabric, teacher=None, until=None):
    training = Training(config, data[0], None, fabric, teacher=teacher)
    training.run(until)
    return training


def test_resume_to_the_same_bits(data, fabric, tmp_path):
    config = replace(TINY, ld=True, imitation=1.0, pseudo_box=0.5)
    whole, first, second = (Training(config, *data, fabric, teacher=make_teacher()) for _ in range(3))
    whole.run()
    first.run(2)
    first.save(tmp_path / "half.pt")
    torch.manual_seed(99)
    second.load(tmp_path / "half.pt")
    second.run()
    assert same(weights(whole), weights(second)) and whole.history == second.history
    assert set(whole.history[0]) == {
        "step", "learning_rate", "classification", "box", "dfl", "main_ld", "vlr_ld", "main_kd", "imitation",
        "pseudo_box",
    }  # fmt: skip
    assert "ap50" in whole.history[-1]
    with pytest.raises(ValueError, match=r"got other values of \['gamma'\]"):
        Training(replace(config, gamma=0.5), data[0], fabric=fabric, teacher=make_teacher()).load(tmp_path / "half.pt")


def test_weights_of_zero_are_no_distillation(data, fabric):
    plain = run(TINY, data, fabric, until=2)
    off = run(replace(TINY, ld=True, **OFF), data, fabric, make_teacher(), until=2)
    assert same(weights(plain), weights(off)) and plain.history == off.history
    on = run(replace(TINY, ld=True, **(OFF | {"main_ld": 0.25})), data, fabric, make_teacher(), until=2)
    assert not same(weights(plain), weights(on))


def test_checkpoint_holds_the_student_alone(data, fabric, tmp_path):
    teacher = make_teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    training = run(replace(TINY, ld=True), data, fabric, teacher, until=1)
    training.save(tmp_path / "last.pt")
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert set(state["student"]) == set(training.student.state_dict())
    student, config, classes = load_student(tmp_path / "last.pt")
    assert same(student.state_dict(), weights(training)) and config == training.config and classes == ("0", "1", "2")
    assert same(before, teacher.state_dict()) and not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training and not student.training
    export(training, tmp_path / "half.pt")
    half, _, _ = load_student(tmp_path / "half.pt")
    for name, value in half.state_dict().items():
        torch.testing.assert_close(value, student.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert (tmp_path / "half.pt").stat().st_size < 0.6 * (tmp_path / "last.pt").stat().st_size


def test_teachers_that_do_not_fit(data, fabric):
    with pytest.raises(ValueError, match="expected a teacher for main_ld, vlr_ld, main_kd, got none"):
        Training(replace(TINY, ld=True), data[0], fabric=fabric)
    other = make_teacher(replace(TINY, reg_max=8, fpn_channels=16))
    with pytest.raises(ValueError, match=r"got other \['reg_max', 'fpn_channels'\]"):
        Training(replace(TINY, ld=True, imitation=1.0), data[0], fabric=fabric, teacher=other)
    with pytest.raises(ValueError, match="expected data of the network's 2 classes, got 3"):
        check_classes(("a", "b"), ("a", "b", "c"), "evaluate")


def test_frozen_backbone(data, fabric):
    config = replace(TINY, backbone="resnet18", width=0.125, strides=(8, 16, 32), frozen=True)
    training = Training(config, data[0], fabric=fabric)
    before = weights(training)
    training.run(1)
    changed = {name for name, value in weights(training).items() if not torch.equal(value, before[name])}
    still = ("backbone.conv1", "backbone.bn1", "backbone.layer1", "running", "num_batches")
    assert changed and not any(part in name for name in changed for part in still)
    assert any(name.startswith("backbone.layer2") for name in changed)


def test_configuration():
    for config in (STUDENT, TEACHER, PAPER):
        assert DenseConfig.from_dict(config.to_dict()) == config
    assert PAPER.learning_rate(0) == pytest.approx(0.01 / 500) and PAPER.learning_rate(1000) == pytest.approx(0.01)
    rates = [PAPER.learning_rate(round(PAPER.steps * share)) for share in (0.5, 0.7, 0.95)]
    assert rates == pytest.approx([1e-2, 1e-3, 1e-4])
    cosine = replace(TINY, steps=100, lr=1.0, warmup=1)
    assert [cosine.learning_rate(s) for s in (0, 50)] == pytest.approx([1.0, 0.01 + 0.99 / 2])
    assert PAPER.loss().settings.weights["main_kd"] == 10 and STUDENT.loss().settings.weights["main_kd"] == 0
    assert (STUDENT.fpn_channels, STUDENT.strides) == (TEACHER.fpn_channels, TEACHER.strides)  # for imitation
    momentum = make_optimizer("sgd", [torch.nn.Parameter(torch.zeros(1))], 0.1, 0.0, nesterov=False)
    assert momentum.defaults["momentum"] == 0.9 and not momentum.defaults["nesterov"]
    for wrong, message in (
        ({"backbone": "vgg"}, "expected backbone in .*, got 'vgg'"),
        ({"steps": 0}, "expected steps >= 1, got 0"),
        ({"seed": -1}, "expected seed >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TINY, **wrong)
    with pytest.raises(ValueError, match=r"got \['depth'\]"):
        DenseConfig.from_dict({"depth": 3})


def test_training_learns(data, fabric):
    """A few pictures, seen often, are learnt."""
    config = replace(TINY, steps=30, batch=6, lr=5e-3, width=0.25, fpn_channels=16, log_every=5)
    rows = run(config, data, fabric).history
    assert rows[-1]["box"] < 0.9 * rows[0]["box"] and rows[-1]["dfl"] < 0.8 * rows[0]["dfl"]
