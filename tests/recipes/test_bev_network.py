from itertools import product

import pytest
import torch

from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import BEVGrid
from pydistill.recipes.bev.classes import TASKS
from pydistill.recipes.bev.decode import decode
from pydistill.recipes.bev.lift_splat import LiftSplat, _pixels
from pydistill.recipes.bev.network import MODALITIES, BEVDetector
from pydistill.recipes.bev.objective import detection_losses, encode
from pydistill.recipes.bev.pillars import Pillars
from pydistill.recipes.bev.training import build_model
from tests.conformance import relative_error
from tests.recipes.bev import TINY, batch

GRID = TINY.grid


def test_pillars_restated():
    """Cell by cell: the layer of each point's numbers and places, and the largest; empty cells are 0."""
    torch.manual_seed(0)
    layer, data = Pillars(GRID, 6).eval(), batch()
    layer.mix = torch.nn.Identity()
    got = layer(data.points, data.counts)
    want = torch.zeros_like(got)
    for b in range(2):
        points = data.points[b, : data.counts[b]]
        cells = GRID.cells(points[:, :2])
        for row in range(GRID.height):
            for col in range(GRID.width):
                own = (cells.floor() == torch.tensor([col, row])).all(1) & (points[:, 2] >= -5) & (points[:, 2] <= 3)
                if own.any():
                    p = points[own]
                    near = cells[own] - torch.tensor([col, row]) - 0.5
                    rows = torch.cat([p, near, p[:, :2] - p[:, :2].mean(0)], 1)
                    want[b, :, row, col] = layer.layer(rows).amax(0)
    assert relative_error(got, want) < 1e-5 and (want == 0).any() and (want > 0).any()


