import numpy as np
import pytest
import torch

from pydistill.ops import box_keypoints, keypoint_relation_loss
from pydistill.ops.keypoint_relation_loss import keypoint_relation_loss_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.ops.bev import INPUTS, LAST, SMALL, array, by, golden_boxes, maps, wrong
from tests.ops.cases import CASES


class TestKeypointRelationLoss(Conformance):
    fn, reference = by(keypoint_relation_loss), by(keypoint_relation_loss_reference)
    cases = {
        "nine": Case(maps(2, 5, 6)),
        "swapped": Case(maps(2, 5, 6), dict(swap_xy=True)),
        "squares": Case(maps(2, 19, 3), dict(norm=2)),
        "rows": Case(maps(2, 6, 5), dict(norm=2, gram="rows")),
        "rows-last": Case(maps(1, 40, 5, layout=(4, 4), last=True), dict(norm=2, gram="rows")),
        "channels-last": Case(maps(2, 70, 6, last=True)),
        "many-points": Case(maps(1, 90, 3, layout=(16, 16)), dict(norm=2)),
        "normalised": Case(maps(2, 5, 6, normalizer=2.5), dict(eps=0.5)),
        "most-points": Case(maps(1, 9, 1, layout=(32, 32)), dict(norm=2)),
        "no-boxes": Case(maps(2, 5, 0)),
        "no-channels": Case(maps(2, 0, 3)),
        "no-channels-by-channels": Case(maps(2, 0, 3), dict(norm=2, gram="channels")),
        "no-eps": Case(maps(2, 5, 6), dict(eps=0.0)),
        "among-channels": Case(maps(2, 6, 5), dict(norm=2, gram="channels")),
        "among-channels-last": Case(maps(2, 70, 3, last=True), dict(norm=2, gram="channels", swap_xy=True)),
        "among-channels-many-points": Case(
            maps(1, 23, 2, layout=(16, 16), normalizer=2.5), dict(norm=2, gram="channels")
        ),
        "among-channels-one-point": Case(maps(2, 5, 3, layout=(1, 1)), dict(norm=2, gram="channels")),
        "among-channels-no-boxes": Case(maps(2, 5, 0), dict(norm=2, gram="channels")),
        "one-point": Case(maps(2, 5, 3, layout=(1, 1)), dict(eps=0.25)),
    }
    gradients = (0,)
    empty = Case(maps(0, 5, 6))
    wrong = {
        **wrong(keypoint_relation_loss),
        "gram": (
            lambda: keypoint_relation_loss(*Case(maps(1, 2, 1)).inputs("cpu", torch.float32), gram="x"),
            ValueError,
            "gram in .*, got 'x'",
        ),
        "channels-norm": (
            lambda: keypoint_relation_loss(*Case(maps(1, 2, 1)).inputs("cpu", torch.float32), gram="channels"),
            ValueError,
            'keypoint_relation_loss: expected norm=2 with gram="channels", got 1',
        ),
    }


def statement(s, t, points, valid, norm, gram):
    """The loss, a pair of points at a time, and its gradient by differences of the float64 loss."""

    def at(x, u, v):
        col, row, total = u - 0.5, v - 0.5, np.zeros(x.shape[0])
        for yy in (int(np.floor(row)), int(np.floor(row)) + 1):
            for xx in (int(np.floor(col)), int(np.floor(col)) + 1):
                if 0 <= yy < x.shape[1] and 0 <= xx < x.shape[2]:
                    total += (1 - abs(col - xx)) * (1 - abs(row - yy)) * x[:, yy, xx]
        return total

    def relations(x, box):
        p = np.stack([at(x, u, v) for u, v in box])
        if gram == "cosine":
            p = p / (np.sqrt((p**2).sum(1, keepdims=True)) + 1e-4)
            return p @ p.T
        q = p.T @ p if gram == "channels" else p @ p.T
        length = np.sqrt((q**2).sum(1, keepdims=True))
        return np.divide(q, length, out=np.zeros_like(q), where=length > 0)

    def loss(s):
        total = 0.0
        for image, box in np.argwhere(valid):
            d = relations(s[image], points[image, box]) - relations(t[image], points[image, box])
            total += (np.abs(d) ** norm).mean()
        return total / (valid.sum() + 1e-4)

    return loss(s), loss


