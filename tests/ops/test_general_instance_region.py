import numpy as np
import pytest
import torch

from pydistill.ops import general_instance_region
from pydistill.ops.general_instance_region import general_instance_region_reference
from tests.conformance import Case, Conformance, each_device
from tests.ops.boxes import numpy_boxes, numpy_iou, random_boxes
from tests.ops.cases import CASES

LEVELS = [300, 75, 20]
A = sum(LEVELS)


def tensors_first(fn):
    def call(s, t, student_boxes, teacher_boxes, valid=None, levels=LEVELS, **kwargs):
        return fn(s, t, student_boxes, teacher_boxes, levels, valid=valid, **kwargs)

    return call


region = tensors_first(general_instance_region)


def instances(n, classes=7, valid=False, probabilities=False, anchors=A):
    def make(rng):
        scores = [3 * torch.randn(n, anchors, classes, generator=rng, dtype=torch.float64) for _ in range(2)]
        scores = [s.sigmoid() for s in scores] if probabilities else scores
        made = scores + [random_boxes(rng, n, anchors, size=60.0) for _ in range(2)]
        return made + [torch.rand(n, anchors, generator=rng) < 0.7] * valid

    return make


GOOD = [x.float() for x in instances(2)(torch.Generator())]


class TestGeneralInstanceRegion(Conformance):
    fn, reference = region, tensors_first(general_instance_region_reference)
    cases = {
        "image": Case(instances(3)),
        "batch": Case(instances(3), dict(scope="batch")),
        "probabilities": Case(instances(2, probabilities=True), dict(activated=True, top=3)),
        "many-classes": Case(instances(2, classes=80), dict(iou=0.0)),
        "valid": Case(instances(2, classes=1, valid=True), dict(levels=[0, A, 0], iou=0.6)),
        "more-than-there-are": Case(instances(2), dict(top=30, scope="batch", iou=0.1)),
    }
    empty = Case(instances(0), dict(scope="batch"))
    dtypes = (torch.float64, torch.float32)  # half logits tie: below
    wrong = {
        "rank": (lambda: region(*[x[0] for x in GOOD]), ValueError, r"student_scores of shape \(B, A, C\), got"),
        "teacher": (lambda: region(GOOD[0], GOOD[1][:1], *GOOD[2:]), ValueError, "teacher_scores of shape"),
        "boxes": (lambda: region(*GOOD[:3], GOOD[3][:, :3]), ValueError, "teacher_boxes of shape"),
        "levels": (lambda: region(*GOOD, levels=[3]), ValueError, "level_sizes that add up"),
        "top": (lambda: region(*GOOD, top=0), ValueError, "top > 0, got 0"),
        "scope": (lambda: region(*GOOD, scope="level"), ValueError, "scope in .*, got 'level'"),
        "dtype": (lambda: region(*[x.long() for x in GOOD]), TypeError, "scores of a floating point dtype"),
    }


def statement(s, t, student_boxes, teacher_boxes, sizes, top, limit, batch):
    """Non-maximum suppression of a sorted list, as released; sigmoid, choice of the box and levels with it."""
    p, q = 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(-t))
    inside, first = np.zeros(s.shape[:2], bool), 0
    for size in sizes:
        rows = np.arange(s.shape[1])[first : first + size]
        first += size
        for images in [np.arange(len(s))] if batch else [np.array([i]) for i in range(len(s))]:
            z = (q - p)[images][:, rows].reshape(-1, s.shape[2])
            c = np.abs(z).argmax(1)[:, None]
            student, teacher = (x[images][:, rows].reshape(-1, 4) for x in (student_boxes, teacher_boxes))
            box = np.where(np.take_along_axis(z, c, 1) >= 0, teacher, student)
            kept = []
            for k in np.argsort(-np.abs(z).max(1), kind="stable"):
                if not kept or numpy_iou(box[k : k + 1], box[kept]).max() <= limit:
                    kept.append(k)
            for k in kept[:top]:
                inside[images[k // size], rows[k % size]] = True
    return inside


def test_a_thousand_random_cases():
    rng = np.random.default_rng(0)
    for case in range(CASES):
        sizes, n, c = rng.integers(0, 10, 2), rng.integers(1, 4), rng.integers(1, 5)
        s, t = 2 * rng.standard_normal((2, n, sizes.sum(), c))
        boxes = [numpy_boxes(rng, n, sizes.sum(), coarse=case % 2) for _ in range(2)]
        top, limit = int(rng.integers(1, 12)), [0.3, rng.random()][case % 2]
        want = statement(s, t, *boxes, sizes, top, limit, batch=case % 3 == 0)
        options = dict(top=top, iou=limit, scope="batch" if case % 3 == 0 else "image")
        got = general_instance_region(*[torch.tensor(x) for x in (s, t, *boxes)], sizes.tolist(), **options)
        assert np.array_equal(got.numpy(), want)


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_scores_are_computed_in_float32(device, dtype):
    s, t, *boxes = (x.to(device) for x in GOOD)
    got = region(s.to(dtype), t.to(dtype), *boxes)
    assert torch.equal(got, region(s.to(dtype).float(), t.to(dtype).float(), *boxes)) and got.sum() > 20


@each_device
def test_equal_scores_join_in_order_and_nan_takes_no_part(device):
    s, t = torch.zeros(1, 6, 2, device=device), torch.ones(1, 6, 2, device=device)
    boxes = torch.tensor([[0.0, 0, 1, 1]], device=device).repeat(1, 6, 1) + 2 * torch.arange(6, device=device)[:, None]
    assert region(s, t, boxes, boxes, levels=[6], top=3).tolist() == [[True] * 3 + [False] * 3]
    t[0, 0, 1], boxes[0, 1, 0], boxes[0, 2] = torch.nan, torch.inf, boxes[0, 2].flip(0)
    assert region(s, t, boxes, boxes, levels=[6], top=2).tolist() == [[False] * 3 + [True] * 2 + [False]]
    assert not region(s * torch.nan, t, boxes, boxes, levels=[6]).any()
    assert not region(s[..., :0], t[..., :0], boxes, boxes, levels=[6]).any()
    assert region(s, s, boxes[:, 3:].repeat(1, 2, 1), boxes[:, 3:].repeat(1, 2, 1), levels=[6]).sum() == 3
