"""`pydistill.checking`: bad data raise and say where with it, and have the one stated result without it."""

import math
import os
import re
import subprocess
import sys

import pytest
import torch
import torch.utils._pytree as pytree
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import pydistill
from pydistill.ops import (
    assign_atss,
    assign_max_iou,
    assign_points,
    attention_distillation_loss,
    attention_map,
    channel_energy,
    distribution_focal_loss,
    energy_distillation_loss,
    fine_grained_region,
    general_instance_region,
    inside_region,
    masked_feature_loss,
    pairwise_iou,
    quality_focal_loss,
    sigmoid_focal_loss,
    soft_iou_loss,
    softmax_kl,
    valuable_localization_region,
)

NAN, INF = math.nan, math.inf


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def boxes(*shape, seed=0):
    corner = 50 * torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([corner, corner + 5 + 0.5 * corner.flip(-1)], -1)


def having(x, at, value):
    """A copy of ``x`` with ``value`` at one place."""
    x = x.clone()
    x[at] = torch.as_tensor(value, dtype=x.dtype)
    return x


ANCHORS, OBJECTS, COUNTS = boxes(40), boxes(2, 3, seed=1), torch.tensor([3, 1])
POINTS = 50 * torch.rand(40, 2, generator=torch.Generator().manual_seed(2))
INVERTED, UNREAL = (30.0, 30.0, 20.0, 40.0), (NAN, 0.0, 1.0, 1.0)

# name: op, good arguments, options
OPS = {
    "softmax_kl": (softmax_kl, (normal(4, 6), normal(4, 6, seed=1)), {"temperature": 3.0}),
    "softmax_kl, heads": (
        softmax_kl,
        (normal(2, 6, 4), normal(2, 6, 4, seed=1)),
        {"dim": 1, "weight": torch.tensor([0.0, 1.0, 2.0, 1.0]), "reduction": "mean"},
    ),
    "soft_iou_loss": (
        soft_iou_loss,
        (normal(2, 3, 4, 5), torch.arange(40).reshape(2, 4, 5) % 3),
        {"ignore_index": 255},
    ),
    "masked_feature_loss": (
        masked_feature_loss,
        (normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1), having(torch.ones(2, 4, 5), (0, 1), 0.0)),
        {"normalizer": "mask"},
    ),
    "quality_focal_loss": (
        quality_focal_loss,
        (normal(4, 6), torch.tensor([-1, 0, 5, 6]), normal(4, seed=1).sigmoid()),
        {"weight": torch.tensor([1.0, 1.0, 2.0, 1.0])},
    ),
    "sigmoid_focal_loss": (sigmoid_focal_loss, (normal(4, 6), torch.tensor([-1, 0, 5, 6])), {}),
    "distribution_focal_loss": (distribution_focal_loss, (normal(4, 6), 6 * normal(4, seed=1)), {"reduction": "mean"}),
    "pairwise_iou": (pairwise_iou, (boxes(4), boxes(3, seed=1)), {"mode": "giou"}),
    "assign_atss": (
        lambda *x, **kwargs: assign_atss(x[0], [30, 10], *x[1:], **kwargs),
        (ANCHORS, OBJECTS, COUNTS),
        {"ignore_boxes": boxes(2, 2, seed=3), "ignore_counts": torch.tensor([2, 0]), "ignore_threshold": 0.5},
    ),
    "valuable_localization_region": (valuable_localization_region, (ANCHORS, OBJECTS, COUNTS, 0.5), {}),
    "assign_max_iou": (
        assign_max_iou,
        (ANCHORS, OBJECTS, COUNTS),
        {"ignore_boxes": boxes(2, 2, seed=3), "ignore_counts": torch.tensor([2, 0]), "ignore_threshold": 0.5},
    ),
    "assign_points": (
        lambda *x: assign_points(x[0], [8, 16], [30, 10], *x[1:], regress_ranges=[(-1, 30), (30, INF)]),
        (POINTS, OBJECTS, COUNTS),
        {},
    ),
    "inside_region": (inside_region, (POINTS, OBJECTS, COUNTS), {}),
    "fine_grained_region": (fine_grained_region, (ANCHORS, OBJECTS, COUNTS), {}),
    "general_instance_region": (
        lambda *x, **kwargs: general_instance_region(*x, [30, 10], **kwargs),
        (normal(2, 40, 3), normal(2, 40, 3, seed=1), boxes(2, 40), boxes(2, 40, seed=1)),
        {"valid": having(torch.ones(2, 40, dtype=torch.bool), (0, 3), False)},
    ),
    "attention_map": (attention_map, (normal(2, 3, 4, 5),), {"size": (6, 7)}),
    "channel_energy": (channel_energy, (normal(2, 3, 4, 5),), {}),
    "attention_distillation_loss": (attention_distillation_loss, (normal(2, 3, 4, 5), normal(2, 6, 2, 3)), {}),
    "energy_distillation_loss": (energy_distillation_loss, (normal(2, 4, 5).abs(), normal(2, 2, 3).abs()), {}),
}

