import numpy as np
import pytest
import torch

from pydistill import checking
from pydistill.ops import BEVGrid, box_keypoints, keypoint_feature_loss
from pydistill.ops.keypoint_feature_loss import keypoint_feature_loss_reference
from tests.conformance import Case, Conformance, each_device, relative_error
from tests.golden import golden
from tests.ops.bev import GOLDEN, INPUTS, LAST, RECT, SMALL, array, by, golden_boxes, maps, wrong
from tests.ops.cases import CASES

Z = golden("unidistill_feature")


class TestKeypointFeatureLoss(Conformance):
    fn, reference = by(keypoint_feature_loss), by(keypoint_feature_loss_reference)
    cases = {
        "nine": Case(maps(2, 5, 6)),
        "swapped": Case(maps(2, 5, 6), dict(swap_xy=True)),
        "squares": Case(maps(2, 19, 3), dict(norm=2)),
        "channels-last": Case(maps(2, 70, 6, last=True)),
        "many-points": Case(maps(1, 9, 7, layout=(16, 16)), dict(norm=2)),
        "many-points-last": Case(maps(2, 33, 5, layout=(16, 16), last=True)),
        "normalised": Case(maps(2, 5, 6, normalizer=2.5), dict(eps=0.5)),
        "no-boxes": Case(maps(2, 5, 0)),
        "no-channels": Case(maps(2, 0, 3)),
        "no-cells": Case(maps(2, 5, 3, size=(0, 0))),
        "one-cell": Case(maps(2, 3, 4, BEVGrid(-1, -1, 2, 2, 1, 1))),
    }
    gradients = (0,)
    empty = Case(maps(0, 5, 6))
    wrong = wrong(keypoint_feature_loss)


@pytest.mark.parametrize("fn", [keypoint_feature_loss, keypoint_feature_loss_reference])
@pytest.mark.parametrize("name", [*GOLDEN, *(f"{case}_noswap" for case in GOLDEN), "rect"])
def test_golden(name, fn):
    case, swap = name.removesuffix("_noswap"), not name.endswith("_noswap")
    kind, grid = ("rect_low", RECT) if case == "rect" else ("low", SMALL)
    boxes, valid = golden_boxes(case)
    student = array(INPUTS[f"{kind}_s"], torch.float64).requires_grad_()
    teacher = array(INPUTS[f"{kind}_t"], torch.float64)
    loss = fn(student, teacher, box_keypoints(boxes, grid), valid, swap_xy=swap)
    assert abs(loss.item() - Z[f"{name}_loss_f64"]) <= 2e-6 * abs(Z[f"{name}_loss_f64"])  # its points are float32
    (grad,) = torch.autograd.grad(loss, student)
    if f"{name}_grad_s" in Z:
        assert relative_error(grad, torch.tensor(Z[f"{name}_grad_s"])) < 1e-4


def statement(s, t, points, valid, swap, norm, by, eps):
    """Loss and gradient, a point and a corner at a time, in float64 NumPy."""
    b, c, h, w = s.shape
    gradient, total, count = np.zeros_like(s), 0.0, 0
    for image, box in np.argwhere(valid):
        count += 1
        for u, v in points[image, box]:
            col, row = (v * w / h, u * h / w) if swap else (u, v)
            col, row = col - 0.5, row - 0.5
            x, y = int(np.floor(col)), int(np.floor(row))
            corners = [
                (yy, xx, (1 - abs(col - xx)) * (1 - abs(row - yy)))
                for yy in (y, y + 1) for xx in (x, x + 1) if 0 <= yy < h and 0 <= xx < w
            ]  # fmt: skip
            d = sum((k * (s - t)[image, :, yy, xx] for yy, xx, k in corners), np.zeros(c))
            total += (np.abs(d) ** norm).sum()
            for yy, xx, k in corners:
                gradient[image, :, yy, xx] += k * (2 * d if norm == 2 else np.sign(d))
    factor = 1 / (points.shape[2] * c * ((count if by is None else by) + eps))
    return total * factor, gradient * factor


