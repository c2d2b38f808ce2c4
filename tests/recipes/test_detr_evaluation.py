"""From queries to boxes in a picture's own pixels."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pydistill.losses.detr import SetPrediction
from pydistill.recipes.dense.data import Inputs
from pydistill.recipes.detr.evaluation import decode, find


def logit(p):
    return math.log(p / (1 - p))


def test_decode():
    """Two classes, three queries: one gives both of its classes; a box is cut at the picture, not at the padding."""
    logits = torch.tensor([[logit(0.9), logit(0.8)], [logit(0.1), logit(0.7)], [logit(0.05), logit(0.2)]])
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.25], [0.9, 0.1, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0]])
    prediction = SetPrediction(torch.stack([-logits, logits])[:, None], torch.stack([boxes / 2, boxes])[:, None])
    sizes = torch.tensor([[48, 60]])
    found, scores, labels = decode(prediction, sizes, (64, 80), softmax=False, top=4)
    assert scores[0].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.2]) and labels.tolist() == [[0, 1, 1, 1]]
    expected = [[20, 24, 60, 40], [20, 24, 60, 40], [56, 0, 60, 19.2], [0, 0, 60, 48]]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5, atol=1e-4)


def test_softmax_detectors_have_a_class_of_nothing():
    logits = torch.tensor([[0.0, 1.0, 5.0], [2.0, 0.0, 0.0]])
    prediction = SetPrediction(logits[None, None], torch.full((1, 1, 2, 4), 0.5))
    _, scores, labels = decode(prediction, torch.tensor([[64, 64]]), (64, 64), softmax=True, top=1)
    assert labels.tolist() == [[0]] and float(scores) == pytest.approx(math.exp(2) / (math.exp(2) + 2), rel=1e-5)


def test_boxes_are_in_pixels_of_the_file():
    class Fixed(torch.nn.Module):
        softmax = False

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pictures, lent=None):
            boxes = torch.tensor([0.25, 0.25, 0.5, 0.5]).expand(1, 2, 1, 4)
            return SimpleNamespace(prediction=SetPrediction(torch.zeros(1, 2, 1, 1), boxes))

    inputs = Inputs(torch.zeros(2, 3, 64, 64), torch.tensor([0.5, 2.0]), torch.tensor([[64, 64], [16, 64]]))
    found = find(Fixed().train(), inputs)
    np.testing.assert_allclose(found[0].boxes, [[0, 0, 64, 64]])
    np.testing.assert_allclose(found[1].boxes, [[0, 0, 16, 8]])
    assert found[0].scores.tolist() == [0.5] and found[1].labels.tolist() == [0]
