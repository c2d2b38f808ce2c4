"""UniDistillLoss against its restatement from torch's own operators, and the released code's sums."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from pydistill.adapters import Adapter
from pydistill.losses import BEVPrediction, UniDistillLoss
from pydistill.losses.unidistill import PATHS
from pydistill.ops import (
    box_keypoints,
    gaussian_region,
    keypoint_feature_loss,
    keypoint_relation_loss,
    response_loss,
)
from tests.conformance import NoCopies, relative_error
from tests.golden import golden
from tests.losses import bev_scene
from tests.losses.bev_scene import GRID, scene
from tests.ops.bev import GOLDEN, INPUTS, SMALL, array, golden_boxes

ROOT = Path(__file__).parents[2]


def restated(student, teacher, boxes, valid, weights, clamp):
    """The paper's terms, in plain PyTorch and loops over boxes."""
    terms = {"feature": 0.0, "relation": 0.0, "classes": 0.0, "numbers": 0.0}
    region = torch.zeros(len(boxes), GRID.height, GRID.width, dtype=torch.float64)
    count = int(valid.sum())
    for b, m in valid.nonzero().tolist():
        x, y, _, length, width, _, yaw = boxes[b, m, :7].tolist()
        turn = torch.tensor(yaw, dtype=torch.float64)
        c, s = turn.cos(), turn.sin()
        points = []
        for p, q in ((-1, -1), (-1, 1), (1, 1), (1, -1), (0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)):
            along, across = p * length / 2, q * width / 2
            points.append(((x + along * c - across * s - GRID.x_min) / GRID.cell_x * 2 / GRID.width - 1,
                           (y + along * s + across * c - GRID.y_min) / GRID.cell_y * 2 / GRID.height - 1))  # fmt: skip
        at = torch.tensor(points, dtype=torch.float64)[None, None]
        s_low, t_low, s_high, t_high = (
            F.grid_sample(f[b : b + 1], at, align_corners=False)[0, :, 0].T
            for f in (student.low, teacher.low, student.high, teacher.high)
        )
        terms["feature"] += weights.feature * (s_low - t_low).abs().mean() / (count + 1e-4)
        gram = [n @ n.T for n in (p / (p.norm(dim=1, keepdim=True) + 1e-4) for p in (s_high, t_high))]
        terms["relation"] += weights.relation * (gram[0] - gram[1]).abs().mean() / (count + 1e-4)
        cells = length / GRID.cell_x, width / GRID.cell_y
        area, total = cells[0] * cells[1], sum(cells)
        radius = int((-1.4 * total + (1.96 * total**2 + 3.36 * area) ** 0.5) / 2)
        cx, cy = int((x - GRID.x_min) / GRID.cell_x), int((y - GRID.y_min) / GRID.cell_y)
        for row in range(max(0, cy - radius), min(GRID.height, cy + radius + 1)):
            for col in range(max(0, cx - radius), min(GRID.width, cx + radius + 1)):
                sigma = (2 * radius + 1) / 6
                bell = torch.tensor(-((row - cy) ** 2 + (col - cx) ** 2) / (2 * sigma**2), dtype=torch.float64).exp()
                region[b, row, col] = torch.maximum(region[b, row, col], bell)
    s, t = (torch.cat(list(p.heatmaps), 1) for p in (student, teacher))
    best = s.sigmoid().clamp(1e-4, 1 - 1e-4).amax(1) - (t / 2).sigmoid().clamp(clamp, 1 - clamp).amax(1)
    numbers = (torch.cat(list(student.regressions), 1) - torch.cat(list(teacher.regressions), 1)).abs().mean(1)
    terms["classes"] = weights.response * (region * best.abs()).sum() / (region.sum() + 1e-4)
    terms["numbers"] = weights.response * (region * numbers).sum() / (region.sum() + 1e-4)
    return terms


def leaves(prediction):
    return [prediction.low, prediction.high, *prediction.heatmaps, *prediction.regressions]