# op, which argument, its place, the bad value, what is said
BAD = [
    ("softmax_kl", 0, (2, 5), NAN, "softmax_kl: expected finite student, got nan at [2, 5]"),
    ("softmax_kl", 1, (0, 1), INF, "softmax_kl: expected finite teacher, got inf at [0, 1]"),
    ("softmax_kl, heads", 0, (1, 4, 3), -INF, "softmax_kl: expected finite student, got -inf at [1, 4, 3]"),
    ("softmax_kl, heads", 1, (0, 2, 1), NAN, "softmax_kl: expected finite teacher, got nan at [0, 2, 1]"),
    ("soft_iou_loss", 0, (1, 2, 3, 4), NAN, "soft_iou_loss: expected finite logits, got nan at [1, 2, 3, 4]"),
    ("soft_iou_loss", 1, (1, 0, 2), 3, "soft_iou_loss: expected labels in [0, 3), got 3 at [1, 0, 2]"),
    (
        "masked_feature_loss",
        0,
        (1, 2, 3, 4),
        NAN,
        "masked_feature_loss: expected finite student, got nan at [1, 2, 3, 4]",
    ),
    (
        "masked_feature_loss",
        1,
        (0, 2, 0, 0),
        INF,
        "masked_feature_loss: expected finite teacher, got inf at [0, 2, 0, 0]",
    ),
    ("masked_feature_loss", 2, (0, 3, 1), NAN, "masked_feature_loss: expected finite mask, got nan at [0, 3, 1]"),
    ("quality_focal_loss", 0, (2, 5), INF, "quality_focal_loss: expected finite logits, got inf at [2, 5]"),
    ("quality_focal_loss", 2, 1, NAN, "quality_focal_loss: expected finite scores, got nan at [1]"),
    ("sigmoid_focal_loss", 0, (2, 5), NAN, "sigmoid_focal_loss: expected finite logits, got nan at [2, 5]"),
    ("distribution_focal_loss", 0, (2, 5), NAN, "distribution_focal_loss: expected finite logits, got nan at [2, 5]"),
    ("distribution_focal_loss", 1, 1, NAN, "distribution_focal_loss: expected finite target, got nan at [1]"),
    ("pairwise_iou", 0, 3, INVERTED, f"pairwise_iou: expected finite a, not inverted, got {[*INVERTED]} at [3]"),
    ("pairwise_iou", 1, 0, UNREAL, f"pairwise_iou: expected finite b, not inverted, got {[*UNREAL]} at [0]"),
    ("assign_atss", 0, 7, INVERTED, f"assign_atss: expected finite anchors, not inverted, got {[*INVERTED]} at [7]"),
    ("assign_atss", 1, (0, 2), UNREAL, f"assign_atss: expected finite boxes, not inverted, got {[*UNREAL]} at [0, 2]"),
    ("assign_atss", 2, 1, 4, "assign_atss: expected counts in [0, 3], got 4 at [1]"),
    ("assign_atss", 2, 0, -1, "assign_atss: expected counts in [0, 3], got -1 at [0]"),
    (
        "assign_atss",
        "ignore_boxes",
        (0, 1),
        INVERTED,
        f"assign_atss: expected finite ignore_boxes, not inverted, got {[*INVERTED]} at [0, 1]",
    ),
    ("assign_atss", "ignore_counts", 1, 3, "assign_atss: expected ignore_counts in [0, 2], got 3 at [1]"),
    (
        "valuable_localization_region",
        0,
        39,
        UNREAL,
        f"valuable_localization_region: expected finite anchors, not inverted, got {[*UNREAL]} at [39]",
    ),
    (
        "valuable_localization_region",
        1,
        (1, 0),
        INVERTED,
        f"valuable_localization_region: expected finite boxes, not inverted, got {[*INVERTED]} at [1, 0]",
    ),
    ("valuable_localization_region", 2, 0, 9, "valuable_localization_region: expected counts in [0, 3], got 9 at [0]"),
    (
        "assign_max_iou",
        "ignore_boxes",
        (0, 1),
        INVERTED,
        f"assign_max_iou: expected finite ignore_boxes, not inverted, got {[*INVERTED]} at [0, 1]",
    ),
    ("assign_max_iou", 2, 1, 4, "assign_max_iou: expected counts in [0, 3], got 4 at [1]"),
    ("assign_points", 0, (7, 1), NAN, "assign_points: expected finite points, got nan at [7, 1]"),
    ("inside_region", 0, (0, 0), INF, "inside_region: expected finite points, got inf at [0, 0]"),
    ("inside_region", 2, 0, -1, "inside_region: expected counts in [0, 3], got -1 at [0]"),
    (
        "fine_grained_region",
        0,
        39,
        UNREAL,
        f"fine_grained_region: expected finite anchors, not inverted, got {[*UNREAL]} at [39]",
    ),
    (
        "general_instance_region",
        1,
        (1, 39, 2),
        NAN,
        "general_instance_region: expected finite teacher_scores, got nan at [1, 39, 2]",
    ),
    (
        "general_instance_region",
        2,
        (0, 1),
        INVERTED,
        f"general_instance_region: expected finite student_boxes, not inverted, got {[*INVERTED]} at [0, 1]",
    ),
    ("attention_map", 0, (1, 2, 3, 4), NAN, "attention_map: expected finite features, got nan at [1, 2, 3, 4]"),
    ("channel_energy", 0, (0, 0, 0, 0), INF, "channel_energy: expected finite features, got inf at [0, 0, 0, 0]"),
    (
        "attention_distillation_loss",
        0,
        (1, 0, 2, 3),
        NAN,
        "attention_distillation_loss: expected finite features, got nan at [1, 0, 2, 3]",
    ),
    (
        "attention_distillation_loss",
        1,
        (0, 5, 1, 2),
        INF,
        "attention_distillation_loss: expected finite deep, got inf at [0, 5, 1, 2]",
    ),
    (
        "energy_distillation_loss",
        1,
        (1, 1, 2),
        NAN,
        "energy_distillation_loss: expected finite deep energy, got nan at [1, 1, 2]",
    ),
]


