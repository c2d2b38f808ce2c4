import numpy as np
import pytest
import torch

from pydistill.ops import matched_box_loss
from pydistill.ops.matched_box_loss import matched_box_loss_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.ops.cases import CASES
from tests.ops.matched import numpy_match, numpy_paired, random_centred, random_match


def stacked(fn):
    """Both losses in one tensor, whose gradient the suite takes; weight and sizes by position."""

    def call(boxes, target_boxes, match, weight=None, image_sizes=None, **kwargs):
        return torch.stack(fn(boxes, target_boxes, match, weight=weight, image_sizes=image_sizes, **kwargs))

    return call


def scene(*batch, queries, targets, staged=False, weight=False, sizes=False, corners=False):
    def make(rng):
        boxes = random_centred(rng, *batch, queries)
        target_boxes = random_centred(rng, *(batch if staged else batch[-1:]), targets)
        if corners:
            boxes, target_boxes = (torch.cat([b[..., :2], b[..., :2] + b[..., 2:]], -1) for b in (boxes, target_boxes))
        made = [boxes, target_boxes, random_match(rng, batch, queries, targets)]
        rows = torch.rand(*batch, queries, generator=rng, dtype=torch.float64)
        made.append(rows * (torch.rand(rows.shape, generator=rng) < 0.7) if weight else None)
        made.append(torch.randint(100, 900, (batch[-1], 2), generator=rng) if sizes else None)
        return made

    return make


class TestMatchedBoxLoss(Conformance):
    fn, reference = stacked(matched_box_loss), stacked(matched_box_loss_reference)
    cases = {
        "stages": Case(scene(3, 2, queries=17, targets=5)),
        "teacher": Case(
            scene(3, 2, queries=24, targets=24, staged=True, weight=True, sizes=True),
            dict(clamp_targets=True, giou_eps=1e-6),
        ),
        "rows": Case(scene(2, queries=9, targets=12, weight=True), dict(reduction="none")),
        "corners": Case(scene(2, queries=300, targets=40, corners=True), dict(box_format="xyxy", reduction="none")),
        "other-l1": Case(scene(2, 2, 2, queries=7, targets=4, sizes=True), dict(l1_format="xyxy")),
        "corners-centred-l1": Case(
            scene(2, queries=7, targets=4, corners=True), dict(box_format="xyxy", l1_format="cxcywh")
        ),
        "no-targets": Case(scene(2, queries=3, targets=0)),
    }
    gradients = (0,)
    empty = Case(scene(2, 0, queries=3, targets=2))
    wrong = {
        "rank": (
            lambda: matched_box_loss(torch.rand(3, 4), torch.rand(1, 2, 4), torch.ones(3).long()),
            ValueError,
            r"matched_box_loss: expected boxes of shape \(..., B, Q, 4\), got \[3, 4\]",
        ),
        "last": (
            lambda: matched_box_loss(torch.rand(2, 3, 5), torch.rand(2, 2, 4), torch.ones(2, 3).long()),
            ValueError,
            r"expected boxes of shape \(..., B, Q, 4\), got \[2, 3, 5\]",
        ),
        "targets": (
            lambda: matched_box_loss(torch.rand(5, 2, 3, 4), torch.rand(3, 2, 4), torch.ones(5, 2, 3).long()),
            ValueError,
            r"target_boxes of shape \[2, T, 4\] or \[5, 2, T, 4\], got \[3, 2, 4\]",
        ),
        "match": (
            lambda: matched_box_loss(torch.rand(2, 3, 4), torch.rand(2, 2, 4), torch.ones(2, 2).long()),
            ValueError,
            r"target_of_query of shape \[2, 3\], got \[2, 2\]",
        ),
        "match-dtype": (
            lambda: matched_box_loss(torch.rand(2, 3, 4), torch.rand(2, 2, 4), torch.ones(2, 3)),
            TypeError,
            "target_of_query of dtype torch.int64, got torch.float32",
        ),
        "dtype": (
            lambda: matched_box_loss(torch.ones(2, 3, 4).int(), torch.rand(2, 2, 4), torch.ones(2, 3).long()),
            TypeError,
            "boxes of a floating point dtype, got torch.int32",
        ),
        "weight": (
            lambda: matched_box_loss(
                torch.rand(2, 3, 4), torch.rand(2, 2, 4), torch.ones(2, 3).long(), weight=torch.ones(2)
            ),
            ValueError,
            r"weight that broadcasts to \[2, 3\], got \[2\]",
        ),
        "sizes": (
            lambda: matched_box_loss(
                torch.rand(2, 3, 4), torch.rand(2, 2, 4), torch.ones(2, 3).long(), image_sizes=torch.ones(3, 2)
            ),
            ValueError,
            r"image_sizes of shape \[2, 2\], got \[3, 2\]",
        ),
        "eps": (
            lambda: matched_box_loss(torch.rand(2, 3, 4), torch.rand(2, 2, 4), torch.ones(2, 3).long(), giou_eps=-1.0),
            ValueError,
            "giou_eps >= 0, got -1.0",
        ),
        "format": (
            lambda: matched_box_loss(
                torch.rand(2, 3, 4), torch.rand(2, 2, 4), torch.ones(2, 3).long(), l1_format="xywh"
            ),
            ValueError,
            "l1_format to be cxcywh or xyxy, got xywh",
        ),
        "reduction": (
            lambda: matched_box_loss(torch.rand(2, 3, 4), torch.rand(2, 2, 4), torch.ones(2, 3).long(), reduction="x"),
            ValueError,
            'reduction "stages" or "none", got \'x\'',
        ),
    }


