"""AdaMixer's sampling and mixing against loops in NumPy, and its positions."""

import numpy as np
import pytest
import torch

from pydistill.recipes.detr.adamixer import AdaMixer, Stage, overlap
from pydistill.recipes.detr.mixing import AdaptiveMixing, mix, sample, sides


def norm(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def bilinear(feature, x, y):
    """``feature`` (c, h, w) at (x, y) in cells, whose centres are at halves; 0 outside."""
    total = np.zeros(len(feature))
    left, top = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    for i, j in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        if 0 <= i < feature.shape[2] and 0 <= j < feature.shape[1]:
            total += (1 - abs(x - 0.5 - i)) * (1 - abs(y - 0.5 - j)) * feature[:, j, i]
    return total


def restated(module, content, position, features, strides):
    """What one query of one picture adds to its state, as the paper has it: groups, points, levels in loops."""
    weight = {n: p.detach().numpy() for n, p in module.named_parameters()}
    c, points = module.width, module.points
    offsets = (weight["offsets.weight"] @ content + weight["offsets.bias"]).reshape(module.groups, points, 3)
    matrices = (weight["matrices.weight"] @ content + weight["matrices.bias"]).reshape(module.groups, -1)
    x, y, z, r = position
    found = []
    for g in range(module.groups):
        sampled = np.zeros((points, c))
        for p, (dx, dy, dz) in enumerate(offsets[g]):
            u, v, scale = x + dx * 2 ** (z - r), y + dy * 2 ** (z + r), z + dz
            shares = np.exp([-((scale - np.log2(s)) ** 2) / 2 for s in strides])
            for share, feature, s in zip(shares / shares.sum(), features, strides):
                sampled[p] += share * bilinear(feature[g * c : (g + 1) * c], u / s, v / s)
        channel, spatial = matrices[g, : c * c].reshape(c, c), matrices[g, c * c :].reshape(4 * points, points)
        found.append(np.maximum(norm(spatial @ np.maximum(norm(sampled @ channel), 0)), 0).ravel())
    return weight["out.weight"] @ np.concatenate(found) + weight["out.bias"]


def test_mixing():
    """Queries inside, across the border and outside of the picture, of levels whose sizes do not halve."""
    torch.manual_seed(0)
    module = AdaptiveMixing(6, groups=2, points=3).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    strides, shapes = (4, 8), ((5, 7), (3, 4))
    features = [torch.randn(2, 6, h, w).double() for h, w in shapes]
    content = torch.randn(2, 3, 6).double()
    position = torch.tensor([[14.0, 9.0, 3.0, 0.5], [1.0, 19.0, 4.0, -1.0], [60.0, -30.0, 2.0, 0.0]]).double()
    position = position.expand(2, -1, -1) + torch.randn(2, 3, 4).double() / 4
    ours = module(content, position, features, strides)
    theirs = np.stack(
        [
            [restated(module, content[b, q].numpy(), position[b, q].numpy(), [f[b].numpy() for f in features], strides)
             for q in range(3)]
            for b in range(2)
        ]
    )  # fmt: skip
    assert np.abs(ours.detach().numpy() - theirs).max() < 1e-12 * np.abs(theirs).max()


def test_gradients():
    """In features, points and matrices, against finite differences."""
    torch.manual_seed(0)
    features = [torch.randn(1, 4, 3, 4).double().requires_grad_(), torch.randn(1, 4, 2, 2).double().requires_grad_()]
    points = (torch.rand(1, 2, 2, 3, 3).double() * torch.tensor([30.0, 22, 3])).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, *f: sample(f, (8, 16), p), (points, *features))
    arguments = [torch.randn(2, *shape).double().requires_grad_() for shape in ((3, 2), (2, 2), (4, 3))]
    assert torch.autograd.gradcheck(mix, arguments)


def test_scale():
    """A point of a level's own scale sees it, and its neighbours less; one far above sees the coarsest."""
    levels = [torch.full((1, 1, 8 // 2**i, 8 // 2**i), float(i)) for i in range(3)]
    points = torch.tensor([[32.0, 32.0, 3.0], [32.0, 32.0, 4.0], [32.0, 32.0, 20.0]])[None, None, None]
    weights = np.exp(-(np.subtract.outer([3, 4, 20], [3, 4, 5]) ** 2) / 2)
    expected = (weights * [0, 1, 2]).sum(1) / weights.sum(1)
    assert np.abs(sample(levels, (8, 16, 32), points).flatten().numpy() - expected).max() < 1e-6


def test_positions():
    """Sides of 2^(z -+ r), and the share of each box that the others cover."""
    position = torch.tensor(
        [[[8.0, 8.0, 3.0, 1.0], [8.0, 8.0, 3.0, -1.0], [10.0, 8.0, 3.0, 1.0], [90.0, 8.0, 3.0, 1.0]]]
    )
    assert sides(position)[0].tolist() == [[4.0, 16.0], [16.0, 4.0], [4.0, 16.0], [4.0, 16.0]]
    expected = [[1, 0.25, 0.5, 0], [0.25, 1, 0.25, 0], [0.5, 0.25, 1, 0], [0, 0, 0, 1]]
    assert overlap(position)[0].tolist() == expected


def test_starts_as_the_whole_picture():
    """Before it has learned anything, every stage says the whole picture, whatever its shape."""
    from pydistill.recipes.detr.models import build

    torch.manual_seed(0)
    model = build("adamixer", 3, channels=32, width=0.125).eval()
    assert isinstance(model, AdaMixer) and isinstance(model.layers[0], Stage)
    with torch.no_grad():
        boxes = model(torch.randn(1, 3, 64, 160)).prediction.boxes
    assert (boxes - torch.tensor([0.5, 0.5, 1, 1])).abs().max() < 1e-6


def test_errors():
    from pydistill.recipes.detr.models import build

    with pytest.raises(ValueError, match=r"AdaMixer: expected pictures of shape \(B, 3, H, W\), got \[3, 64, 64\]"):
        build("adamixer", 3)(torch.zeros(3, 64, 64))