def outputs(result):
    return list(result) if isinstance(result, (tuple, list)) else [result]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(outputs(a), outputs(b), strict=True))


@pytest.fixture
def checked():
    with pydistill.checking(True):
        yield


@pytest.mark.parametrize(("name", "which", "at", "value", "said"), BAD, ids=[f"{b[0]}-{b[1]}-{b[3]}" for b in BAD])
def test_bad_data_raise_and_say_where(name, which, at, value, said):
    op, inputs, options = OPS[name]
    if isinstance(which, str):
        options = {**options, which: having(options[which], at, value)}
    else:
        inputs = [having(x, at, value) if i == which else x for i, x in enumerate(inputs)]
    op(*inputs, **options)
    with pydistill.checking(True), pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        op(*inputs, **options)


@pytest.mark.parametrize("name", OPS)
def test_good_data_give_the_same_bits(name):
    op, inputs, options = OPS[name]

    def run():
        xs = [x.clone().requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs]
        out = outputs(op(*xs, **options))
        if out[0].requires_grad:
            out[0].sum().backward()
        return [*out, *[x.grad for x in xs if torch.is_tensor(x) and x.grad is not None]]

    unchecked = run()
    with pydistill.checking(True):
        assert same(unchecked, run())


def test_what_is_not_read_is_not_checked(checked):
    """Padding behind the counts, rows of weight 0, and bins that the teacher rules out."""
    padded = having(OBJECTS, (1, 2), INVERTED)
    assert same(assign_atss(ANCHORS, [30, 10], padded, COUNTS), assign_atss(ANCHORS, [30, 10], OBJECTS, COUNTS))
    regions = (valuable_localization_region(ANCHORS, x, COUNTS, 0.5) for x in (padded, OBJECTS))
    assert torch.equal(*regions)
    op, (student, teacher), options = OPS["softmax_kl, heads"]
    unread = having(student, (1, 3, 0), NAN)
    assert torch.equal(op(unread, teacher, **options), op(student, teacher, **options))
    impossible = having(teacher, (0, 2, 1), -INF)
    assert op(student, impossible, **options).isfinite()
    assert op(having(student, (0, 2, 1), -INF), impossible, **options).isfinite()
    op, (student, teacher, mask), options = OPS["masked_feature_loss"]
    assert torch.equal(
        op(having(student, (0, 2, 1, 3), NAN), teacher, mask, **options), op(student, teacher, mask, **options)
    )


