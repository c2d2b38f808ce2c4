import numpy as np
import pytest
import torch

from pydistill.ops import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from tests.conformance import each_device
from tests.golden import golden
from tests.ops.boxes import random_boxes

ALL = {"iou": box_iou, "giou": generalized_box_iou, "diou": distance_box_iou, "ciou": complete_box_iou}


def torchvision_formula(name, a, b, eps=1e-7):
    """As torchvision's documentation and source have it, in NumPy."""
    a, b = a[:, None], b[None]
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    sides_a, sides_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    union = sides_a.prod(-1) + sides_b.prod(-1) - shared
    hull = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    iou = shared / union
    if name == "iou":
        return iou
    if name == "giou":
        return iou - (hull.prod(-1) - union) / hull.prod(-1)
    rho = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    diou = iou - rho / ((hull**2).sum(-1) + eps)
    if name == "diou":
        return diou
    angle_a, angle_b = (np.arctan(x[..., 0] / x[..., 1]) for x in (sides_a, sides_b))
    v = 4 / np.pi**2 * (angle_a - angle_b) ** 2
    return diou - v * v / (1 - iou + v + eps)


@each_device
@pytest.mark.parametrize("name", ALL)
def test_torchvision_numbers(device, name):
    rng = torch.Generator().manual_seed(0)
    a, b = (random_boxes(rng, n).to(device) for n in (40, 30))
    got = ALL[name](a, b).cpu().numpy()
    np.testing.assert_allclose(got, torchvision_formula(name, a.cpu().numpy(), b.cpu().numpy()), rtol=1e-7, atol=1e-7)


@each_device
@pytest.mark.parametrize("name", ["iou", "giou"])
def test_small_boxes_need_no_eps(device, name):
    """Of a normalised picture, in float32; boxes without area give no NaN, nor do their gradients."""
    rng = torch.Generator().manual_seed(0)
    a, b = (1e-4 * random_boxes(rng, 20, size=1.0) for _ in range(2))
    got = ALL[name](a.float().to(device), b.float().to(device)).cpu().numpy()
    np.testing.assert_allclose(got, torchvision_formula(name, a.numpy(), b.numpy()), rtol=1e-4, atol=1e-4)
    points = torch.tensor([[1.0, 1, 1, 1], [2, 2, 2, 2]], device=device, requires_grad=True)
    out = ALL[name](points, points.detach())
    assert out.diagonal().tolist() == [0, 0] and torch.autograd.grad(out.sum(), points)[0].isfinite().all()


def test_released_pairs():
    """mmdetection's IoU and GIoU have a floor of 1e-6, so only boxes with area agree."""
    z = {k: torch.from_numpy(v) for k, v in golden("ld_pairwise_diou").items()}
    a, b = z["anchors"].double()[4:], z["gts"].double()[:3]
    for name, array in (("iou", "mmdet_iou_f64"), ("giou", "mmdet_giou_f64"), ("diou", "mmdet_true_diou_eps1e7_f64")):
        np.testing.assert_allclose(ALL[name](a, b), z[array][4:, :3], rtol=1e-9, atol=1e-12)