def stated(b, t, corners, l1_corners, size, clamp, eps):
    """L1 and 1 - GIoU of aligned boxes in float64 NumPy, written from the equations."""
    if not corners:
        b, t = (np.concatenate([x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2], -1) for x in (b, t))
    p, q = b, t
    most = np.tile(size[..., None, ::-1], 2)
    if clamp:
        q = np.clip(q * most, 0, most) / most
    d = p - q
    if not l1_corners:
        d = np.concatenate([(d[..., :2] + d[..., 2:]) / 2, d[..., 2:] - d[..., :2]], -1)
    l1 = np.abs(d).sum(-1)
    p, q = p * most, q * most
    inter = np.clip(np.minimum(p[..., 2:], q[..., 2:]) - np.maximum(p[..., :2], q[..., :2]), 0, None).prod(-1)
    union = sum((x[..., 2:] - x[..., :2]).prod(-1) for x in (p, q)) - inter
    hull = (np.maximum(p[..., 2:], q[..., 2:]) - np.minimum(p[..., :2], q[..., :2])).prod(-1)
    union, hull = np.maximum(union, eps), np.maximum(hull, eps)
    return l1, 1 - inter / union + (hull - union) / hull


def test_a_thousand_cases():
    """Values against NumPy, gradients against finite differences along a random direction."""
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        batch = tuple(rng.integers(1, 4, rng.integers(1, 4)))
        queries, targets = rng.integers(1, 8), rng.integers(0, 6)
        corners, l1_corners, clamp = rng.random(3) < 0.5
        eps, sized = float(rng.choice([0, 1e-6, 0.1])), rng.random() < 0.5
        b = rng.uniform(0.1, 0.9, (*batch, queries, 4))
        t = rng.uniform(0.1, 0.9, (*(batch if rng.random() < 0.5 else batch[-1:]), targets, 4))
        if corners:
            b[..., 2:] += b[..., :2]
            t[..., 2:] += t[..., :2]
        size = rng.integers(1, 9, (batch[-1], 2)).astype(float) if sized else np.ones((batch[-1], 2))
        w = rng.uniform(0.5, 2, (*batch, queries)) * (rng.random((*batch, queries)) < 0.8)
        match = numpy_match(rng, batch, queries, targets)
        paired, used = numpy_paired(t, match)
        form = {True: "xyxy", False: "cxcywh"}
        options = dict(
            weight=torch.tensor(w),
            image_sizes=torch.tensor(size) if sized else None,
            clamp_targets=bool(clamp),
            giou_eps=eps,
            box_format=form[bool(corners)],
            l1_format=form[bool(l1_corners)],
        )
        x, step = torch.tensor(b, requires_grad=True), 1e-7 * rng.normal(size=b.shape)
        shares = rng.normal(size=(2, *batch[:-1]))  # of the stages in what is differentiated
        got = torch.stack(matched_box_loss(x, torch.tensor(t), torch.tensor(match), **options))
        (grad,) = torch.autograd.grad((got * torch.tensor(shares)).sum(), x)
        near = np.stack([b, b + step, b - step])
        at, ahead, behind = w * used * np.stack(stated(near, paired, corners, l1_corners, size, clamp, eps), 1)
        assert relative_error(got.detach(), torch.tensor(at.sum((-2, -1)))) < 1e-12
        slope, mine = ((ahead - behind) / 2 * shares[..., None, None]).sum(0), (grad.numpy() * step).sum(-1)
        assert np.abs(slope - mine).max(initial=0) <= 1e-6 * max(np.abs(slope).max(initial=0), 1e-7)
        assert (grad.numpy()[~used | (w == 0)] == 0).all()