def test_what_the_host_knows_is_said_first(checked):
    with pytest.raises(ValueError, match=r"\(B, G, 4\)|shape"):
        assign_atss(ANCHORS, [30, 10], having(OBJECTS, (0, 0), UNREAL)[..., :3], COUNTS)
    with pytest.raises(ValueError, match="shape"):
        valuable_localization_region(ANCHORS, OBJECTS, torch.tensor([9, 9, 9]), 0.5)
    with pytest.raises(ValueError, match="shape"):
        pairwise_iou(boxes(2), boxes(3)[:, :3])
    with pytest.raises(ValueError, match="shape"):
        softmax_kl(having(normal(4, 6), (0, 0), NAN), normal(4, 5))


def test_stated_results_without_checking():
    """Each docstring's one sentence on what bad data give."""
    logits, other = normal(4, 6), normal(4, 6, seed=1)
    rows = softmax_kl(having(logits, (2, 5), NAN), other)
    assert rows.isnan().tolist() == [False, False, True, False]
    assert torch.equal(rows[[0, 1, 3]], softmax_kl(logits, other)[[0, 1, 3]])

    a, b = having(boxes(4), 1, INVERTED), having(boxes(3, seed=1), 2, UNREAL)
    for mode in ("iou", "iof"):
        overlap, clean = pairwise_iou(a, b, mode=mode), pairwise_iou(boxes(4), boxes(3, seed=1), mode=mode)
        assert overlap[1, :2].tolist() == [0, 0]
        assert torch.equal(overlap[[0, 2, 3], :2], clean[[0, 2, 3], :2])

    features = normal(2, 3, 4, 5)
    maps = attention_map(having(features, (1, 2, 3, 4), NAN))
    assert maps[1].isnan().all() and torch.equal(maps[0], attention_map(features)[0])
    assert attention_distillation_loss(having(features, (0, 0, 0, 0), NAN), features).isnan()


