"""Matching in one call: the golden matches, and the two ops it is made of."""

from inspect import signature

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pydistill.ops.hungarian_match import (
    MatchProblem,
    hungarian_match,
    hungarian_match_all,
    hungarian_match_reference,
)
from pydistill.ops.linear_sum_assignment import linear_sum_assignment
from pydistill.ops.match_cost import match_cost
from tests.conformance import Case, NoCopies, assert_captured, each_device
from tests.ops.test_match_cost import arrays, distillation, inputs, padded_targets


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name, preset, classes", [("detr", "detr", 21), ("ddetr", "deformable_detr", 20)])
def test_golden_matches(name, preset, classes, dtype, device):
    z, want = arrays("detr_inputs", dtype), arrays("detr_cost_fb")
    targets = padded_targets(z, "gt_labels", "gt_boxes", 3, dtype)
    tensors = [t.to(device) for t in (z["logits"][..., :classes], z["pred_boxes"], *targets)]
    match = hungarian_match(*tensors, preset=preset)
    kind = "f64" if dtype == torch.float64 else "f32"
    for b in range(3):
        queries, matched = want[f"{name}_{kind}_src_{b}"], want[f"{name}_{kind}_tgt_{b}"]
        target_of_query, query_of_target = torch.full((30,), -1), torch.full((9,), -1)
        target_of_query[queries], query_of_target[matched] = matched, queries
        assert torch.equal(match.target_of_query[b].cpu(), target_of_query)
        assert torch.equal(match.query_of_target[b, 0].cpu(), query_of_target)


@pytest.mark.parametrize("kind, dtype", [("f32", torch.float32), ("f64", torch.float64)])
@pytest.mark.parametrize("name, preset, classes", [("softmax", "mmdet_detr", 21), ("focal", "mmdet_dino", 20)])
def test_golden_mmdet_assignments(name, preset, classes, kind, dtype):
    z, want = arrays("detr_inputs", dtype), arrays("detr_cost_mmdet33")
    targets = padded_targets(z, "gt_labels", "gt_boxes", 3, dtype)
    match = hungarian_match(
        z["logits"][..., :classes], z["pred_boxes"], *targets, preset=preset, image_sizes=z["img_hw"], nonfinite="raise"
    )
    for b in range(3):
        assert torch.equal(match.target_of_query[b] + 1, want[f"mm3_{kind}_{name}_gt_inds_{b}"])
        labels = torch.where(match.target_of_query[b] < 0, -1, targets[0][b, match.target_of_query[b]])
        assert torch.equal(labels, want[f"mm3_{kind}_{name}_labels_{b}"])


def test_golden_teacher_student_matches():
    z, student, teacher_boxes, options = distillation()
    match = hungarian_match(*student, None, teacher_boxes, **options)
    for layer in range(3):
        for b in range(2):
            assert torch.equal(match.target_of_query[layer, b], z[f"dd_match_{layer}_{b}"])


@each_device
@pytest.mark.parametrize("leading", [(3,), (2, 3)])
@pytest.mark.parametrize("groups", [1, 2, 3])  # of 2, queries outnumber targets: one kernel does all
def test_groups_are_problems_of_their_own(leading, groups, device):
    logits, boxes, labels, target_boxes, counts, *_ = Case(inputs(*leading, queries=12)).inputs(device, torch.float32)
    match = hungarian_match(logits, boxes, labels, target_boxes, counts, groups=groups)
    assert match.query_of_target.shape == (*leading, groups, 5) and match.target_of_query.shape == (*leading, 12)
    size = 12 // groups
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        cost = match_cost(logits[..., part, :], boxes[..., part, :], labels, target_boxes, counts).reshape(-1, size, 5)
        alone = linear_sum_assignment(cost)
        assert torch.equal(match.target_of_query[..., part].reshape(-1, size), alone.column_of_row)
        shifted = torch.where(alone.row_of_column < 0, -1, alone.row_of_column + g * size)
        assert torch.equal(match.query_of_target[..., g, :].reshape(-1, 5), shifted)


