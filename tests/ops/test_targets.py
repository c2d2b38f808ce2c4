import pytest
import torch

from pydistill.ops import pack_targets


def test_boxes_and_labels():
    boxes = [torch.rand(2, 4), torch.rand(0, 4), torch.rand(3, 4)]
    packed, counts = pack_targets(boxes)
    assert packed.shape == (3, 3, 4) and counts.tolist() == [2, 0, 3] and counts.dtype == torch.int64
    for row, box in zip(packed, boxes):
        assert torch.equal(row[: len(box)], box) and (row[len(box) :] == 0).all()
    labels, counts = pack_targets([torch.tensor([4, 5]), torch.tensor([], dtype=torch.int64)], max_targets=5)
    assert labels.tolist() == [[4, 5, 0, 0, 0], [0] * 5] and labels.dtype == torch.int64 and counts.tolist() == [2, 0]


def test_no_targets_at_all():
    packed, counts = pack_targets([torch.empty(0, 4), torch.empty(0, 4)])
    assert packed.shape == (2, 0, 4) and counts.tolist() == [0, 0]


def test_gradient_goes_back_to_each_image():
    images = [torch.rand(2, 4, requires_grad=True), torch.rand(0, 4), torch.rand(1, 4, requires_grad=True)]
    packed, _ = pack_targets(images, 3)
    weight = torch.arange(36.0).reshape(3, 3, 4)
    (packed * weight).sum().backward()
    assert torch.equal(images[0].grad, weight[0, :2]) and torch.equal(images[2].grad, weight[2, :1])


@pytest.mark.parametrize(
    "targets, most, error, message",
    [
        ([], None, ValueError, "pack_targets: expected at least one image, got none"),
        ([torch.rand(3, 4)], 2, ValueError, "expected at most 2 targets per image, got 3"),
        ([torch.rand(3, 4), torch.rand(3, 5)], None, ValueError, r"expected targets of shape \(n, 4\), got \[3, 5\]"),
        ([torch.rand(())], None, ValueError, r"expected targets of shape \(n, ...\), got \[\]"),
        ([torch.rand(1), torch.ones(1).long()], None, TypeError, "of dtype torch.float32, got torch.int64"),
        (torch.rand(3, 4), None, TypeError, "pack_targets: expected a sequence of tensors, got Tensor"),
        ([torch.rand(3, 4), 2], None, TypeError, "expected a sequence of tensors, got list of Tensor, int"),
    ],
)
def test_wrong_targets(targets, most, error, message):
    with pytest.raises(error, match=message):
        pack_targets(targets, most)
