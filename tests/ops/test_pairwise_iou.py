import pytest
import torch

from pydistill.ops import pairwise_iou
from pydistill.ops.pairwise_iou import MODES, pairwise_iou_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.golden import golden
from tests.ops.boxes import random_boxes


def two_sets(n, m, size=100.0):
    return lambda rng: [random_boxes(rng, n, size=size), random_boxes(rng, m, size=size)]


def touching(rng):
    """Shared edges and corners, one box in another, the same box twice, disjoint boxes."""
    a = [[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 3, 3], [0, 0, 4, 4], [0, 0, 2, 2]]
    b = [[4, 0, 8, 4], [4, 4, 8, 8], [0, 0, 4, 4], [0, 0, 4, 4], [1, 0, 4, 3], [5, 6, 8, 9]]
    return [torch.tensor(x, dtype=torch.float64) for x in (a, b)]


CASES = {mode: Case(two_sets(37, 11), dict(mode=mode)) for mode in MODES}
CASES |= {f"aligned-{mode}": Case(two_sets(37, 37), dict(mode=mode, aligned=True)) for mode in MODES}
CASES |= {f"touching-{mode}": Case(touching, dict(mode=mode, aligned=True)) for mode in MODES}
CASES["many"] = Case(two_sets(700, 90), dict(mode="giou"))
CASES["large-eps"] = Case(two_sets(9, 9), dict(eps=3000.0))