def test_stated_results_of_boxes_and_counts_without_checking():
    levels = [30, 10]
    good = assign_atss(ANCHORS, levels, OBJECTS, COUNTS)
    assert (good.gt_index == 0).sum() > 0
    assert same(good, assign_atss(ANCHORS, levels, OBJECTS, COUNTS.new_tensor([7, 1])))  # clamped to 3
    none = assign_atss(ANCHORS, levels, OBJECTS, COUNTS.new_tensor([-5, 1]))
    assert (none.gt_index[0] == -1).all() and (none.threshold[0] == INF).all()
    for bad in (INVERTED, UNREAL):
        assigned = assign_atss(ANCHORS, levels, having(OBJECTS, (0, 1), bad), COUNTS)
        assert assigned.threshold[0, 1] == INF and not (assigned.gt_index[0] == 1).any()
        assert (assign_atss(having(ANCHORS, 7, bad), levels, OBJECTS, COUNTS).gt_index[:, 7] == -2).all()
        region = valuable_localization_region(ANCHORS, having(OBJECTS, (1, 0), bad), COUNTS, 0.5)
        assert (region[1] == 0).all()
        assert torch.equal(region[0], valuable_localization_region(ANCHORS, OBJECTS, COUNTS, 0.5)[0])
        assert (valuable_localization_region(having(ANCHORS, 7, bad), OBJECTS, COUNTS, 0.5)[:, 7] == 0).all()
    clamped = valuable_localization_region(ANCHORS, OBJECTS, COUNTS.new_tensor([7, 1]), 0.5)
    assert torch.equal(clamped, valuable_localization_region(ANCHORS, OBJECTS, COUNTS, 0.5))


def of_tensors(name):
    """The op as a function of its tensors alone, and these."""
    op, inputs, options = OPS[name]
    leaves, structure = pytree.tree_flatten((list(inputs), options))
    places = [i for i, leaf in enumerate(leaves) if torch.is_tensor(leaf)]

    def run(*tensors):
        given = dict(zip(places, tensors, strict=True))
        xs, kwargs = pytree.tree_unflatten([given.get(i, leaf) for i, leaf in enumerate(leaves)], structure)
        return outputs(op(*xs, **kwargs))

    return run, [leaves[i] for i in places]


@pytest.mark.parametrize("name", OPS)
def test_no_check_where_there_are_no_values(name, checked):
    run, tensors = of_tensors(name)
    want = run(*tensors)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in tensors]
        assert [out.shape for out in run(*fakes)] == [out.shape for out in want]
    assert [out.shape for out in run(*fakes)] == [
        out.shape for out in want
    ]  # the mode has ended, the tensors stay fake
    for tracing_mode in ("real", "fake", "symbolic"):
        traced = make_fx(run, tracing_mode=tracing_mode)(*tensors)
        assert not any("isfinite" in str(node.target) for node in traced.graph.nodes)
        assert same(traced(*tensors), want)


@pytest.mark.parametrize("name", ["softmax_kl", "assign_atss", "attention_map"])
def test_no_check_in_compiled_code(name, checked):
    op, inputs, options = OPS[name]
    compiled = torch.compile(lambda *xs: op(*xs, **options), fullgraph=True, backend="aot_eager")
    assert same(compiled(*inputs), op(*inputs, **options))
    bad = [torch.full_like(x, NAN) if x.is_floating_point() else x for x in inputs]
    compiled(*bad)


def test_no_check_under_transforms(checked):
    student, teacher = OPS["softmax_kl"][1]
    bad = having(student, (2, 5), NAN)
    grad = torch.func.grad(lambda x: softmax_kl(x, teacher, reduction="sum"))(bad)
    assert grad.isnan().any(1).tolist() == [False, False, True, False]
    images = torch.stack([OBJECTS[:1], OBJECTS[1:]])
    regions = torch.vmap(lambda x: valuable_localization_region(ANCHORS, x, COUNTS[:1], 0.5))(images)
    want = [valuable_localization_region(ANCHORS, x, COUNTS[:1], 0.5) for x in images]
    assert torch.equal(regions, torch.stack(want))


def test_the_environment_turns_checking_on():
    code = "import torch, pydistill; pydistill.ops.softmax_kl(torch.tensor([[float('nan')]]), torch.ones(1, 1))"
    for value, status in (("1", 1), ("0", 0), ("", 0)):
        env = {**os.environ, "PYDISTILL_CHECK": value}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert done.returncode == status and ("expected finite student" in done.stderr) == bool(status), done.stderr
