"""Anchors of a detector, in the released code's convention."""

import pytest
import torch

from pydistill.recipes.dense.anchors import grid_anchors, make_grid, valid_anchors

STRIDES = (8, 16, 32)
SHAPES = ((6, 9), (3, 5), (2, 3))


def test_anchors():
    """Row by row, centred on (x * stride, y * stride), of 8 strides."""
    anchors, sizes = grid_anchors(SHAPES, STRIDES)
    assert sizes == [54, 15, 6] and anchors.dtype == torch.float32
    expected = [
        (x * s - 4 * s, y * s - 4 * s, x * s + 4 * s, y * s + 4 * s)
        for (h, w), s in zip(SHAPES, STRIDES)
        for y in range(h)
        for x in range(w)
    ]
    assert anchors.tolist() == [list(map(float, anchor)) for anchor in expected]
    grid = make_grid(SHAPES, STRIDES)
    assert grid.points.equal((anchors[:, :2] + anchors[:, 2:]) / 2)
    assert grid.strides.tolist() == [8] * 54 + [16] * 15 + [32] * 6


def test_anchors_are_made_once():
    with torch.inference_mode():
        first, _ = grid_anchors(((5, 7),), (8,), 4.0)
    again, _ = grid_anchors([(5, 7)], [8], 4)
    assert again is first and not first.is_inference() and first[0].tolist() == [-16, -16, 16, 16]
    other, _ = grid_anchors(((5, 7),), (8,), 8.0)
    assert other is not first
    with pytest.raises(ValueError, match=r"make_grid: expected a stride for each of 2 levels, got \[8\]"):
        grid_anchors(((5, 7), (3, 4)), (8,))


def test_valid_anchors():
    """A picture of 41 x 60, padded to 64 x 64, in a batch of 96 x 96: 8, 4 and 2 rows and columns hold it."""
    shapes = ((12, 12), (6, 6), (3, 3))
    valid = valid_anchors(shapes, STRIDES, torch.tensor([[41, 60], [96, 96], [41, 70]]))
    assert valid.shape == (3, 144 + 36 + 9) and valid[1].all()
    for level, (first, n) in zip(valid[0].split([144, 36, 9]), ((8, 12), (4, 6), (2, 3))):
        assert level.view(n, n)[:first, :first].all() and level.sum() == first**2
    assert valid[2].sum() == 8 * 12 + 4 * 6 + 2 * 3
    assert valid_anchors(shapes, STRIDES, torch.tensor([[41, 60]]), divisor=1).sum() == 6 * 8 + 3 * 4 + 2 * 2