@pytest.mark.parametrize(
    ("path", "weights", "clamp"),
    [
        ("camera_from_lidar", (100, 40, 10), 1e-4),
        ("camera_from_fusion", (10, 5, 10), 1e-3),
        ("lidar_from_camera", (10, 5, 1), 1e-4),
        ("lidar_from_fusion", (10, 1, 10), 1e-4),
    ],
)
def test_published_weights(path, weights, clamp):
    loss = UniDistillLoss(GRID, path=path, reference="released")
    assert tuple(loss.weights.values()) == weights and loss.teacher_clamp == clamp


@pytest.mark.parametrize("path", PATHS)
def test_terms_and_gradients(path):
    student, teacher, boxes, valid = scene(0)
    got = UniDistillLoss(GRID, path=path)(student, teacher, boxes, valid)
    want = restated(student, teacher, boxes, valid, PATHS[path], 1e-4)
    assert list(got) == list(want)
    for name, value in want.items():
        assert relative_error(got[name], value) < 1e-10, name
        one, other = (
            torch.autograd.grad(x, leaves(student), allow_unused=True, retain_graph=True) for x in (got[name], value)
        )
        for a, b in zip(one, other):
            # response_loss writes zeros where the restatement has no gradient
            assert (a is None or (a == 0).all()) if b is None else relative_error(a, b) < 1e-9, name


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        (dict(swap_xy=True), {"feature", "relation"}),
        (dict(teacher_clamp=0.45), {"classes"}),
        (dict(formula="corrected"), {"classes", "numbers"}),
        (dict(swap_xy=False, teacher_clamp=1e-4, formula="released"), set()),
    ],
)
def test_an_option_changes_its_own_part_alone(option, changed):
    made = scene(0)
    want, got = (UniDistillLoss(GRID, **x)(*made) for x in ({}, option))
    assert {name for name in want if not torch.equal(got[name], want[name])} == changed


@pytest.mark.parametrize("reference", ["paper", "released"])
@pytest.mark.parametrize("swap_xy", [False, True])
@pytest.mark.parametrize("formula", ["released", "corrected"])
def test_options_are_those_of_the_operators(reference, swap_xy, formula):
    """On a batch without padding or empty samples, where nothing else of ``reference`` is seen."""
    student, teacher, boxes, _ = scene(0)
    boxes, valid = boxes[:, :4], torch.ones(3, 4, dtype=torch.bool)
    loss = UniDistillLoss(
        GRID, path="camera_from_fusion", reference=reference, swap_xy=swap_xy, teacher_clamp=0.02, formula=formula
    )
    got = loss(student, teacher, boxes, valid)
    points = box_keypoints(boxes, GRID)
    answers = response_loss(
        student.heatmaps, teacher.heatmaps, student.regressions, teacher.regressions,
        gaussian_region(boxes, valid, GRID, formula=formula), teacher_clamp=0.02,
    )  # fmt: skip
    want = {
        "feature": 10 * keypoint_feature_loss(student.low, teacher.low, points, valid, swap_xy=swap_xy),
        "relation": 5 * keypoint_relation_loss(student.high, teacher.high, points, valid, swap_xy=swap_xy),
        "classes": 10 * answers.classes,
        "numbers": 10 * answers.numbers,
    }
    assert all(relative_error(got[name], want[name]) < 1e-12 for name in want)


@pytest.mark.parametrize("case", [*GOLDEN, "n5_5_clamp1e-3"])
def test_released_is_the_released_code(case):
    """All three golden losses at once, with weights of 1: swapped axes, painted origins, samples without boxes."""
    data = case.split("_clamp")[0]
    maps = {
        name: array(INPUTS[name], torch.float64) for name in INPUTS if not name.startswith(("boxes", "labels", "rect"))
    }
    student, teacher = (
        BEVPrediction(maps[f"low_{x}"], maps[f"high_{x}"], [maps[f"hm_logit_{x}"]], [maps[f"reg_{x}"]]) for x in "st"
    )
    boxes, _ = golden_boxes(data)
    real = boxes.abs().sum(-1) > 0
    path = "camera_from_fusion" if data != case else "camera_from_lidar"
    loss = UniDistillLoss(SMALL, path=path, reference="released", feature=1, relation=0, response=1)
    terms = loss(student, teacher, boxes, real)
    suffix = "" if data != case else "_f64"
    feature, response = golden("unidistill_feature"), golden("unidistill_response")
    for got, want in (
        (terms["feature"], feature[f"{data}_loss_f64"]),
        (terms["classes"], response[f"{case}_loss_cls{suffix}"]),
        (terms["numbers"], response[f"{case}_loss_reg{suffix}"]),
    ):
        assert abs(got.item() - want) <= 3e-6 * abs(want)


