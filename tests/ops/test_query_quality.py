import numpy as np
import pytest
import torch

from pydistill.ops import query_quality
from pydistill.ops.query_quality import query_quality_reference
from tests.conformance import relative_error
from tests.golden import golden

Z = golden("detr_distill")


def centred(corners):
    return torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)


def golden_inputs():
    """Predictions of three stages, the boxes of two images over the picture, and the size of those."""
    sizes, targets = torch.tensor(Z["dd_img_hw"]), torch.zeros(2, 5, 4, dtype=torch.float64)
    for b in range(2):
        corners = torch.tensor(Z[f"dd_gt_boxes_{b}"])
        targets[b, : len(corners)] = centred(corners / sizes[b].flip(0).repeat(2))
    return torch.tensor(Z["tf_cls_logits"]), torch.tensor(Z["tf_boxes"]), targets, torch.tensor([5, 3]), sizes


@pytest.mark.parametrize("fn", [query_quality, query_quality_reference])
def test_golden(fn):
    """The released code's queries, repeats among them, and their scores; then an image without boxes."""
    logits, boxes, targets, counts, sizes = golden_inputs()
    for options in ({}, dict(image_sizes=sizes)):
        got = fn(logits, boxes, targets, counts, form="released", topk=10, **options)
        assert np.array_equal(got.index, Z["tf_query_index"])
        assert relative_error(got.quality, torch.tensor(Z["tf_scores"])) < 1e-12
    got = fn(logits, boxes, targets, torch.tensor([5, 0]), form="released", topk=10)
    assert relative_error(got.quality, torch.tensor(Z["tf_scores_emptygt"])) < 1e-12


def test_released_is_the_square_of_the_paper_at_a_half():
    logits, boxes, targets, counts, _ = golden_inputs()
    logits = logits[..., :1]  # of one class the K best are the same queries
    paper = query_quality(logits, boxes, targets, counts, topk=10)
    released = query_quality(logits, boxes, targets, counts, topk=10, form="released")
    assert torch.equal(paper.index, released.index)
    assert relative_error(paper.quality.square(), released.quality) < 1e-12
