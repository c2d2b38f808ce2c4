"""The task objective of lane detection."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill.losses.options import Loss, check_not_negative, printed
from pydistill.losses.sad import Reference
from pydistill.ops import _check
from pydistill.ops._register import accumulator
from pydistill.ops.soft_iou_loss import check_options, soft_iou_loss

Normalizer = Literal["weights", "pixels"]

_NORMALIZERS = ("weights", "pixels")
_IGNORED = -1  # among the classes


@dataclass(frozen=True)
class _Objective:
    """What one source does. Where it treats a single channel apart, that is the second of two values."""

    background_weight: tuple[float, float]
    normalizer: Normalizer
    iou_form: tuple[str, str]
    alpha: float
    beta: float


_REFERENCES = {
    "paper": _Objective((0.4, 0.4), "weights", ("lanes", "binary"), 0.1, 0.1),
    "port": _Objective((0.4, 1.0), "weights", ("port", "port"), 0.1, 0.1),
    "tensorflow": _Objective((1.0, 1.0), "pixels", ("lanes", "binary"), 0.0, 0.0),
}


class LaneLoss(Loss):
    r"""Where the lanes are, how well each is covered, and which exist: the objective that SAD is added to.

    .. math:: L = L_{seg} + \alpha L_{iou} + \beta L_{exist}

    .. math:: L_{seg} = \frac{1}{Z} \sum_i -w_{y_i} \log p_{i y_i}, \qquad
              L_{exist} = \frac{1}{NK'} \sum_{nk} \mathrm{BCE}\big(\sigma(e_{nk}), t_{nk}\big)

    with sums over the pixels that are not ignored, p the softmax over the classes, w the weight of the background or 1,
    :math:`Z = \sum_i w_{y_i}` or their number, and :math:`L_{iou}` of ``pydistill.ops.soft_iou_loss``. Segmentation of
    a single channel takes a sigmoid, and its labels are 0 and 1.

    Where the sources disagree:

    - Z is the sum of the weights in the PyTorch codes and in the released Lua code, the number of pixels in the
      authors' SCNN-Tensorflow (``segmentation_normalizer="pixels", alpha=0``), whose values are smaller by the
      factor :math:`\sum_i w_{y_i} / NHW`.
    - The paper's IoU is quoted with the predicted pixels as numerator, probably a misprint for the overlap
      (``iou_form="paper_literal"``). The port measures class 1 alone by an indexing slip, and its first version left
      the background out of the softmax (``"port0"``). A lane that is absent is the constant 1 in both, and not counted
      here (``iou_absent``). The Lua and the TensorFlow code have no IoU: "only marginal gains", says the paper's author
      (cardwing/Codes-for-Lane-Detection issue 108).
    - One channel (BDD100K): the port neither weighs nor, its softmax being 1, learns from the IoU; the Lua code has two
      classes, weights 0.4 and 1, and no existence (``beta=0``).
    - The existence loss of the authors' ERFNet code passes through a sigmoid twice, so that it cannot fall below 0.313
      for a lane and 0.693 for none. Give ``existence.sigmoid()`` as logits to reproduce it.
    - Without SAD the port leaves out the IoU too (``alpha=0``). On several GPUs it adds the losses of all of them.
    - The paper's alpha, beta and gamma are not known. The port has 0.1 for each, the authors' codes 0.1 for the
      existence. The Lua code for TuSimple has six lanes, so seven classes.

    Args:
        reference: where paper and codes disagree. "paper"; "port" (InhwanBae/ENet-SAD_Pytorch): the IoU of class 1
            alone, a single channel without the weight of the background; "tensorflow"
            (prithviramg/ENET-SAD-LaneDetection): the segmentation alone, without weights.
        alpha, beta: weights of the IoU and of the existence; None: 0.1 as in the port, as the paper's values are not
            known, and 0 in "tensorflow". A term of weight 0 is not computed.
        background_weight: of class 0 in the segmentation; None: 0.4.
        segmentation_normalizer: Z, "weights" for the sum of the weights, as in the port and the released Lua code, or
            "pixels" for the number of the pixels, as in the authors' SCNN-Tensorflow.
        iou_form, iou_absent: ``form`` and ``absent`` of ``pydistill.ops.soft_iou_loss``; None: "lanes", "binary" for a
            single channel, and "port" in the port.
        ignore_index: pixels of this label count nowhere. Where all are ignored both losses and their gradients are 0.

    Raises:
        ValueError: for an option outside the above.

    Reference:
        Hou et al., ICCV 2019, arXiv:1908.00821, section 3; cardwing/Codes-for-Lane-Detection for the authors' codes.
    """

    @printed("reference")
    def __init__(
        self,
        *,
        reference: Reference = "paper",
        alpha: float | None = None,
        beta: float | None = None,
        background_weight: float | None = None,
        segmentation_normalizer: Normalizer | None = None,
        iou_form: str | None = None,
        iou_absent: str | None = None,
        ignore_index: int = 255,
    ):
        super().__init__()
        if reference not in _REFERENCES:
            raise ValueError(f"LaneLoss: expected reference in {tuple(_REFERENCES)}, got {reference!r}")
        objective = _REFERENCES[reference]
        self.alpha = objective.alpha if alpha is None else alpha
        self.beta = objective.beta if beta is None else beta
        self.background_weight = objective.background_weight if background_weight is None else (background_weight,) * 2
        self.normalizer = objective.normalizer if segmentation_normalizer is None else segmentation_normalizer
        self.iou_form = objective.iou_form if iou_form is None else (iou_form,) * 2
        self.iou_absent, self.ignore_index = iou_absent, ignore_index
        least = min(self.background_weight)
        check_not_negative("LaneLoss", dict(alpha=self.alpha, beta=self.beta, background_weight=least))
        check_options("LaneLoss", self.iou_form[0], iou_absent, prefix="iou_")
        if self.normalizer not in _NORMALIZERS:
            raise ValueError(f"LaneLoss: expected segmentation_normalizer in {_NORMALIZERS}, got {self.normalizer!r}")

    def forward(
        self, segmentation: Tensor, existence: Tensor | None, labels: Tensor, existence_labels: Tensor | None
    ) -> dict[str, Tensor]:
        """The weighted terms.

        Args:
            segmentation: (N, K, H, W) logits, class 0 the background; K = 1: of being a lane. float64, float32, float16
                or bfloat16.
            existence: (N, K') logits, before any sigmoid; None where ``beta`` is 0.
            labels: (N, H, W), integers in [0, K), {0, 1} where K = 1, or ``ignore_index``. Any other label is
                background.
            existence_labels: (N, K'), 0 or 1; None where ``beta`` is 0.

        Returns:
            ``{"segmentation": ..., "iou": ..., "existence": ...}``: 0-dim losses, float64 for float64 logits, else
            float32, whose sum is the objective. Terms of weight 0 are absent.

        Raises:
            ValueError: for shapes other than the above, under ``pydistill.checking`` also for other labels.
        """
        single, labels = _check_shapes(segmentation, labels) == 1, labels.long()
        if _check.enabled(segmentation, labels):
            classes = 2 if single else segmentation.shape[1]
            _check.labels("LaneLoss", labels.masked_fill(labels == self.ignore_index, 0), classes)
        losses = {"segmentation": self._segmentation(segmentation, labels, self.background_weight[single])}
        if self.alpha:
            losses["iou"] = self.alpha * soft_iou_loss(
                segmentation,
                labels,
                form=self.iou_form[single],
                absent=self.iou_absent,
                ignore_index=self.ignore_index,
            )
        if self.beta:
            losses["existence"] = self.beta * _existence(existence, existence_labels)
        return losses

    def _segmentation(self, logits: Tensor, labels: Tensor, background_weight: float) -> Tensor:
        z = logits.to(accumulator(logits.dtype))
        used = labels != self.ignore_index
        lane = (labels > 0) & (labels < max(z.shape[1], 2)) & used
        background = lane.logical_not() & used  # whatever else the label is
        # torch's own sums of these losses have no fixed order on a GPU
        if z.shape[1] == 1:
            weights = lane + background_weight * background.to(z.dtype)
            rows = F.binary_cross_entropy_with_logits(z[:, 0], lane.to(z.dtype), weights, reduction="none")
        else:
            of_class = z.new_ones(z.shape[1])
            of_class.narrow(0, 0, 1).fill_(background_weight)
            classes = (labels * lane).masked_fill_(used.logical_not(), _IGNORED)
            rows = F.cross_entropy(z, classes, of_class, ignore_index=_IGNORED, reduction="none")
        if self.normalizer == "weights":
            total = _count(lane, z.dtype) + background_weight * _count(background, z.dtype)
        else:
            total = _count(used, z.dtype)
        return rows.sum() / total.masked_fill(total == 0, 1)


def _count(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.count_nonzero(mask).to(dtype)


def _existence(logits: Tensor | None, labels: Tensor | None) -> Tensor:
    if logits is None or labels is None:
        raise ValueError("LaneLoss: expected existence and its labels, got None; beta=0 leaves the term out")
    if logits.ndim != 2 or logits.shape != labels.shape:
        shapes = f"{list(logits.shape)} and {list(labels.shape)}"
        raise ValueError(f"LaneLoss: expected existence and its labels of shape (N, K'), got {shapes}")
    z = logits.to(accumulator(logits.dtype))
    return F.binary_cross_entropy_with_logits(z, labels.to(z.dtype), reduction="sum") / max(z.numel(), 1)


def _check_shapes(segmentation: Tensor, labels: Tensor) -> int:
    """The number of channels."""
    if segmentation.ndim != 4 or segmentation.shape[1] == 0:
        raise ValueError(f"LaneLoss: expected segmentation of shape (N, K, H, W), got {list(segmentation.shape)}")
    n, channels, height, width = segmentation.shape
    if labels.shape != (n, height, width):
        raise ValueError(f"LaneLoss: expected labels of shape {[n, height, width]}, got {list(labels.shape)}")
    return channels
