"""Training of detectors in bird's-eye view: resuming, distillation that is off, what the loss is told, teachers."""

from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision

from pydistill.losses.unidistill import UniDistillLoss
from pydistill.recipes.bev.config import PAPER, STUDENT, TEACHER, TERMS, BevConfig, path_of
from pydistill.recipes.bev.objective import detection_losses
from pydistill.recipes.bev.run import open_data
from pydistill.recipes.bev.training import Training, build_model, check_pair, load_student
from pydistill.recipes.training import export
from tests.recipes.bev import TINY, write
from tests.recipes.lanes import same, weights

pytestmark = pytest.mark.xdist_group("bev_training")  # one worker makes the files that they share

OFF = dict.fromkeys(TERMS, 0.0)
ON = replace(TINY, unidistill=True)
OWN = {"heatmap", "box"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("bev"))
    return open_data(TINY, root, "train", training=True), open_data(TINY, root, "val")


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def make_teacher(modality="lidar"):
    torch.manual_seed(5)
    config = replace(TINY, modality=modality)
    return build_model(config).eval(), config


def run(config, data, fabric, teacher=None, until=None):
    training = Training(config, data[0], None, fabric, teacher=teacher)
    training.run(until)
    return training


def test_resume_to_the_same_bits(data, fabric, tmp_path):
    """With adapters, which are no part of the student."""
    config = replace(ON, adapter="1x1", evaluate_every=4)
    whole, first, second = (Training(config, *data, fabric, teacher=make_teacher()) for _ in range(3))
    start = {name: value.clone() for name, value in whole.distiller.loss_modules.state_dict().items()}
    whole.run()
    first.run(2)
    first.save(tmp_path / "half.pt")
    torch.manual_seed(99)
    second.load(tmp_path / "half.pt")
    second.run()
    assert same(weights(whole), weights(second)) and whole.history == second.history
    heads = [training.distiller.loss_modules.state_dict() for training in (whole, second)]
    assert heads[0] and same(*heads) and not any(torch.equal(start[name], value) for name, value in heads[0].items())
    assert OWN | {"feature", "relation", "classes", "numbers"} == set(whole.history[0]) - {"step", "learning_rate"}
    assert {"map", "nds"} <= set(whole.history[-1])
    with pytest.raises(ValueError, match=r"got other values of \['lr'\]"):
        Training(replace(config, lr=0.5), data[0], fabric=fabric, teacher=make_teacher()).load(tmp_path / "half.pt")


def test_weights_of_zero_are_no_distillation(data, fabric):
    plain = run(TINY, data, fabric, until=2)
    off = run(replace(ON, **OFF), data, fabric, make_teacher(), until=2)
    assert same(weights(plain), weights(off)) and plain.history == off.history
    assert set(plain.history[0]) - {"step", "learning_rate"} == OWN
    on = run(replace(ON, **OFF | {"response": 1.0}), data, fabric, make_teacher(), until=2)
    assert not same(weights(plain), weights(on))


def test_the_loss_is_that_of_the_outputs(data, fabric):
    """By hand: teacher and student on the batch, then the objective and what UniDistill adds."""
    teacher, config = make_teacher()
    training = Training(ON, data[0], fabric=fabric, teacher=(teacher, config))
    truth = data[0].training_batch(0, 0, 2)
    student = training.student.train()
    _, total = training.losses(truth)
    with torch.no_grad():
        mine, taught = student(truth), teacher(truth)
    terms = detection_losses(mine, truth, TINY.grid)
    terms |= UniDistillLoss(TINY.grid, path="camera_from_lidar")(mine, taught, truth.boxes, truth.valid)
    assert float(total.detach()) == pytest.approx(float(sum(terms.values())), rel=1e-5)