def test_random_cases():
    """The loss, and its derivative along a random direction."""
    rng = np.random.default_rng(0)
    for _ in range(CASES // 4):
        b, c, h, w, m, k = rng.integers(1, (3, 9, 9, 9, 5, 6))
        s, t, along = rng.standard_normal((3, b, c, h, w))
        points = rng.uniform(-1, 1 + max(h, w), (b, m, k, 2))
        valid, gram = rng.random((b, m)) < 0.8, str(rng.choice(["cosine", "rows", "channels"]))
        norm = 2 if gram == "channels" else int(rng.integers(1, 3))
        student = torch.tensor(s).requires_grad_()
        if rng.integers(2):
            student = student.contiguous(memory_format=LAST)
        got = keypoint_relation_loss(
            student, torch.tensor(t), torch.tensor(points), torch.tensor(valid), norm=norm, gram=gram
        )
        want, loss = statement(s, t, points, valid, norm, gram)
        assert abs(got.item() - want) <= 1e-11 * max(abs(want), 1e-3)
        if norm == 2 and c > 1:  # differences across a kink of |x| say nothing
            (grad,) = torch.autograd.grad(got, student)
            step = 1e-6
            slope = (loss(s + step * along) - loss(s - step * along)) / (2 * step)
            assert abs((grad.numpy() * along).sum() - slope) < 1e-5 * max(np.abs(grad.numpy()).sum(), 1e-2)


def test_released_form_on_the_golden_maps():
    """The sum over the pairs of the nine points, read at (v, u), in plain PyTorch on torch's own sampling."""
    boxes, valid = golden_boxes("n5_5")
    student, teacher = (array(INPUTS[f"high_{x}"], torch.float64) for x in "st")
    points = box_keypoints(boxes, SMALL)
    grid = (points.flip(-1) / 32 - 0.5) * 2

    def relations(x):
        p = torch.nn.functional.grid_sample(x, grid, align_corners=False).permute(0, 2, 3, 1)[valid]
        p = p / (p.norm(dim=-1, keepdim=True) + 1e-4)
        return p @ p.mT

    want = (relations(student) - relations(teacher)).abs().mean((1, 2)).sum() / (valid.double().sum() + 1e-4)
    assert relative_error(keypoint_relation_loss(student, teacher, points, valid, swap_xy=True), want) < 1e-12


@each_device
@pytest.mark.parametrize("gram", ["cosine", "rows", "channels"])
def test_points_off_the_map_are_zero(device, gram):
    s, t, points, valid = Case(maps(1, 8, 3)).inputs(device, torch.float32)
    points[0, :, 3:] = -5.0
    s.requires_grad_()
    loss = keypoint_relation_loss(s, t, points, valid, gram=gram, norm=2)
    (grad,) = torch.autograd.grad(loss, s)
    few = keypoint_relation_loss(s, t, points[:, :, :3], valid, gram=gram, norm=2)
    share = 1 if gram == "channels" else 9 / 81
    assert relative_error(loss, few * share) < 1e-5
    assert grad.isfinite().all() and relative_error(grad, torch.autograd.grad(few, s)[0] * share) < 1e-4


@each_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [4, 16, 256])
def test_maps_that_are_alike_have_no_relation_to_learn(channels, last, dtype, device):
    """A student that begins as its teacher: rounding has a sign, but no slope."""
    _, t, points, valid = Case(maps(1, channels, 4, last=last)).inputs(device, dtype)
    s = t.clone().requires_grad_()
    loss = keypoint_relation_loss(s, t, points, valid)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, s)[0].any()


@each_device
@pytest.mark.parametrize("scale", [1, 3])
def test_channels_of_maps_that_are_nearly_alike(device, scale):
    """The terms of the loss are a million times as large as their difference."""
    s, t, points, valid = Case(maps(1, 40, 4)).inputs(device, torch.float32)
    s = (scale * (t + 1e-3 * s)).requires_grad_()
    wide = s.detach().double().requires_grad_()
    options = dict(gram="channels", norm=2)
    want = keypoint_relation_loss_reference(wide, t.double(), points, valid, **options)
    loss = keypoint_relation_loss(s, t, points, valid, **options)
    assert relative_error(loss, want) < 1e-5
    got = torch.autograd.grad(loss, s)[0].double()
    assert relative_error(got, torch.autograd.grad(want, wide)[0]) < 5e-4
    alike = keypoint_relation_loss(t.clone().requires_grad_(), t, points, valid, **options)
    assert 0 <= alike.item() < 1e-12


@each_device
def test_channels_that_are_zero_have_no_gradient(device):
    s, t, points, valid = Case(maps(1, 8, 3)).inputs(device, torch.float32)
    s[:, 2] = t[:, 5] = 0
    s.requires_grad_()
    loss = keypoint_relation_loss(s, t, points, valid, gram="channels", norm=2)
    want = keypoint_relation_loss_reference(s.double(), t.double(), points, valid, gram="channels", norm=2)
    assert relative_error(loss, want) < 1e-6
    (grad,) = torch.autograd.grad(loss, s, retain_graph=True)
    assert relative_error(grad, torch.autograd.grad(want, s)[0]) < 1e-5


@each_device
@pytest.mark.parametrize("gram", ["cosine", "channels"])
def test_a_half_student_and_a_float_teacher(device, gram):
    s, t, points, valid = Case(maps(2, 8, 4)).inputs(device, torch.float32)
    s = s.half().requires_grad_()
    wide = s.detach().double().requires_grad_()
    want = keypoint_relation_loss_reference(wide, t, points, valid, norm=2, gram=gram)
    loss = keypoint_relation_loss(s, t, points, valid, norm=2, gram=gram)
    assert loss.dtype == torch.float32 and relative_error(loss, want) < 1e-5
    scaled = torch.autograd.grad(2.0**12 * loss, s)[0].double()
    assert relative_error(scaled, 2.0**12 * torch.autograd.grad(want, wide)[0]) < 1e-2