class TestPairwiseIou(Conformance):
    fn, reference = pairwise_iou, pairwise_iou_reference
    cases, gradients = CASES, (0, 1)
    empty = Case(lambda rng: [torch.empty(0, 4, dtype=torch.float64), random_boxes(rng, 3)])
    wrong = {
        "mode": (lambda: pairwise_iou(torch.rand(1, 4), torch.rand(1, 4), mode="siou"), ValueError, "mode in .*'siou'"),
        "rank": (lambda: pairwise_iou(torch.rand(4), torch.rand(1, 4)), ValueError, r"a of shape \(A, 4\), got \[4\]"),
        "width": (lambda: pairwise_iou(torch.rand(2, 5), torch.rand(1, 4)), ValueError, r"\(A, 4\), got \[2, 5\]"),
        "second": (lambda: pairwise_iou(torch.rand(2, 4), torch.rand(3)), ValueError, r"b of shape .*, got \[3\]"),
        "aligned": (
            lambda: pairwise_iou(torch.rand(2, 4), torch.rand(3, 4), aligned=True),
            ValueError,
            r"pairwise_iou: expected as many boxes in b as in a, got \[3, 4\]",
        ),
        "eps": (lambda: pairwise_iou(torch.rand(1, 4), torch.rand(1, 4), eps=-1.0), ValueError, "eps >= 0, got -1"),
        "dtype": (
            lambda: pairwise_iou(torch.ones(1, 4).int(), torch.ones(1, 4).int()),
            TypeError,
            "pairwise_iou: expected boxes of a floating point dtype, got torch.int32",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("shapes", [(0, 0), (3, 0), (0, 3)])
def test_no_boxes_in_either_set(shapes):
    a, b = (torch.rand(n, 4, requires_grad=True) for n in shapes)
    out = pairwise_iou(a, b)
    assert out.shape == shapes
    da, db = torch.autograd.grad(out.sum(), (a, b))
    assert torch.equal(da, torch.zeros_like(a)) and torch.equal(db, torch.zeros_like(b))


@each_device
@pytest.mark.parametrize(
    "mode, array",
    [
        ("iou", "mmdet_iou_f64"), ("iof", "mmdet_iof_f64"), ("giou", "mmdet_giou_f64"),
        ("iou", "official_iou_f64"), ("iof", "official_iof_f64"), ("giou", "official_giou_f64"),
        ("diou", "mmdet_true_diou_eps1e6_f64"), ("diou_released", "official_diou_f64"),
    ],
)  # fmt: skip
def test_every_pair_of_the_reference(device, mode, array):
    """Degenerate and inverted boxes included; the largest entry, -2e8, must not hide the others."""
    z = golden("ld_pairwise_diou")
    a, b = (torch.from_numpy(z[k]).double().to(device) for k in ("anchors", "gts"))
    got, want = pairwise_iou(a, b, mode=mode).cpu(), torch.from_numpy(z[array])
    usual = want.abs() < 1e3
    assert relative_error(got[usual], want[usual]) < 1e-9
    assert relative_error(got, want) < 1e-9


@each_device
def test_other_arrays_of_the_reference(device):
    z = {k: torch.from_numpy(v) for k, v in golden("ld_pairwise_diou").items()}
    a, b = z["anchors"].to(device), z["gts"].to(device)
    assert relative_error(pairwise_iou(a, b), z["mmdet_iou_f32"]) < 1e-5
    assert relative_error(pairwise_iou(a, b, mode="diou_released"), z["official_diou_f32"]) < 1e-5
    a, b = a.double(), b.double()
    aligned = pairwise_iou(a[:7], b, mode="diou_released", aligned=True)
    assert relative_error(aligned, z["official_diou_aligned_f64"]) < 1e-9
    assert relative_error(pairwise_iou(a, b, mode="diou", eps=1e-7), z["mmdet_true_diou_eps1e7_f64"]) < 1e-9
    penalty = pairwise_iou(a, b, mode="iof") - pairwise_iou(a, b, mode="diou_released")
    assert relative_error(penalty, z["penalty_rho2_over_c2_f64"]) < 1e-9


@each_device
@pytest.mark.parametrize("mode", ["giou", "diou"])
@pytest.mark.parametrize("eps, suffix", [(1e-6, "eps1e6"), (1e-7, "eps1e7")])
def test_losses_of_the_reference_and_their_gradients(device, mode, eps, suffix):
    """1 - GIoU and 1 - DIoU are mmdetection's losses, kinks included."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("ld_iou_loss").items()}
    prediction = z["pred"].double().requires_grad_()
    loss = 1 - pairwise_iou(prediction, z["target"].double(), mode=mode, aligned=True, eps=eps)
    assert relative_error(loss.detach(), z[f"{mode}_{suffix}"]) < 1e-9
    (gradient,) = torch.autograd.grad(loss.sum(), prediction)
    want = z[f"grad_{mode}_{suffix}"]
    usual = want.abs().amax(1) < 1e3
    assert relative_error(gradient[usual], want[usual]) < 1e-9
    assert relative_error(gradient, want) < 1e-9


@each_device
def test_aligned_iou_of_the_reference(device):
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("ld_iou_loss").items()}
    got = pairwise_iou(z["pred"].double(), z["target"].double(), aligned=True)
    assert relative_error(got, z["iou_aligned"]) < 1e-9


@each_device
def test_giou_loss_module_of_the_reference(device):
    """mmdetection's GIoULoss(loss_weight=2) with weights and avg_factor=1, to which it adds float32's eps."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("ld_iou_loss").items()}
    prediction = z["pred"].double().requires_grad_()
    rows = 1 - pairwise_iou(prediction, z["target"].double(), mode="giou", aligned=True)
    loss = 2 * (z["weight"] * rows).sum() / (1 + torch.finfo(torch.float32).eps)
    assert relative_error(loss.detach(), z["giou_module_w2_wavg1"]) < 1e-9
    assert relative_error(torch.autograd.grad(loss, prediction)[0], z["grad_giou_module_w2_wavg1"]) < 1e-9


@each_device
@pytest.mark.parametrize("mode", ["iou", "giou"])
@pytest.mark.parametrize("kind, tolerance", [("f32", 1e-5), ("f64", 1e-9)])
def test_iou_costs_of_the_reference(device, mode, kind, tolerance):
    """mmdetection's IoUCost, which is negated, on the pixels that it was given."""
    z = {k: torch.from_numpy(v).to(device) for k, v in golden("detr_cost_mmdet33").items()}
    for b in (1, 2):
        predictions, targets = (z[f"mm3_{kind}_{name}_xyxy_px_{b}"] for name in ("pred", "gt"))
        assert relative_error(-pairwise_iou(predictions, targets, mode=mode), z[f"mm3_{kind}_{mode}_{b}"]) < tolerance


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("aligned", [False, True])
def test_gradient_is_the_slope(mode, aligned):
    """Of what is computed, by finite differences; alpha of CIoU is a constant, so there it is not."""
    if mode == "ciou":
        pytest.skip("the gradient of CIoU is by definition not that of its value")
    rng = torch.Generator().manual_seed(3)
    a, b = (random_boxes(rng, 4, size=1.0).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: pairwise_iou(x, y, mode=mode, aligned=aligned), (a, b))


@each_device
@pytest.mark.parametrize("mode", MODES)
def test_a_box_that_is_not_finite_stays_alone(device, mode):
    rng = torch.Generator().manual_seed(0)
    a, b = random_boxes(rng, 6).to(device), random_boxes(rng, 5).to(device)
    want = pairwise_iou(a, b, mode=mode)
    a[2, 1], b[3, 0] = torch.nan, torch.nan
    got = pairwise_iou(a, b, mode=mode)
    assert got[2].isnan().all() and got[:, 3].isnan().all()
    others = torch.ones_like(got, dtype=torch.bool)
    others[2], others[:, 3] = False, False
    assert torch.equal(got[others], want[others])


@each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_float32(device, dtype):
    a, b = torch.rand(3, 4, device=device, dtype=dtype), torch.rand(2, 4, device=device)
    assert pairwise_iou(a, a).dtype == pairwise_iou(a, b).dtype == torch.float32
    assert_close(pairwise_iou(a, b), pairwise_iou_reference(a.double(), b.double()), 1e-5)
