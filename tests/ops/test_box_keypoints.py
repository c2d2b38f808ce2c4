import numpy as np
import pytest
import torch

from pydistill.ops import BEVGrid, box_keypoints
from pydistill.ops.box_keypoints import box_keypoints_reference
from tests.conformance import Case, Conformance, relative_error
from tests.ops.bev import GOLDEN, OFFICIAL, POINTS, RECT, SMALL, array, golden_boxes, random_boxes


def boxes(b, m):
    return lambda rng: list(random_boxes(rng, b, m, SMALL)[:1])


def on_grid(fn):
    return lambda boxes, **kwargs: fn(boxes, SMALL, **kwargs)


class TestBoxKeypoints(Conformance):
    fn, reference = on_grid(box_keypoints), on_grid(box_keypoints_reference)
    cases = {
        "nine": Case(boxes(2, 6)),
        "grid": Case(boxes(2, 6), dict(layout=(3, 5))),
        "one": Case(boxes(1, 1), dict(layout=(1, 1))),
    }
    empty = Case(boxes(0, 6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_golden(dtype):
    got = box_keypoints(array(POINTS["official_boxes"], dtype)[None], OFFICIAL)[0]
    assert got.dtype == dtype
    assert (got - torch.tensor(POINTS["official_nine_cells"])).abs().max() < 3e-5
    for case, grid in (*((case, SMALL) for case in GOLDEN), ("rect", RECT)):
        boxes, _ = golden_boxes(case, dtype)
        got = box_keypoints(boxes, grid)
        want = POINTS[f"{case}_grid"]  # v, u as shares of the sides, from -1 to 1
        sides = np.array([grid.width, grid.height]) / 2
        assert got.shape == want.shape and (np.abs(got.numpy() - (want[..., ::-1] + 1) * sides) < 3e-5).all()
        assert got.shape[1] == 0 or (got[:, :, :4] - torch.tensor(POINTS[f"{case}_corners_cells"])).abs().max() < 3e-5


def test_grids_of_points():
    boxes = torch.tensor([[[1.0, 2.0, 0, 4.0, 2.0, 1.0, 0.3]]], dtype=torch.float64)
    grid = BEVGrid(0, 0, 1, 1, 9, 9)
    nine = box_keypoints(boxes, grid)
    three = box_keypoints(boxes, grid, layout=(3, 3))[0, 0].view(3, 3, 2)
    order = [(0, 0), (0, 2), (2, 2), (2, 0), (1, 1), (0, 1), (1, 2), (2, 1), (1, 0)]
    assert relative_error(torch.stack([three[at] for at in order]), nine[0, 0]) < 1e-15
    assert box_keypoints(boxes, grid, layout=(16, 16)).shape == (1, 1, 256, 2)
    assert torch.equal(box_keypoints(boxes, grid, layout=(1, 1))[0, 0, 0], boxes[0, 0, :2])


def test_yaw_turns_counter_clockwise():
    box = torch.tensor([[[0.0, 0, 0, 2, 1, 1, torch.pi / 2]]])
    front = box_keypoints(box, BEVGrid(0, 0, 1, 1, 1, 1))[0, 0, 7]
    assert (front - torch.tensor([0.0, 1.0])).abs().max() < 1e-6


def test_half_boxes_and_no_boxes():
    assert box_keypoints(torch.zeros(2, 3, 9, dtype=torch.float16), SMALL).dtype == torch.float32
    assert box_keypoints(torch.zeros(0, 3, 9), SMALL).shape == (0, 3, 9, 2)
    assert box_keypoints(torch.zeros(2, 0, 9), SMALL).shape == (2, 0, 9, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: box_keypoints(torch.zeros(2, 7), SMALL), ValueError, r"\(B, M, 7 or more\), got \[2, 7\]"),
        (lambda: box_keypoints(torch.zeros(1, 2, 6), SMALL), ValueError, r"got \[1, 2, 6\]"),
        (lambda: box_keypoints(torch.zeros(1, 2, 7).int(), SMALL), TypeError, "floating point dtype, got torch.int32"),
        (lambda: box_keypoints(torch.zeros(1, 2, 7), (4, 5)), TypeError, "expected grid as a BEVGrid, got tuple"),
        (lambda: box_keypoints(torch.zeros(1, 2, 7), SMALL, layout=(0, 2)), ValueError, r"got \(0, 2\)"),
        (lambda: box_keypoints(torch.zeros(1, 2, 7), SMALL, layout="ten"), ValueError, "got 'ten'"),
        (lambda: BEVGrid(0, 0, 0, 1, 2, 2), ValueError, "cell_x and cell_y > 0, got 0 and 1"),
        (lambda: BEVGrid(0, float("nan"), 1, 1, 2, 2), ValueError, "finite y_min, got nan"),
        (lambda: BEVGrid(0, 0, 1, 1, 0, 2), ValueError, "height and width >= 1, got 0 and 2"),
    ],
)
def test_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