def test_a_thousand_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        b, c, h, w, m, k = rng.integers(1, (4, 12, 14, 14, 9, 12))
        s, t = rng.standard_normal((2, b, c, h, w))
        points = rng.uniform(-2, 2 + max(h, w), (b, m, k, 2))
        points = np.where(
            rng.random(points.shape) < 0.3, np.round(2 * points) / 2, points
        )  # centres and edges of cells
        valid, swap, norm = rng.random((b, m)) < 0.8, bool(rng.integers(2)), int(rng.integers(1, 3))
        by = None if rng.integers(2) else float(rng.uniform(1, 9))
        student = torch.tensor(s).requires_grad_()
        if rng.integers(2):
            student = student.contiguous(memory_format=LAST)
        got = keypoint_feature_loss(
            student, torch.tensor(t), torch.tensor(points), torch.tensor(valid), swap_xy=swap, norm=norm, normalizer=by
        )
        want, gradient = statement(s, t, points, valid, swap, norm, by, 1e-4)
        assert abs(got.item() - want) <= 1e-11 * max(abs(want), 1e-3)
        assert relative_error(torch.autograd.grad(got, student)[0], torch.tensor(gradient)) < 1e-10


@each_device
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "last"])
def test_cells_that_no_point_reads_are_not_used(device, last):
    s, t, points, valid = Case(maps(2, 8, 4, last=last)).inputs(device, torch.float32)
    points[0, 0, :, :] = torch.tensor([2.5, 3.5], device=device)  # a centre: its neighbours have weight 0
    points[1, 1, 3] = torch.nan  # this box does not count
    valid[0, 1:], valid[1, 2:] = False, False
    s.requires_grad_()
    loss = keypoint_feature_loss(s, t, points, valid)
    (grad,) = torch.autograd.grad(loss, s)
    bad = t.masked_fill((grad == 0).all(1, keepdim=True), torch.nan)
    assert bad.isnan().any()
    assert torch.equal(keypoint_feature_loss(s, bad, points, valid), loss)
    d = (s - t)[0, :, 3, 2].abs().mean() + keypoint_feature_loss(s[1:], t[1:], points[1:, :1], valid[1:, :1]) * 1.0001
    assert relative_error(loss, d / 2.0001) < 1e-6


@each_device
def test_a_nan_stays_at_its_point(device):
    s, t, points, valid = Case(maps(1, 3, 2)).inputs(device, torch.float32, grad=(0,))
    points[:] = torch.tensor([4.2, 5.3], device=device)
    t[0, 1, 5, 4] = torch.nan
    loss = keypoint_feature_loss(s, t, points, valid)
    bad = torch.autograd.grad(loss, s)[0].isnan()
    assert loss.isnan() and bad.sum() == 4 and bad[0, 1, 4:6, 3:5].all()


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_students_under_a_loss_scale(device, dtype):
    """Where many points read one cell their gradients are summed in float32, and scaled before they are rounded."""
    s, t, points, valid = Case(maps(2, 8, 6)).inputs(device, torch.float32)
    points[:] = 3.3 + points / 100
    s = s.to(dtype).requires_grad_()
    wide = s.detach().double().requires_grad_()
    want = keypoint_feature_loss_reference(wide, t, points, valid)
    loss = keypoint_feature_loss(s, t, points, valid)
    assert loss.dtype == torch.float32 and relative_error(loss, want) < 1e-6
    scaled = torch.autograd.grad(2.0**12 * loss, s)[0].double()
    assert relative_error(scaled, 2.0**12 * torch.autograd.grad(want, wide)[0]) < 1e-2


def test_layouts_are_kept():
    s, t, points, valid = Case(maps(2, 8, 6)).inputs("cpu", torch.float32)
    for student in (s, s.contiguous(memory_format=LAST)):
        student.requires_grad_()
        (grad,) = torch.autograd.grad(keypoint_feature_loss(student, t, points, valid), student)
        assert grad.stride() == student.stride()
    part, other = s.detach()[:, 1:4].requires_grad_(), t[:, 2:5]
    loss = keypoint_feature_loss(part, other, points, valid)
    assert torch.equal(loss, keypoint_feature_loss(part.detach().contiguous(), other.clone(), points, valid))
    assert torch.autograd.grad(loss, part)[0].is_contiguous()


def test_checking_says_where():
    s, t, points, valid = Case(maps(1, 3, 2)).inputs("cpu", torch.float32)
    points[0, 0, 4, 1] = torch.inf
    with checking(True):
        with pytest.raises(ValueError, match=r"finite keypoints, got inf at \[0, 0, 4, 1\]"):
            keypoint_feature_loss(s, t, points, valid)
        valid[0, 0] = False
        keypoint_feature_loss(s, t, points, valid)