@each_device
def test_bad_rows_stay_alone_and_what_is_not_matched_is_not_read(device):
    boxes, target_boxes, match, weight, _ = Case(scene(2, 2, queries=20, targets=8, weight=True), {}).inputs(
        device, torch.float64
    )
    weight[0, 0, 3], match[0, 0, 3] = 1.0, 2
    used = (match >= 0) & (match < 8) & (weight != 0)
    target_boxes[1, 5] = torch.nan  # nobody's
    match = torch.where((match == 5) & (torch.arange(2, device=device)[:, None] == 1), -1, match)
    used &= match >= 0
    options = dict(weight=weight, reduction="none")
    clean = boxes.clone().requires_grad_()
    want = matched_box_loss(clean, target_boxes, match, **options)
    wanted = torch.autograd.grad(sum(x.sum() for x in want), clean)[0]
    poisoned = boxes.masked_fill(~used[..., None], torch.nan)
    poisoned[0, 0, 3] = torch.nan
    poisoned.requires_grad_()
    got = matched_box_loss(poisoned, target_boxes, match, **options)
    (grad,) = torch.autograd.grad(sum(x.sum() for x in got), poisoned)
    rest = torch.ones_like(used)
    rest[0, 0, 3] = False
    for g, w in zip((*got, grad), (*want, wanted), strict=True):
        assert_close(g.detach()[rest], w.detach()[rest], 0.0)
    assert all(g[0, 0, 3].isnan() for g in got) and (grad[~used] == 0).all() and used.sum() > 5


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_without_area_lose_a_finite_amount(device, dtype):
    """DETR divides 0 by 0 here. Equal boxes lose nothing."""
    flat = torch.tensor([[0.5, 0.5, 0.0, 0.2], [0.5, 0.5, 0.0, 0.0], [0.3, 0.4, 0.2, 0.1]], dtype=dtype, device=device)
    boxes, match = flat[None].clone().requires_grad_(), torch.arange(3, device=device)[None]
    l1, giou = matched_box_loss(boxes, flat[None], match, reduction="none")
    assert (l1 == 0).all() and giou[0, :2].tolist() == [1.0, 1.0] and giou[0, 2].abs() < 1e-6
    (grad,) = torch.autograd.grad(giou.sum(), boxes)
    assert (grad[0, :2] == 0).all() and grad.isfinite().all()


@each_device
def test_one_of_the_losses_alone(device):
    """What is not asked for leaves no gradient."""
    inputs = Case(scene(2, 2, queries=6, targets=4)).inputs(device, torch.float32, grad=(0,))
    boxes, target_boxes, match, *_ = inputs
    l1, giou = matched_box_loss(boxes, target_boxes, match)
    both = torch.autograd.grad(l1.sum() + giou.sum(), boxes, retain_graph=True)[0]
    parts = [torch.autograd.grad(x.sum(), boxes, retain_graph=True)[0] for x in (l1, giou)]
    assert relative_error(parts[0] + parts[1], both) < 1e-6 and (parts[0] != parts[1]).any()