@each_device
@pytest.mark.parametrize("groups", [1, 4])
def test_equals_the_reference(groups, device):
    xs = Case(inputs(2, 3, queries=40, targets=9)).inputs("cpu", torch.float64)[:5]
    want = hungarian_match_reference(*xs, groups=groups, preset="detr")
    got = hungarian_match(*[x.to(device) for x in xs], groups=groups, preset="detr")
    assert all(torch.equal(g.cpu(), w) for g, w in zip(got, want))


@each_device
def test_several_problems_are_matched_as_one_by_one(device):
    """Shapes, layers, dtypes, groups, presets and policies differ."""
    first = Case(inputs(2, 3, queries=12)).inputs(device, torch.float32)[:5]
    second = Case(inputs(2, queries=9, targets=11)).inputs(device, torch.float64)[:5]
    z, student, teacher_boxes, soft = distillation()
    options = [dict(groups=3), dict(preset="detr", nonfinite="clamp"), {k: _on(v, device) for k, v in soft.items()}]
    arguments = [first, second, [_on(v, device) for v in (*student, None, teacher_boxes)]]
    together = hungarian_match_all([MatchProblem(*xs, **o) for xs, o in zip(arguments, options)])
    for match, xs, o in zip(together, arguments, options, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(match, hungarian_match(*xs, **o)))
    assert hungarian_match_all([]) == []
    with pytest.raises(TypeError, match="expected a sequence of MatchProblem, got one of list"):
        hungarian_match_all([first])
    assert MatchProblem._fields == tuple(signature(hungarian_match).parameters)


def _on(value, device):
    return value.to(device) if isinstance(value, torch.Tensor) else value


@each_device
def test_what_cannot_be_matched_is_not(device):
    """An unknown label, an infinite box, an inverted prediction, a NaN logit, targets beyond the count."""
    logits, boxes, labels, target_boxes, *_ = Case(inputs(1, queries=3)).inputs(device, torch.float32)
    logits[0, 2] = float("nan")
    match = hungarian_match(logits, boxes, labels, target_boxes, torch.tensor([4], device=device))
    assert (match.target_of_query[0] >= 0).tolist() == [False, True, False]
    assert (match.query_of_target[0, 0, [1, 4]] == -1).all()
    with pytest.raises(ValueError, match="cost matrix is infeasible|invalid numeric entries"):
        hungarian_match(logits, boxes, labels, target_boxes, nonfinite="raise")


@each_device
@pytest.mark.parametrize("shape", [dict(queries=0), dict(targets=0)])
def test_empty(shape, device):
    logits, boxes, labels, target_boxes, *_ = Case(inputs(2, **shape)).inputs(device, torch.float32)
    match = hungarian_match(logits, boxes, labels, target_boxes)
    assert (match.query_of_target == -1).all() and (match.target_of_query == -1).all()


def test_on_fake_cuda_nothing_is_copied():
    made = Case(inputs(2, 3)).inputs("cpu", torch.float16)[:5]
    real = hungarian_match(*made, groups=1)
    with FakeTensorMode(), NoCopies():
        fake = hungarian_match(*[torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda") for t in made])
    assert [(f.shape, f.dtype, f.device.type) for f in fake] == [(r.shape, r.dtype, "cuda") for r in real]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("groups", [1, 2])
def test_captured_in_a_graph(groups):
    made = Case(inputs(2, 3, queries=40))
    xs, others = (made.inputs("cuda", torch.float32, seed=seed)[:5] for seed in (0, 1))
    assert_captured(lambda: hungarian_match(*xs, groups=groups), xs, others)


def test_compiles():
    made = Case(inputs(2, 3)).inputs("cpu", torch.float32)[:5]
    compiled = torch.compile(hungarian_match, fullgraph=True, backend="aot_eager")(*made)
    assert all(torch.equal(a, b) for a, b in zip(compiled, hungarian_match(*made)))


def test_has_no_gradient():
    logits, boxes, *rest = Case(inputs(2)).inputs("cpu", torch.float32, (0, 1))[:5]
    assert not any(t.requires_grad for t in hungarian_match(logits, boxes, *rest))


@pytest.mark.parametrize("groups", [0, 2])
def test_rejects_groups_that_do_not_divide(groups):
    with pytest.raises(ValueError, match=rf"expected groups that divide the queries of \[2, 7, 6\], got {groups}"):
        hungarian_match(*Case(inputs(2)).inputs("cpu", torch.float32)[:5], groups=groups)