@pytest.mark.parametrize(("student", "teacher"), [("lidar", "camera"), ("lidar", "fusion"), ("fusion", "fusion")])
def test_the_other_pairs(data, fabric, student, teacher):
    config = replace(ON, modality=student, adapter="3x3")
    training = run(config, data, fabric, make_teacher(teacher), until=1)
    assert all(training.history[0][name] > 0 for name in ("feature", "relation", "classes", "numbers"))
    assert training.probe is None and training.score() is None


def test_checkpoint_holds_the_student_alone(data, fabric, tmp_path):
    teacher, config = make_teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    training = run(ON, data, fabric, (teacher, config), until=1)
    training.save(tmp_path / "last.pt")
    student, found = load_student(tmp_path / "last.pt")
    assert same(student.state_dict(), training.student.state_dict()) and found == ON
    assert same(before, teacher.state_dict()) and not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training and not student.training
    export(training, tmp_path / "half.pt")
    for name, value in load_student(tmp_path / "half.pt")[0].state_dict().items():
        torch.testing.assert_close(value, student.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_teachers_that_do_not_fit(data, fabric):
    with pytest.raises(ValueError, match="expected a teacher for UniDistill, got none"):
        Training(ON, data[0], fabric=fabric)
    with pytest.raises(ValueError, match=r"reach, cells, low, high, got other \['cells', 'low'\]"):
        check_pair(TINY, replace(TINY, cells=32, low=4))
    assert check_pair(replace(TINY, adapter="1x1"), replace(TINY, low=4)) is None


def test_bfloat16(data):
    """Losses and their sum stay float32."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    training = Training(replace(ON, modality="fusion"), data[0], fabric=fabric, teacher=make_teacher())
    losses, total = training.losses(data[0].training_batch(0, 0, 2))
    fabric.backward(total)
    assert total.dtype == torch.float32 and all(loss.isfinite() for loss in losses.values())
    gradients = [p.grad for p in training.student.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_float16_trains_on_after_an_overflow(data):
    """The step is left out and the scale halved; in float32 a gradient that is not finite is an error."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    config = replace(TINY, modality="lidar", steps=40)
    training = Training(config, data[0], fabric=fabric)
    start = [p.detach().clone() for p in training.student.parameters()]
    training.run(1)
    assert all(map(torch.equal, start, training.student.parameters())) and scaler.get_scale() == 2.0**59
    scaler.update(1024.0)
    training.run(2)
    assert not any(map(torch.equal, start, training.student.parameters()))
    exact = Training(config, data[0])
    torch.nn.init.constant_(exact.student.heads.heatmaps[0][-1].bias, torch.nan)
    with pytest.raises(RuntimeError, match="non-finite"):
        exact.run(1)


def test_configuration():
    for config in (STUDENT, TEACHER, PAPER):
        assert BevConfig.from_dict(config.to_dict()) == config
    assert (PAPER.grid.cell_x, PAPER.grid.height) == pytest.approx((0.6, 180))
    assert PAPER.learning_rate(1000) == pytest.approx(2e-4)
    assert PAPER.learning_rate(round(PAPER.steps * 0.6)) == pytest.approx(2e-5)
    assert check_pair(STUDENT, TEACHER) is None
    assert path_of("camera", "fusion") == "camera_from_fusion" and path_of("lidar", "lidar") == "same_modality"
    for wrong, message in (
        ({"modality": "radar"}, "expected modality in .*, got 'radar'"),
        ({"adapter": "5x5"}, "expected adapter in .*, got '5x5'"),
        ({"steps": 0}, "expected steps >= 1, got 0"),
        ({"reach": 0.0}, "expected reach > 0, got 0.0"),
        ({"clip": -1.0}, "expected clip >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TINY, **wrong)


def test_training_learns(data, fabric):
    """A few samples, seen often, are learnt."""
    config = replace(TINY, modality="lidar", steps=40, batch=4, lr=5e-3, log_every=5, augment=False)
    rows = run(config, data, fabric).history
    assert rows[-1]["heatmap"] < 0.7 * rows[0]["heatmap"] and rows[-1]["box"] < 0.7 * rows[0]["box"]
