"""Any detector's box branch as distributions: it starts where the old branch was, and learns by LD."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pydistill import Distiller, Term
from pydistill.heads import DistributionHead
from pydistill.ops import softmax_kl
from pydistill.taps import Taps

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (5, 7, 6)),
    "no bias": (lambda: nn.Linear(6, 4, bias=False), (7, 6)),
    "conv": (lambda: nn.Conv2d(6, 4, 3, padding=1), (2, 6, 5, 7)),
    "anchors": (lambda: nn.Conv2d(6, 12, 3, 2, 1, dilation=2, groups=2, padding_mode="reflect"), (2, 6, 9, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_starts_where_the_old_layer_was(name):
    """Within 0.005 bins where three bins are left to both limits, of any place of the limits."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make().double(), torch.randn(shape).double()
    old = layer(x)
    middle, reach = old.mean().item(), (old - old.mean()).abs().max().item()
    step = reach / 5
    head = DistributionHead(layer, 17, middle - 8 * step, middle + 8 * step)
    new = head(x)
    assert new.shape == old.shape and new.dtype == old.dtype and new.is_contiguous()
    assert (new - old).abs().max() < 0.005 * step
    values = head.low + head.step * (head.logits(x).softmax(-1) @ torch.arange(17.0).double())
    torch.testing.assert_close(new, values.movedim(-1, 1) if isinstance(layer, nn.Conv2d) else values)


def test_limits_of_each_coordinate():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(5, 8, 1), torch.randn(3, 5, 4, 4)
    low, high = [-4.0, -8.0, -3.0, -6.0], [4.0, 8.0, 5.0, 10.0]
    head = DistributionHead(layer, 33, low, high)
    assert head.low.tolist() == low * 2 and head.step.tolist() == [0.25, 0.5, 0.25, 0.5] * 2
    assert (head(x) - layer(x)).abs().max() < 0.005 * 0.5
    assert head.logits(x).shape == (3, 4, 4, 8, 33)
    logits = head.logits.layer(x).view(3, 8, 33, 4, 4)
    assert head.logits(x).equal(logits.permute(0, 3, 4, 1, 2))


def test_beyond_the_limits():
    """What the bins cannot reach becomes a value within a bin of the limit."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 1.0), nn.init.zeros_(layer.bias)
    head = DistributionHead(layer, 9, 0.0, 16.0)
    x = torch.tensor([[-5.0], [0.0], [8.0], [16.0], [30.0]])
    expected = torch.tensor([[0.0], [0.0], [8.0], [16.0], [16.0]])
    assert ((head(x) - expected).abs() < torch.tensor([[2.0], [2.0], [0.01], [2.0], [2.0]])).all()
    assert (head(x) >= 0).all() and (head(x) <= 16).all()


def test_modes():
    """Half precision keeps its dtype; copies and state dicts carry the limits; no random number is drawn."""
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 4), torch.randn(7, 6)
    state = torch.get_rng_state()
    head = DistributionHead(layer, 17, -4, 4)
    assert torch.get_rng_state().equal(state)
    other = DistributionHead(nn.Linear(6, 4), 17, -1, 1)
    other.load_state_dict(head.state_dict())
    assert other(x).equal(head(x)) and copy.deepcopy(head)(x).equal(head(x))
    with torch.autocast("cpu", torch.bfloat16):
        half = head(x)
    assert half.dtype == torch.bfloat16 and (half - layer(x)).abs().max() < 0.05
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), head(x))


def test_wrong_arguments():
    for layer in (nn.Conv1d(3, 4, 1), nn.Identity()):
        with pytest.raises(TypeError, match=f"expected nn.Conv2d or nn.Linear, got {type(layer).__name__}"):
            DistributionHead(layer, 17, 0, 1)
    layer = nn.Linear(2, 4)
    for options in ({"bins": 1}, {"spread": 0.4}, {"spread": float("nan")}):
        with pytest.raises(ValueError, match="expected bins >= 2 and spread >= 0.5, got"):
            DistributionHead(layer, **{"bins": 17, "low": 0, "high": 1} | options)
    for low, high in ((1, 1), (0, [1, 1, 1, 0]), (0, float("inf")), (float("nan"), 1)):
        with pytest.raises(ValueError, match="expected low < high, both finite, got"):
            DistributionHead(layer, 17, low, high)
    with pytest.raises(ValueError, match="expected low to be one number or 4, got 3 numbers"):
        DistributionHead(layer, 17, [0, 0, 0], 1)


SIZE, STRIDE = 32, 4


class Points(nn.Module):
    """An anchor-free detector of one class: at each point the box's four sides in pixels, as plain numbers."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 5, 2, 2), nn.ReLU(), nn.Conv2d(width, width, 5, 2, 2), nn.ReLU(),
            nn.Conv2d(width, width, 5, 1, 2), nn.ReLU(), nn.Conv2d(width, width, 5, 1, 2), nn.ReLU(),
        )  # fmt: skip
        self.box = nn.Conv2d(width, 4, 1)

    def forward(self, pictures):
        return self.box(self.body(pictures))


