import numpy as np
import pytest
import torch

from pydistill.ops import box_to_distance, distance_to_box, integral
from pydistill.ops.distance_to_box import box_to_distance_reference, distance_to_box_reference
from tests.conformance import Case, Conformance, each_device, normal, relative_error
from tests.golden import golden
from tests.ops.cases import CASES


def with_scale(fn):
    return lambda points, boxes, scale=None, **kwargs: fn(points, boxes, scale=scale, **kwargs)


def scaled(*shape):
    n = shape[-2]
    return lambda rng: [*normal((n, 2), shape)(rng), 0.5 + torch.rand(n, generator=rng, dtype=torch.float64)]


class TestDistanceToBox(Conformance):
    fn, reference = with_scale(distance_to_box), with_scale(distance_to_box_reference)
    cases = {
        "plain": Case(normal((9, 2), (9, 4))),
        "images": Case(normal((1500, 2), (2, 1500, 4))),
        "layers": Case(scaled(2, 3, 7, 4)),
    }
    gradients = (1,)
    linear = True
    empty = Case(normal((5, 2), (0, 5, 4)))
    wrong = {
        "points": (lambda: distance_to_box(torch.rand(3), torch.rand(3, 4)), ValueError, r"\(A, 2\), got \[3\]"),
        "distances": (
            lambda: distance_to_box(torch.rand(3, 2), torch.rand(4, 4)),
            ValueError,
            r"distance_to_box: expected distances of shape \(..., 3, 4\), got \[4, 4\]",
        ),
        "scale": (
            lambda: distance_to_box(torch.rand(3, 2), torch.rand(3, 4), scale=torch.rand(2)),
            ValueError,
            r"distance_to_box: expected scale of shape \[3\], got \[2\]",
        ),
        "dtype": (
            lambda: distance_to_box(torch.ones(3, 2).int(), torch.ones(3, 4).int()),
            TypeError,
            "floating point dtype, got torch.int32",
        ),
    }


class TestBoxToDistance(Conformance):
    fn, reference = with_scale(box_to_distance), with_scale(box_to_distance_reference)
    cases = {
        "plain": Case(normal((9, 2), (9, 4))),
        "bounds": Case(normal((1500, 2), (2, 1500, 4), scale=20.0), dict(max_distance=16)),
        "no-bounds": Case(scaled(2, 3, 7, 4), dict(min_distance=None)),
    }
    empty = Case(normal((0, 2), (2, 0, 4)))
    wrong = {
        "bounds": (
            lambda: box_to_distance(torch.rand(3, 2), torch.rand(3, 4), min_distance=2.0, max_distance=2.0),
            ValueError,
            "expected min_distance <= max_distance - margin, got 2.0 and 1.9",
        ),
        "boxes": (lambda: box_to_distance(torch.rand(3, 2), torch.rand(3, 5)), ValueError, "expected boxes of shape"),
    }


def test_a_thousand_cases():
    """There, its gradient, and back, against NumPy in float64."""
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        images, n = rng.integers(0, 4), rng.integers(0, 9)
        points, e, g = rng.normal(size=(n, 2)), rng.normal(size=(images, n, 4)) * 9, rng.normal(size=(images, n, 4))
        s = rng.uniform(0.1, 40, n)
        sign = np.array([-1, -1, 1, 1])
        want = np.tile(points, 2) + sign * e * s[:, None]
        p, scale = torch.tensor(points), torch.tensor(s)
        distances = torch.tensor(e, requires_grad=True)
        boxes = distance_to_box(p, distances, scale=scale)
        (grad,) = torch.autograd.grad(boxes, distances, torch.tensor(g))
        low, high = sorted(rng.uniform(-9, 9, 2))
        back = box_to_distance(p, boxes, min_distance=low, max_distance=high + 0.5, margin=0.5, scale=scale)
        np.testing.assert_allclose(boxes.detach().numpy(), want, rtol=1e-12, atol=1e-11)
        np.testing.assert_allclose(grad.numpy(), g * sign * s[:, None], rtol=1e-12)
        np.testing.assert_allclose(back.numpy(), e.clip(low, high), rtol=1e-10, atol=1e-10)


@each_device
def test_released_boxes_and_targets(device):
    """mmdetection's distance2bbox and bbox2distance(max_dis=16), which its float32 points and boxes went into."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("ld_integral").items()}
    points = z["points"].double()
    distances = integral(z["logits_rm16"].double().view(24, 4, 17))
    assert relative_error(distance_to_box(points, distances), z["boxes_rm16"]) < 1e-9
    assert relative_error(box_to_distance(points, z["gt"].double(), max_distance=16), z["encode_max16"]) < 1e-9


@each_device
def test_nan_stays_in_its_side(device):
    points, distances = torch.zeros(3, 2, device=device), torch.ones(3, 4, device=device)
    distances[1, 2] = torch.nan
    for out in (distance_to_box(points, distances), box_to_distance(points, distances, max_distance=16)):
        assert out.isnan().nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_float32(dtype):
    points = torch.rand(3, 2) * 1000
    out = distance_to_box(points, torch.ones(3, 4, dtype=dtype))
    assert out.dtype == torch.float32 and torch.equal(out[:, 2:], points + 1)