def test_lift_splat_restated():
    """Each pixel's features, times the probability of a depth, land in the cell of that point on the ground."""
    torch.manual_seed(0)
    layer, data = LiftSplat(GRID, 3, depths=TINY.depths, width=0.125).eval(), batch(1)
    got = layer(data.pictures, data.to_pixels)
    features = layer.backbone(data.pictures[0])[1]
    h, w = features.shape[2:]
    height, width = data.pictures.shape[3:]
    slope = torch.zeros(6, 1, h, w)
    for n, y, x in product(range(6), range(h), range(w)):
        pixel = torch.tensor([(x + 0.5) * width / w - 0.5, (y + 0.5) * height / h - 0.5, 1.0])
        slope[n, 0, y, x] = 5 * torch.linalg.solve(data.to_pixels[0, n, :, :3], pixel)[2]
    features = layer.layer(features + layer.look(slope))
    depths = torch.arange(*TINY.depths)
    weight, context = features[:, : len(depths)].softmax(1), features[:, len(depths) :]
    want = torch.zeros_like(got)
    for n in range(6):
        matrix = data.to_pixels[0, n].double()
        for d, depth in enumerate(depths.tolist()):
            for y in range(h):
                for x in range(w):
                    pixel = torch.tensor([(x + 0.5) * width / w - 0.5, (y + 0.5) * height / h - 0.5, 1.0]).double()
                    place = torch.linalg.solve(matrix[:, :3], depth * pixel - matrix[:, 3])
                    col, row = GRID.cells(place[:2]).floor().long().tolist()
                    if 0 <= col < GRID.width and 0 <= row < GRID.height and -5 <= place[2] <= 3:
                        want[0, :, row, col] += weight[n, d, y, x] * context[n, :, y, x]
    assert (want != 0).any() and relative_error(got, want) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_geometry_in_float32(dtype):
    """Rounded matrices would put a pixel metres away."""
    torch.manual_seed(0)
    layer, data = LiftSplat(GRID, 3, depths=TINY.depths, width=0.125).eval(), batch()
    pixels = _pixels(data.pictures.shape[3:], torch.Size([4, 8]), data.pictures.device)
    exact, whole = layer._geometry(data.to_pixels, pixels), layer(data.pictures, data.to_pixels)
    with torch.autocast("cpu", dtype):
        rounded, half = layer._geometry(data.to_pixels, pixels), layer(data.pictures, data.to_pixels)
    assert all(map(torch.equal, exact, rounded)) and half.dtype == dtype
    assert relative_error(half.float(), whole) < 0.02


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_part_learns(modality):
    torch.manual_seed(0)
    model = BEVDetector(modality, GRID, low=8, high=16, blocks=0, depths=TINY.depths, width=0.125)
    prediction = model(batch())
    assert prediction.low.shape == (2, 8, 16, 16) and prediction.high.shape == (2, 16, 16, 16)
    assert [x.shape[1] for x in prediction.heatmaps] == [len(task) for task in TASKS]
    sum(detection_losses(prediction, batch(), GRID).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def perfect(data, grid):
    """What a detector would answer that knows the boxes."""
    b = len(data.boxes)
    heat = [torch.full((b, len(task), grid.height, grid.width), -12.0) for task in TASKS]
    numbers = [torch.zeros(b, 10, grid.height, grid.width) for _ in TASKS]
    place = grid.cells(data.boxes[..., :2])
    cell = place.floor().long()
    codes = encode(data.boxes, place - cell - 0.5)
    for i in range(b):
        for m in range(data.boxes.shape[1]):
            if data.valid[i, m]:
                task = next(t for t, names in enumerate(TASKS) if int(data.labels[i, m]) in names)
                x, y = cell[i, m].tolist()
                heat[task][i, TASKS[task].index(int(data.labels[i, m])), y, x] = 12.0
                numbers[task][i, :, y, x] = codes[i, m]
    return BEVPrediction(None, None, heat, numbers)


def test_the_truth_has_no_loss_and_decodes_to_itself():
    data = batch()
    prediction = perfect(data, GRID)
    losses = detection_losses(prediction, data, GRID)
    assert losses["box"] < 1e-5 and losses["heatmap"] < 1e-2
    for (boxes, scores, labels), want, valid, names in zip(
        decode(prediction, GRID), data.boxes, data.valid, data.labels, strict=True
    ):
        assert len(boxes) == 3 and (scores > 0.99).all()
        for box, label in zip(want[valid], names[valid], strict=True):
            nearest = (boxes[:, :2] - box[:2]).norm(dim=1).argmin()
            assert labels[nearest] == label
            assert relative_error(boxes[nearest, :6], box[:6]) < 1e-5
            assert (
                torch.cos(boxes[nearest, 6] - box[6]) > 1 - 1e-6 and (boxes[nearest, 7:] - box[7:]).abs().max() < 1e-5
            )


@pytest.mark.parametrize("place", range(9))
def test_a_box_that_is_not_finite_does_not_count(place):
    data, prediction = batch(1), perfect(batch(1), GRID)
    for numbers in prediction.regressions:
        numbers += 1.0
        numbers.requires_grad_()
    data.boxes[0, 1, place] = torch.nan
    got = detection_losses(prediction, data, GRID)
    sum(got.values()).backward()
    data.valid[0, 1] = False
    assert got == detection_losses(prediction, data, GRID)
    assert all(x.grad.isfinite().all() for x in prediction.regressions)


def test_box_loss_by_hand():
    """A quarter of the mean over a task's boxes; velocities weigh a fifth, and nothing where they are not known."""
    data, prediction = batch(1), perfect(batch(1), GRID)
    for numbers in prediction.regressions:
        numbers += 1.0
    # both cars are of one task: eight numbers each, and the velocity of one of them; the pedestrian has all
    assert detection_losses(prediction, data, GRID)["box"].item() == pytest.approx(
        0.25 * ((8 + 0.4 + 8) / 2 + 8 + 0.4), rel=1e-5
    )


def test_of_close_centres_the_better_stays():
    data = batch(1)
    prediction = perfect(data, BEVGrid(-24, -24, 1.0, 1.0, 48, 48))
    grid = BEVGrid(-24, -24, 1.0, 1.0, 48, 48)
    first = grid.cells(data.boxes[0, 0, :2]).floor().long()
    prediction.heatmaps[0][0, 0, first[1], first[0] + 2] = 10.0  # two metres on: another car
    assert len(decode(prediction, grid)[0][0]) == 4
    prediction.regressions[0][0, 0, first[1], first[0] + 2] = -1.4  # its centre is 1.4 metres back
    boxes, scores, _ = decode(prediction, grid)[0]
    assert len(boxes) == 3 and scores.min() > 0.99999


def test_wrong():
    with pytest.raises(ValueError, match="modality in .*, got 'radar'"):
        BEVDetector("radar", GRID)
    with pytest.raises(ValueError, match="even numbers .* got 15 x 16 cells"):
        BEVDetector("lidar", BEVGrid(0, 0, 1, 1, 15, 16))


def test_config_builds_what_it_says():
    assert sum(p.numel() for p in build_model(TINY).parameters()) < 50000
