"""Training of detectors by queries: resuming, distillation that is off, what the loss is told, devices."""

from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric

from pydistill.losses.detr import DETRDistillLoss
from pydistill.recipes.dense.generate import write_coco
from pydistill.recipes.dense.run import open_data
from pydistill.recipes.detr.config import DISTILLED, PAPER, STUDENT, TEACHER, DetrConfig
from pydistill.recipes.detr.matches import lent_queries, query_of_target
from pydistill.recipes.detr.training import Training, check_pair, load_student, to_targets
from pydistill.recipes.training import export
from tests.recipes.detr import TINY, make_teacher
from tests.recipes.lanes import same, weights

pytestmark = pytest.mark.xdist_group("detr_training")  # one worker makes the files that they share

OFF = dict.fromkeys(DISTILLED, 0.0)
OWN = {"classification", "l1", "giou", "auxiliary_classification", "auxiliary_l1", "auxiliary_giou"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_coco(tmp_path_factory.mktemp("detr"), 0, 6, 3, classes=3)
    return open_data(TINY, root, "train", training=True), open_data(TINY, root, "val")


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def run(config, data, fabric, teacher=None, until=None):
    training = Training(config, data[0], None, fabric, teacher=teacher)
    training.run(until)
    return training


def test_resume_to_the_same_bits(data, fabric, tmp_path):
    """With the learned head of the relation, which is no part of the student."""
    config = replace(TINY, detrdistill=True, relation=0.2, backbone_lr=0.1, clip=0.5)
    whole, first, second = (Training(config, *data, fabric, teacher=make_teacher()) for _ in range(3))
    whole.run()
    first.run(2)
    first.save(tmp_path / "half.pt")
    torch.manual_seed(99)
    second.load(tmp_path / "half.pt")
    second.run()
    assert same(weights(whole), weights(second)) and whole.history == second.history
    heads = [training.distiller.loss_modules.state_dict() for training in (whole, second)]
    assert heads[0] and same(*heads)
    assert OWN | {
        "instance_class", "instance_l1", "instance_giou", "feature", "relation", "group_classification", "group_l1",
        "group_giou",
    } == set(whole.history[0]) - {"step", "learning_rate"}  # fmt: skip
    assert "ap50" in whole.history[-1]
    with pytest.raises(ValueError, match=r"got other values of \['queries'\]"):
        Training(replace(config, queries=5), data[0], fabric=fabric, teacher=make_teacher()).load(tmp_path / "half.pt")


def test_weights_of_zero_are_no_distillation(data, fabric):
    plain = run(TINY, data, fabric, until=2)
    off = run(replace(TINY, detrdistill=True, **OFF), data, fabric, make_teacher(), until=2)
    assert same(weights(plain), weights(off)) and plain.history == off.history
    assert set(plain.history[0]) - {"step", "learning_rate"} == OWN
    on = run(replace(TINY, detrdistill=True, **(OFF | {"feature": 1.0})), data, fabric, make_teacher(), until=2)
    assert not same(weights(plain), weights(on))


def test_the_loss_is_that_of_the_outputs(data, fabric):
    """By hand: teacher and student on the batch, then the objective."""
    config, teacher = replace(TINY, detrdistill=True), make_teacher()
    training = Training(config, data[0], fabric=fabric, teacher=teacher)
    batch = data[0].training_batch(0, 0, 2)
    student = training.student.train()
    state = {name: value.clone() for name, value in student.state_dict().items()}
    _, total = training.losses(batch)
    student.load_state_dict(state)
    pictures = batch.pictures.to(memory_format=torch.channels_last)
    with torch.no_grad():
        taught = teacher(pictures)
        mine = student(pictures, lent=taught.queries)
    truth = to_targets(batch)
    terms = DETRDistillLoss(detector="rt_detr")(mine.prediction, taught.prediction, truth, group=mine.group)
    own = DETRDistillLoss(detector="rt_detr", instance=0, feature=0, group=0)
    terms |= {f"encoder_{k}": v for k, v in own(mine.auxiliary[0].prediction, None, truth).items()}
    assert float(total.detach()) == pytest.approx(float(sum(terms.values())), rel=1e-5)
    x = batch.boxes[0, 0]
    expected = [(x[0] + x[2]) / 128, (x[1] + x[3]) / 128, (x[2] - x[0]) / 64, (x[3] - x[1]) / 64]
    assert truth.boxes[0, 0].tolist() == pytest.approx([float(v) for v in expected], rel=1e-5)


def test_checkpoint_holds_the_student_alone(data, fabric, tmp_path):
    teacher = make_teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    training = run(replace(TINY, detrdistill=True), data, fabric, teacher, until=1)
    training.save(tmp_path / "last.pt")
    student, config, classes = load_student(tmp_path / "last.pt")
    assert same(student.state_dict(), weights(training)) and config == training.config and classes == ("0", "1", "2")
    assert same(before, teacher.state_dict()) and not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training and not student.training
    export(training, tmp_path / "half.pt")
    half, _, _ = load_student(tmp_path / "half.pt")
    for name, value in half.state_dict().items():
        torch.testing.assert_close(value, student.state_dict()[name], rtol=1e-3, atol=1e-6)


def slow_names(student):
    """Of the backbone, and of where attention samples."""
    own = {id(p) for p in student.backbone.parameters()}
    parts = ("sampling_offsets", "reference_points")
    return {n for n, p in student.named_parameters() if id(p) in own or any(part in n for part in parts)}


@pytest.mark.parametrize(
    ("detector", "share", "sampling"), [("deformable_detr", 0.1, 10), ("detr", 0.1, 0), ("deformable_detr", 1.0, 0)]
)
def test_groups_of_parameters(data, fabric, detector, share, sampling):
    """The released plan's; with a share of 1 the groups are as without it."""
    config = replace(TINY, detector=detector, refine=PAPER.refine, layers=3, encoder_layers=1, backbone_lr=share)
    training = Training(config, data[0], fabric=fabric)
    slow, fast = ({id(p) for p in group["params"]} for group in training.optimizer.param_groups)
    backbone = {id(p) for p in training.student.backbone.parameters()}
    assert len(slow - backbone) == sampling and backbone <= slow and not slow & fast
    assert slow | fast == {id(p) for p in training.student.parameters()}
    if sampling:
        names = slow_names(training.student)
        assert slow == {id(p) for n, p in training.student.named_parameters() if n in names}
        assert any("reference_points" in n for n in names)


def test_rates_and_clipping(data, fabric):
    config = replace(TINY, optimizer="sgd", lr=1.0, warmup=1, weight_decay=0.0, backbone_lr=0.1, clip=1e-3)
    training = Training(config, data[0], fabric=fabric)
    before = weights(training)
    training.run(1)
    rates = [group["lr"] for group in training.optimizer.param_groups]
    assert rates == pytest.approx([0.1 * config.learning_rate(0), config.learning_rate(0)])
    slow = slow_names(training.student)
    moved = 0.0
    for name, value in weights(training).items():
        if value.is_floating_point() and "running" not in name:
            share = config.learning_rate(0) * (0.1 if name in slow else 1.0)
            moved += float(((value - before[name]) / share).double().square().sum())
    assert moved**0.5 == pytest.approx(1e-3, rel=0.02)  # the norm of the gradient, clipped


def test_teachers_that_do_not_fit(data, fabric):
    with pytest.raises(ValueError, match="expected a teacher for instance, feature, group, got none"):
        Training(replace(TINY, detrdistill=True), data[0], fabric=fabric)
    with pytest.raises(ValueError, match=r"channels, refine, got other \['detector', 'channels'\]"):
        check_pair(TINY, replace(TINY, detector="detr", channels=64))


@pytest.mark.parametrize("detector", ["deformable_detr", "conditional_detr", "detr", "adamixer"])
def test_the_other_detectors(data, fabric, detector):
    config = replace(TINY, detector=detector, detrdistill=True)
    training = run(config, data, fabric, make_teacher(config), until=1)
    row = training.history[0]
    assert all(row[name] > 0 for name in ("classification", "giou", "instance_class", "feature", "group_giou"))
    assert training.probe is None and training.score() is None


def test_matches_of_lent_queries(data):
    """A student equal to the teacher gives each box the teacher's query; a box has one, and no query two."""
    teacher = make_teacher()
    batch = data[1].batch(range(3))
    found = lent_queries(teacher, teacher, data[1], 3, "rt_detr")
    with torch.no_grad():
        expected = query_of_target(teacher(batch.pictures).prediction, to_targets(batch), "rt_detr")
    assert found.tolist() == expected[expected >= 0].tolist() and len(found) == int(batch.counts.sum())
    for row, count in zip(expected.tolist(), batch.counts.tolist()):
        assert len(set(row[:count])) == count and set(row[count:]) <= {-1}


def test_configuration():
    for config in (STUDENT, TEACHER, PAPER):
        assert DetrConfig.from_dict(config.to_dict()) == config
    assert PAPER.learning_rate(0) == pytest.approx(2e-4 / 50) and PAPER.learning_rate(1000) == pytest.approx(2e-4)
    assert PAPER.learning_rate(round(PAPER.steps * 0.81)) == pytest.approx(2e-5)
    assert STUDENT.needed() == [] and PAPER.needed() == ["instance", "feature", "group"]
    assert replace(PAPER, reference="released").needed() == ["instance", "feature", "relation", "group"]
    assert check_pair(STUDENT, TEACHER) is None
    for wrong, message in (
        ({"detector": "yolo"}, "expected detector in .*, got 'yolo'"),
        ({"queries": 0}, "expected queries >= 1, got 0"),
        ({"clip": -1.0}, "expected clip >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TINY, **wrong)


def test_training_learns(data, fabric):
    """A few pictures, seen often, are learnt."""
    config = replace(TINY, steps=40, batch=6, lr=5e-3, log_every=5)
    rows = run(config, data, fabric).history
    assert rows[-1]["giou"] < 0.8 * rows[0]["giou"] and rows[-1]["l1"] < 0.7 * rows[0]["l1"]
