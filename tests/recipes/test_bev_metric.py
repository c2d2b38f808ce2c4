import numpy as np
import pytest

from pydistill.recipes.bev.classes import CLASSES
from pydistill.recipes.bev.metric import Objects, score

CAR, CONE, BARRIER = (CLASSES.index(name) for name in ("car", "traffic_cone", "barrier"))


def at(x, y=0.0, *, length=4.0, yaw=0.0, vx=0.0):
    return [x, y, 0.0, length, 2.0, 1.5, yaw, vx, 0.0]


def objects(*boxes, label=CAR, scores=None, attributes=None):
    return Objects(
        np.array(boxes, float).reshape(-1, 9),
        np.full(len(boxes), label),
        None if scores is None else np.array(scores, float),
        attributes,
    )


def test_a_perfect_detector_of_cars():
    truth = [objects(at(10), at(20, 3, yaw=1.0, vx=5.0)), objects(at(-5))]
    found = [objects(*x.boxes, scores=[0.9, 0.5][: len(x.boxes)]) for x in truth]
    got = score(truth, found)
    assert got.ap[CAR] == pytest.approx(1) and got.mean_ap == pytest.approx(0.1)
    np.testing.assert_allclose(got.class_errors[CAR], [0, 0, 0, 0, 1], atol=1e-12)
    # the other classes have errors of 1: nine of them, less those without a definition
    want = {"translation": 9 / 10, "scale": 9 / 10, "orientation": 8 / 9, "velocity": 7 / 8, "attribute": 1.0}
    assert got.errors == pytest.approx(want)
    assert got.nds == pytest.approx((5 * 0.1 + 0.1 + 0.1 + 1 / 9 + 1 / 8) / 10)


def test_one_of_two_found_by_hand():
    """Precision is 1 up to recall 1/2; a false one behind it leaves 1/2 there. At 0.5 m the centres are too far
    apart."""
    got = score([objects(at(10), at(20))], [objects(at(10.7), at(40), scores=[0.9, 0.8])])
    curve = np.interp(np.linspace(0, 1, 101), [0.5, 0.5], [1.0, 0.5], right=0)[11:]
    assert got.ap[CAR] == pytest.approx(3 / 4 * np.clip(curve - 0.1, 0, None).mean() / 0.9)
    assert got.class_errors[CAR, 0] == pytest.approx(0.7) and got.class_errors[CAR, 1] == pytest.approx(0)


def test_errors_of_one_pair():
    truth = [objects(at(10, yaw=0.1, vx=3.0), attributes=["vehicle.moving"])]
    found = [objects(at(10.3, 0.4, length=5.0, yaw=-3.1, vx=-1.0), scores=[0.5], attributes=["vehicle.moving"])]
    errors = score(truth, found).class_errors[CAR]
    np.testing.assert_allclose(errors, [0.5, 1 - 4 / 5, 2 * np.pi - 3.2, 4.0, 0.0], atol=1e-12)
    wrong = [objects(*found[0].boxes, scores=[0.5], attributes=["vehicle.parked"])]
    assert score(truth, wrong).class_errors[CAR, 4] == 1


def test_a_barrier_has_no_front():
    got = score([objects(at(10, yaw=0.0), label=BARRIER)], [objects(at(10, yaw=3.0), label=BARRIER, scores=[1.0])])
    assert got.class_errors[BARRIER, 2] == pytest.approx(np.pi - 3.0)
    assert np.isnan(got.class_errors[BARRIER, 3:]).all() and np.isnan(got.class_errors[CONE, 2:]).all()


def test_ranges_and_taken_objects():
    """A cone at 35 m does not count; of two detections at one object the second is false, the higher score first."""
    far = [objects(at(35), at(10), label=CONE)]
    assert score(far, [objects(at(10), label=CONE, scores=[0.5])]).ap[CONE] == pytest.approx(1)
    twice = score([objects(at(10))], [objects(at(10.1), at(10), scores=[0.6, 0.5])])
    assert twice.class_errors[CAR, 0] == pytest.approx(0.1)
    curve = np.interp(np.linspace(0, 1, 101), [1, 1], [1, 0.5])[11:]
    assert twice.ap[CAR] == pytest.approx(np.clip(curve - 0.1, 0, 1).mean() / 0.9)


def test_nothing_found_and_nothing_there():
    empty = objects(scores=[])
    got = score([objects(at(10))], [empty])
    assert got.mean_ap == 0 and got.nds == 0 and set(got.errors.values()) == {1.0}
    assert score([objects()], [objects(at(10), scores=[0.5])]).nds == 0


def test_unknown_velocities_do_not_count():
    truth = [objects(at(10), at(20, vx=np.nan)), objects(at(5, vx=2.0))]
    found = [objects(at(10, vx=1.0), at(20), scores=[0.9, 0.8]), objects(at(5), scores=[0.7])]
    velocity = score(truth, found).class_errors[CAR, 3]
    means = np.interp(
        np.interp(np.linspace(0, 1, 101), [1 / 3, 2 / 3, 1], [0.9, 0.8, 0.7])[::-1], [0.7, 0.8, 0.9], [1.5, 1.0, 1.0]
    )[::-1]
    assert velocity == pytest.approx(means[11:].mean())


def test_wrong():
    with pytest.raises(ValueError, match="detections of 1 samples, got 0"):
        score([objects()], [])
    with pytest.raises(ValueError, match="at most 500 detections of a sample, got 501"):
        score([objects()], [objects(*[at(1)] * 501, scores=[0.5] * 501)])
    with pytest.raises(ValueError, match="expected scores of the detections"):
        score([objects(at(1))], [objects(at(1))])