def test_two_processes_equal_one_with_the_joint_batch(tmp_path):
    """One process has two samples with boxes, the other one without."""
    result = tmp_path / "gradients.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += ["-m", "tests.losses.bev_scene", str(result)]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    want = bev_scene.gradients(range(3))
    for got, one in zip(torch.load(result), want, strict=True):
        assert relative_error(got, one) < 1e-4  # eps is added to the mean over processes, not to the sum


@pytest.mark.parametrize("kind", ["1x1", "3x3"])
def test_adapters_bring_the_student_to_the_teacher(kind):
    student, teacher, boxes, valid = scene(0, channels=6)
    loss = UniDistillLoss(GRID, low_adapter=Adapter(kind, 6, 4), high_adapter=Adapter(kind, 6, 5), response=0).double()
    terms = loss(student, teacher, boxes, valid)
    sum(terms.values()).backward()
    assert list(terms) == ["feature", "relation"] and all(p.grad.abs().sum() > 0 for p in loss.parameters())
    plain = UniDistillLoss(GRID, response=0)
    adapted = BEVPrediction(loss.adapters[0](student.low), loss.adapters[1](student.high))
    for name, value in plain(adapted, teacher, boxes, valid).items():
        assert relative_error(terms[name], value) < 1e-12


def test_features_of_another_size_span_the_same_ground():
    student, teacher, boxes, valid = scene(0)
    fine = BEVPrediction(*(x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (student.low, student.high)))
    other = BEVPrediction(*(x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (teacher.low, teacher.high)))
    loss = UniDistillLoss(GRID, response=0, relation=0)
    x, y = GRID.x_min + 2.5 * GRID.cell_x, GRID.y_min + 3.5 * GRID.cell_y
    centre = torch.tensor([[[x, y, 0, 0, 0, 0, 0]]], dtype=torch.float64)
    args = centre.expand(3, 1, 7), torch.ones(3, 1, dtype=torch.bool)
    assert relative_error(loss(fine, other, *args)["feature"], loss(student, teacher, *args)["feature"]) < 1e-12


def test_inverted_boxes_do_not_count():
    student, teacher, boxes, valid = scene(0)
    want = UniDistillLoss(GRID)(student, teacher, boxes, valid)
    inverted = boxes[:, :1] * torch.tensor([1, 1, 1, -1, 1, 1, 1])
    boxes, valid = torch.cat([boxes, inverted], 1), torch.cat([valid, valid.new_ones(len(valid), 1)], 1)
    for name, value in UniDistillLoss(GRID)(student, teacher, boxes, valid).items():
        assert relative_error(value, want[name]) < 1e-12


def test_no_samples():
    student, teacher, boxes, valid = scene(0)
    few = [
        BEVPrediction(p.low[:0], p.high[:0], [x[:0] for x in p.heatmaps], [x[:0] for x in p.regressions])
        for p in (student, teacher)
    ]
    terms = UniDistillLoss(GRID)(*few, boxes[:0], valid[:0])
    assert list(terms) == ["feature", "relation", "classes", "numbers"] and not any(terms.values())


def test_terms_of_weight_0_need_nothing():
    student, teacher, boxes, valid = scene(0)
    only = BEVPrediction(heatmaps=student.heatmaps, regressions=student.regressions)
    terms = UniDistillLoss(GRID, feature=0, relation=0)(only, teacher, boxes, valid)
    assert list(terms) == ["classes", "numbers"]
    with pytest.raises(ValueError, match="expected low features of the student, got none"):
        UniDistillLoss(GRID)(only, teacher, boxes, valid)


