"""Detections against a plain statement of decoding and suppression."""

import numpy as np
import pytest
import torch

from pydistill.recipes.dense.decode import detect
from pydistill.recipes.dense.network import DenseOutput

STRIDES = (8, 16, 32)
SHAPES = ((6, 9), (3, 5), (2, 3))
SIZES = torch.tensor([[48, 72], [41, 60], [48, 72]])
CLASSES, BINS = 3, 17


def _random(seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    logits = [torch.randn(3, CLASSES, h, w, generator=g) * 2 - 1 for h, w in SHAPES]
    near = (-0.6 * torch.arange(BINS)).repeat(4)[:, None, None]  # boxes of a few strides
    sides = [torch.randn(3, 4 * BINS, h, w, generator=g) * 1.5 + near for h, w in SHAPES]
    return DenseOutput([x.to(dtype) for x in logits], [x.to(dtype) for x in sides], [])


def _overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def _plain(output, image, size, score, iou, top, per_level):
    """The same in float64, one location, one class and one box at a time."""
    found = []
    for logits, sides, s in zip(output.logits, output.sides, STRIDES):
        logits, sides = (x[image].double().numpy() for x in (logits, sides))
        level = []
        for c, y, x in np.ndindex(*logits.shape):
            z = np.exp(sides[:, y, x].reshape(4, BINS))
            left, up, right, down = (z / z.sum(1, keepdims=True)) @ np.arange(BINS) * s
            box = np.clip([x * s - left, y * s - up, x * s + right, y * s + down], 0, [*size[::-1], *size[::-1]])
            level.append((1 / (1 + np.exp(-logits[c, y, x])), c, box))
        found += sorted(level, key=lambda item: -item[0])[:per_level]
    kept = []
    for p, c, box in sorted(found, key=lambda item: -item[0]):
        if p > score and (box[2:] > box[:2]).all() and all(k != c or _overlap(box, b) <= iou for _, k, b in kept):
            kept.append((p, c, box))
    return kept[:top]


@pytest.mark.parametrize(
    "boxes, options",
    [
        (409, {"score": 0.05, "iou": 0.6, "top": 500, "per_level": 1000}),
        (26, {"score": 0.05, "iou": 0.9, "top": 100, "per_level": 3}),
        (36, {"score": 0.3, "iou": 0.3, "top": 12, "per_level": 20}),
    ],
)
def test_detections_are_those_of_the_plain_statement(boxes, options):
    output = _random(0)
    found_in_all = 0
    for i, found in enumerate(detect(output, SIZES, STRIDES, **options)):
        expected = _plain(output, i, SIZES[i].tolist(), **options)
        found_in_all += len(expected)
        assert found.labels.tolist() == [c for _, c, _ in expected]
        np.testing.assert_allclose(found.scores, [p for p, _, _ in expected], rtol=1e-5)
        np.testing.assert_allclose(found.boxes, [b for _, _, b in expected], rtol=1e-4, atol=1e-4)
    assert found_in_all == boxes


def test_half_precision_and_strides():
    """Bfloat16 output in channels-last memory: the same as its values in float32."""
    half = _random(1, torch.bfloat16)
    last = DenseOutput(*([x.contiguous(memory_format=torch.channels_last) for x in xs] for xs in half[:2]), [])
    wide = DenseOutput(*([x.float() for x in xs] for xs in half[:2]), [])
    for a, b in zip(detect(last, SIZES, STRIDES), detect(wide, SIZES, STRIDES)):
        assert a.labels.tolist() == b.labels.tolist() and a.boxes.dtype == np.float32 and len(a.labels) > 5
        np.testing.assert_allclose(a.boxes, b.boxes, rtol=1e-5)


def test_nothing_found_and_not_finite():
    output = _random(2)
    for logits in output.logits:
        logits[0] = -20  # nothing
    output.logits[0][1, :, 2, 3] = torch.nan
    output.sides[0][2, 5, 2, 3] = torch.nan
    found = detect(output, SIZES, STRIDES)
    assert found[0].boxes.shape == (0, 4) and found[0].scores.shape == found[0].labels.shape == (0,)
    assert all(
        len(one.labels) > 5 and np.isfinite(one.boxes).all() and np.isfinite(one.scores).all() for one in found[1:]
    )


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"detect: expected sizes of shape \[3, 2\], got \[2, 2\]"):
        detect(_random(0), SIZES[:2], STRIDES)
    with pytest.raises(ValueError, match="make_grid: expected a stride for each of 3 levels"):
        detect(_random(0), SIZES, (8, 16))