def _scenes(number):
    """Pictures of a bright box in noise, its sides' distances from each point (N, 4, h, w), and the points inside."""
    g = torch.Generator().manual_seed(0)
    corners = torch.rand(number, 2, generator=g) * 16
    boxes = torch.cat([corners, corners + 8 + torch.rand(number, 2, generator=g) * 8], 1)
    at = torch.arange(SIZE) + 0.5
    inside = [(at > low[:, None]) & (at < high[:, None]) for low, high in zip(boxes[:, :2].T, boxes[:, 2:].T)]
    pictures = (inside[1][:, :, None] & inside[0][:, None]).float()[:, None]
    pictures = pictures + 0.2 * torch.randn(pictures.shape, generator=g)
    points = torch.arange(SIZE // STRIDE) * STRIDE + STRIDE / 2
    y, x = torch.meshgrid(points, points, indexing="ij")
    x0, y0, x1, y1 = boxes.T[:, :, None, None]
    distances = torch.stack([x - x0, y - y0, x1 - x, y1 - y], 1)
    return pictures, distances, distances.amin(1) > 0


def _train(module, loss, steps, rate):
    optimizer = torch.optim.Adam(module.parameters(), rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


@pytest.fixture
def one_thread():
    """Networks as small as these only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_detector_of_plain_numbers_learns_by_ld_alone(one_thread):
    """A trained teacher's plain branch becomes bins; a student that sees no box at all follows them to its boxes."""
    torch.manual_seed(0)
    pictures, distances, inside = _scenes(64)

    def error(detector):
        with torch.no_grad():
            return (detector(pictures) - distances).abs().mean(1)[inside].mean().item()

    def batch(step):
        return slice(step * 16 % 64, step * 16 % 64 + 16)

    def regression(detector, step):
        b = batch(step)
        return F.smooth_l1_loss(detector(pictures[b]), distances[b], reduction="none").mean(1)[inside[b]].mean()

    teacher, student = Points(16), Points(8)
    _train(teacher, lambda step: regression(teacher, step), 120, 3e-3)
    plain = error(teacher)
    for detector in (teacher, student):
        detector.box = DistributionHead(detector.box, 17, -4.0, 20.0)
    assert error(teacher) < 1.1 * plain  # nothing that it had learnt is lost

    def ld(student, teacher, inside):
        return softmax_kl(student, teacher, temperature=2, weight=inside[..., None].float(), reduction="mean")

    distiller = Distiller(student, teacher, {"ld": Term(ld, "box.logits", "box.logits", targets=True)})

    def distillation(step):
        return distiller(pictures[batch(step)], targets=inside[batch(step)]).loss

    def divergence():
        with torch.no_grad():
            return distiller(pictures, targets=inside).loss.item()

    before = divergence(), error(student)
    _train(distiller, distillation, 120, 3e-3)
    after = divergence(), error(student)
    assert after[0] < before[0] / 10
    assert after[1] < before[1] / 4 and after[1] < 2.5 * error(teacher)
    taps = Taps(student, ["box.logits"])
    with taps.record():
        student(pictures[:2])
    assert taps["box.logits"].shape == (2, 8, 8, 4, 17)