def padded(boxes, valid, rows):
    """With so many more rows, of numbers that must not be read."""
    more = boxes.new_full((len(boxes), rows, boxes.shape[2]), 3.0)
    return torch.cat([boxes, more], 1), torch.cat([valid, valid.new_zeros(len(valid), rows)], 1)


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("reference", ["paper", "released"])
def test_no_boxes(reference, rows):
    student, teacher, boxes, valid = scene(0)
    none = padded(boxes[:, :0], valid[:, :0], rows)
    terms = UniDistillLoss(GRID, reference=reference)(student, teacher, *none)
    grads = torch.autograd.grad(sum(terms.values()), leaves(student))
    assert len(terms) == 4 and all(x == 0 for x in [*terms.values(), *(g.abs().max() for g in grads)])


@pytest.mark.parametrize("reference", ["paper", "released"])
def test_padding_makes_no_difference(reference):
    """A batch whose last sample is empty: as released that one counts as a box, however many rows there are."""
    student, teacher, boxes, valid = scene(0)
    want = UniDistillLoss(GRID, reference=reference)(student, teacher, boxes[:, :4], valid[:, :4])
    got = UniDistillLoss(GRID, reference=reference)(student, teacher, *padded(boxes, valid, 3))
    assert all(relative_error(got[name], want[name]) < 1e-12 for name in want)


def on_cuda(p):
    return BEVPrediction(fake(p.low), fake(p.high), [fake(x) for x in p.heatmaps], [fake(x) for x in p.regressions])


def fake(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")


@pytest.mark.parametrize("reference", ["paper", "released"])
def test_nothing_is_copied_or_read_by_the_host(reference):
    student, teacher, boxes, valid = scene(0)
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        terms = UniDistillLoss(GRID, reference=reference)(on_cuda(student), on_cuda(teacher), fake(boxes), fake(valid))
    assert {(x.device.type, x.ndim) for x in terms.values()} == {("cuda", 0)}


def test_half_students_keep_a_loss_scale():
    """Nine points that read one cell: torch's sampling in half precision overflows, sums in float32 do not."""
    student, teacher, boxes, valid = scene(0)
    boxes[..., 3:6] = 1e-3
    half = BEVPrediction(*(x.detach().half().requires_grad_() for x in (student.low, student.high)))
    loss = UniDistillLoss(GRID, response=0)
    wide = BEVPrediction(*(x.detach().double().requires_grad_() for x in (half.low, half.high)))
    other = BEVPrediction(teacher.low.half(), teacher.high.half())
    got = torch.autograd.grad(2.0**10 * sum(loss(half, other, boxes, valid).values()), [half.low, half.high])
    exact = BEVPrediction(other.low.double(), other.high.double())
    want = torch.autograd.grad(2.0**10 * sum(loss(wide, exact, boxes, valid).values()), [wide.low, wide.high])
    for a, b in zip(got, want):
        assert a.isfinite().all() and relative_error(a.double(), b) < 2e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UniDistillLoss(GRID, path="x"), "path in .*, got 'x'"),
        (lambda: UniDistillLoss(GRID, reference="x"), "reference in .*, got 'x'"),
        (lambda: UniDistillLoss(GRID, swap_xy="x"), r"swap_xy in \(None, False, True\), got 'x'"),
        (lambda: UniDistillLoss(GRID, formula="x"), "formula in .*'released', 'corrected'.*, got 'x'"),
        (lambda: UniDistillLoss(GRID, teacher_clamp=0.5), r"teacher_clamp in \[0, 1/2\), got 0.5"),
        (lambda: UniDistillLoss(GRID, feature=-1), "finite feature >= 0, got -1.0"),
        (
            lambda: UniDistillLoss(GRID)(scene(0, channels=6)[0], *scene(0)[1:]),
            r"low features .* of one shape, got \[3, 6.* of the student and \[3, 4.* of the teacher; give low_adapter",
        ),
        (lambda: UniDistillLoss(GRID)(*scene(0)[:3], torch.ones(3, 1) > 0), r"valid of shape \[3, 5\], got \[3, 1\]"),
        (
            lambda: UniDistillLoss(GRID, reference="released")(*scene(0)[:3], torch.ones(3, 4) > 0),
            r"valid of shape \[3, 5\], got \[3, 4\]",
        ),
    ],
)
def test_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
