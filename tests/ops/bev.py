"""Maps, boxes and the golden cases of the tests in bird's-eye view."""

import torch

from pydistill.ops import BEVGrid, box_keypoints
from tests.golden import golden

INPUTS, POINTS = golden("unidistill_inputs"), golden("unidistill_points")
SMALL, RECT, OFFICIAL = (
    BEVGrid(-9.6, -9.6, 0.6, 0.6, 32, 32),
    BEVGrid(-12, -7.2, 0.6, 0.6, 24, 40),
    BEVGrid(-54, -54, 0.6, 0.6, 180, 180),
)
GRID = BEVGrid(-4, -3, 0.5, 0.5, 11, 17)
GOLDEN = ("n5_5", "n5_1", "n1_1", "n5_0", "n0_0")
LAST = torch.channels_last


def array(values, dtype):
    return torch.tensor(values).to(dtype) if values.dtype.kind == "f" else torch.tensor(values)


def golden_boxes(case, dtype=torch.float64):
    return array(INPUTS[f"boxes_{case}"], dtype), torch.tensor(POINTS[f"{case}_valid"])


def random_boxes(rng, b, m, grid):
    """Some of them partly or wholly off the map; the last of each image is not valid."""
    sides = torch.tensor([grid.width * grid.cell_x, grid.height * grid.cell_y], dtype=torch.float64)
    unit = torch.rand(b, m, 7, generator=rng, dtype=torch.float64)
    centre = torch.tensor([grid.x_min, grid.y_min], dtype=torch.float64) + (1.2 * unit[..., :2] - 0.1) * sides
    boxes = torch.cat([centre, unit[..., 2:3], 0.5 + 4 * unit[..., 3:6], 6.3 * unit[..., 6:]], -1)
    valid = torch.ones(b, m, dtype=torch.bool)
    valid[:, -1:] = m < 2
    return boxes, valid


def maps(b, c, m, grid=GRID, *, layout="nine", last=False, normalizer=None, size=None):
    """Student, teacher, key points, which boxes are valid and, where it is given, what normalises.

    The maps have the grid's size or another.
    """

    def make(rng):
        boxes, valid = random_boxes(rng, b, m, grid)
        h, w = size or (grid.height, grid.width)
        made = [torch.randn(b, c, h, w, generator=rng, dtype=torch.float64) for _ in range(2)]
        made = [x.contiguous(memory_format=LAST) if last else x for x in made]
        made += [box_keypoints(boxes, grid, layout=layout), valid]
        return made if normalizer is None else [*made, torch.tensor(normalizer, dtype=torch.float64)]

    return make


def by(fn):
    """``fn`` with what normalises by position."""

    def call(student, teacher, keypoints, valid, normalizer=None, **kwargs):
        return fn(student, teacher, keypoints, valid, **{"normalizer": normalizer, **kwargs})

    return call


S = torch.randn(2, 3, 4, 5)
K, V = torch.rand(2, 6, 9, 2), torch.ones(2, 6, dtype=torch.bool)


def wrong(fn):
    """The mistakes that both losses at key points refuse."""
    return {
        "rank": (lambda: fn(S[0], S[0], K, V), ValueError, r"\(B, C, H, W\), got \[3, 4, 5\]"),
        "maps": (
            lambda: fn(S, torch.randn(2, 8, 4, 5), K, V),
            ValueError,
            r"of one shape, got \[2, 3, 4, 5\] and \[2, 8, 4, 5\]",
        ),
        "sizes": (lambda: fn(S, S[..., :4], K, V), ValueError, r"got \[2, 3, 4, 5\] and \[2, 3, 4, 4\]"),
        "points": (lambda: fn(S, S, K[:1], V), ValueError, r"keypoints of shape \(2, M, K, 2\).*got \[1, 6, 9, 2\]"),
        "many": (lambda: fn(S, S, torch.zeros(2, 6, 1025, 2), V), ValueError, "at most 1024 points"),
        "valid": (lambda: fn(S, S, K, V[:, :5]), ValueError, r"valid of shape \[2, 6\], got \[2, 5\]"),
        "valid-dtype": (lambda: fn(S, S, K, V.long()), TypeError, "valid of dtype bool, got torch.int64"),
        "dtype": (lambda: fn(S.int(), S, K, V), TypeError, "student of a floating point dtype"),
        "points-dtype": (lambda: fn(S, S, K.long(), V), TypeError, "keypoints of a floating point dtype"),
        "norm": (lambda: fn(S, S, K, V, norm=3), ValueError, "norm 1 or 2, got 3"),
        "normalizer": (lambda: fn(S, S, K, V, normalizer=torch.ones(2)), ValueError, r"one element, got \[2\]"),
        "eps": (lambda: fn(S, S, K, V, eps=-1.0), ValueError, "eps >= 0, got -1.0"),
    }
