"""Scores a detector by queries on a data set."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pydistill.losses.detr import SetPrediction
from pydistill.recipes.dense.data import DenseData, Inputs
from pydistill.recipes.dense.evaluation import Evaluation
from pydistill.recipes.dense.evaluation import evaluate as evaluate_boxes
from pydistill.recipes.dense.metric import Detections
from pydistill.recipes.detr.lending import DetrOutput, Queries

TOP = 100  # boxes of a picture that COCO's metric counts


class Boxes(nn.Module):
    """What a detector finds, as plain tensors: Lightning's Fabric takes no output of frozen dataclasses.

    Args:
        network: as ``build_model`` makes it; it keeps its mode.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, pictures: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``decode`` of normalised pictures (B, 3, H, W), of which ``sizes`` (B, 2) are no padding."""
        prediction = self.network(pictures).prediction
        return decode(prediction, sizes, pictures.shape[2:], softmax=bool(self.network.softmax))


def evaluate(
    student: nn.Module, data: DenseData, indices: Sequence[int] | None = None, *, batch: int = 32
) -> Evaluation:
    """Scores a detector, or ``Boxes`` of one, on some pictures of ``data``, or on all, by COCO's average precision."""
    return evaluate_boxes(student, data, indices, batch=batch, finder=find)


@torch.no_grad()
def find(student: nn.Module, inputs: Inputs) -> list[Detections]:
    """What ``student``, a detector or ``Boxes`` of one, finds on each picture in eval mode, in pixels of its file."""
    boxes = Boxes(student) if hasattr(student, "softmax") else student
    training, device = boxes.training, next(boxes.parameters()).device
    boxes.eval()
    rows = boxes(inputs.pictures.to(device, memory_format=torch.channels_last), inputs.sizes.to(device))
    boxes.train(training)
    return [
        Detections((corners / scale).numpy(), scores.numpy(), labels.numpy())
        for corners, scores, labels, scale in zip(*(x.cpu() for x in rows), inputs.scales)
    ]


def decode(
    prediction: SetPrediction, sizes: Tensor, shape: Sequence[int], *, softmax: bool, top: int = TOP
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of the last stage with their scores and labels: the best pairs of query and class, none suppressed.

    Args:
        prediction: of B pictures; with ``softmax`` its last class is "no object".
        sizes: heights and widths (B, 2) of the pictures, without padding, in pixels; boxes are clipped to them.
        shape: height and width of the input, with the padding, which boxes are shares of.
        softmax: whether a query has one class.
        top: pairs of a picture.

    Returns:
        Boxes (B, k, 4), left, top, right, bottom in the network's pixels, scores (B, k) and labels (B, k).
    """
    logits, boxes = prediction.logits[-1].float(), prediction.boxes[-1].float()
    scores = logits.softmax(-1)[..., :-1] if softmax else logits.sigmoid()
    best, place = scores.flatten(1).topk(min(top, scores[0].numel()))
    classes = scores.shape[-1]
    chosen = boxes.gather(1, (place // classes)[..., None].expand(-1, -1, 4))
    corners = torch.cat([chosen[..., :2] - chosen[..., 2:] / 2, chosen[..., :2] + chosen[..., 2:] / 2], -1)
    corners = corners * corners.new_tensor([shape[1], shape[0]]).repeat(2)
    limits = sizes.to(corners).flip(1).repeat(1, 2)[:, None]
    return corners.clamp(min=0).minimum(limits), best, place % classes


@torch.no_grad()
def infer(student: nn.Module, pictures: Tensor, lent: Queries | None = None) -> DetrOutput:
    """What ``student`` says of normalised ``pictures`` in eval mode."""
    training = student.training
    student.eval()
    device = next(student.parameters()).device
    output: DetrOutput = student(pictures.to(device, memory_format=torch.channels_last), lent=lent)
    student.train(training)
    return output
