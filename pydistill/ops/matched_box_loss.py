"""L1 and generalized IoU losses of predicted boxes and the targets they are matched with."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check as _check_data
from pydistill.ops._matched import check_match, check_reduction, check_targets, matched, of_queries, sum_stages
from pydistill.ops._reduction import regular, row_weight
from pydistill.ops._register import Op, accumulator, differentiable

_OP = "matched_box_loss"
_FORMATS = ("cxcywh", "xyxy")


class BoxLosses(NamedTuple):
    """The two losses of matched boxes: per stage (...), or per query (..., B, Q)."""

    l1: Tensor
    giou: Tensor


def matched_box_loss(
    boxes: Tensor,
    target_boxes: Tensor,
    target_of_query: Tensor,
    *,
    weight: Tensor | None = None,
    image_sizes: Tensor | None = None,
    clamp_targets: bool = False,
    giou_eps: float = 0.0,
    box_format: str = "cxcywh",
    l1_format: str | None = None,
    reduction: str = "stages",
) -> BoxLosses:
    r"""The L1 and the generalized IoU loss of each query's box and that of its target.

    .. math:: \ell_1 = w \lVert b - t \rVert_1, \qquad \ell_{giou} = w (1 - GIoU(b, t))

    Leading dimensions are decoder stages. A query without a target is not read: its losses and its gradient are 0.

    Args:
        boxes: (..., B, Q, 4) predictions, in units of the picture, [0, 1]; any floating dtype.
        target_boxes: (B, T, 4) or (..., B, T, 4), in the same format. A constant.
        target_of_query: (..., B, Q) int64, as ``hungarian_match`` gives it: the query's target, in [0, T); anything
            else is none.
        weight: w, broadcasts to (..., B, Q). A constant. A row of weight 0 is not read.
        image_sizes: (B, 2), height and width in pixels: GIoU is that of the boxes in pixels, whose area ``giou_eps``
            bounds. The L1 loss stays in units of the picture.
        clamp_targets: Cut target boxes at the picture, as the code released with DETRDistill.
        giou_eps: Least area of the union and of the enclosing box, as in mmdetection (1e-6 there). With 0, DETR's, a
            pair whose union is not above 0 has GIoU 0, without gradient, where DETR has NaN.
        box_format: "cxcywh" or "xyxy".
        l1_format: In which of the two the L1 loss is taken; None: that of the boxes.
        reduction: ``"stages"``: the sum over B and Q for each leading index, shape (...). ``"none"``: (..., B, Q).

    Returns:
        ``l1`` and ``giou``, not weighted against each other; float64 for float64 boxes, else float32. A NaN in a box
        makes its own row NaN, and the sum of its stage. Results repeat bit for bit.

    Raises:
        ValueError: If a shape or an option is not as above.
        TypeError: If boxes are not floating point, or the match is not int64.

    Reference:
        Carion et al. 2020 (DETR), arXiv:2005.12872, equation 9 (weights 5 and 2, over the number of targets).
    """
    _check(boxes, target_boxes, target_of_query, image_sizes, giou_eps, box_format, l1_format, reduction)
    queries, wide = boxes.shape[:-1], accumulator(boxes.dtype)
    weight = row_weight(_OP, weight, queries, wide)
    corners, l1_corners = box_format == "xyxy", (l1_format or box_format) == "xyxy"
    losses: Tensor = _matched_box_loss(
        boxes.flatten(0, -3),
        target_boxes.detach().to(wide).flatten(0, -3),
        target_of_query.flatten(0, -2),
        None if weight is None else weight.flatten(0, -2),
        None if image_sizes is None else image_sizes.to(wide),
        giou_eps,
        corners,
        l1_corners,
        clamp_targets,
    )
    if _check_data.enabled():
        used = matched(target_of_query, target_boxes.shape[-2])
        used = used if weight is None else used & (weight != 0)
        _check_data.boxes(_OP, boxes.masked_fill(~used.unsqueeze(-1), 0), corners=corners)
        paired = of_queries(target_boxes.detach(), target_of_query, -2).masked_fill(~used.unsqueeze(-1), 0)
        _check_data.boxes(_OP, paired, corners=corners, name="target boxes of queries")
    return BoxLosses(*(sum_stages(rows, reduction) for rows in losses.view(2, *queries).unbind()))


def matched_box_loss_reference(
    boxes: Tensor,
    target_boxes: Tensor,
    target_of_query: Tensor,
    *,
    weight: Tensor | None = None,
    image_sizes: Tensor | None = None,
    clamp_targets: bool = False,
    giou_eps: float = 0.0,
    box_format: str = "cxcywh",
    l1_format: str | None = None,
    reduction: str = "stages",
) -> BoxLosses:
    """The specification: what the kernels must compute, in plain PyTorch."""
    wide, l1_format = accumulator(boxes.dtype), l1_format or box_format
    used = matched(target_of_query, target_boxes.shape[-2])
    factor = used.to(wide)
    if weight is not None:
        factor = factor * weight.detach().to(wide)
    read = (factor != 0).unsqueeze(-1)
    own = boxes.to(wide).masked_fill(~read, 0)
    other = of_queries(target_boxes.detach().to(wide), target_of_query, -2).masked_fill(~read, 0)
    if box_format == "cxcywh":
        own, other = _corners(own), _corners(other)
    size = own.new_ones(2) if image_sizes is None else image_sizes.to(wide).flip(-1).unsqueeze(-2)
    most = torch.cat([size, size], -1)
    pixels, target_pixels = own * most, other * most
    if clamp_targets:
        target_pixels = target_pixels.clamp_min(0).minimum(most)
        other = target_pixels / most
    near, far = (b if l1_format == "xyxy" else _centred(b) for b in (own, other))
    rows = (near - far).abs().sum(-1), 1 - _giou(pixels, target_pixels, giou_eps)
    return BoxLosses(*(sum_stages((row * factor).where(read[..., 0], 0), reduction) for row in rows))


def _corners(b: Tensor) -> Tensor:
    return torch.cat([b[..., :2] - 0.5 * b[..., 2:], b[..., :2] + 0.5 * b[..., 2:]], -1)


def _centred(b: Tensor) -> Tensor:
    return torch.cat([0.5 * (b[..., :2] + b[..., 2:]), b[..., 2:] - b[..., :2]], -1)


def _giou(a: Tensor, b: Tensor, eps: float) -> Tensor:
    area = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    either = area[0] + area[1] - both
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    none = (either <= 0) & (eps == 0)
    either, hull = either.masked_fill(none, 1).clamp_min(eps), hull.masked_fill(none, 1).clamp_min(eps)
    return (both / either - (hull - either) / hull).masked_fill(none, 0)


def _check(
    boxes: Tensor,
    target_boxes: Tensor,
    target_of_query: Tensor,
    image_sizes: Tensor | None,
    giou_eps: float,
    box_format: str,
    l1_format: str | None,
    reduction: str,
) -> None:
    check_match(_OP, "boxes", boxes, "4", target_of_query)
    _check_data.optional(_OP, image_sizes=image_sizes)
    _check_data.numbers(_OP, giou_eps=giou_eps)
    if boxes.shape[-1] != 4:
        raise ValueError(f"{_OP}: expected boxes of shape (..., B, Q, 4), got {list(boxes.shape)}")
    check_targets(_OP, "target_boxes", target_boxes, boxes, 4)
    if image_sizes is not None and image_sizes.shape != (boxes.shape[-3], 2):
        raise ValueError(f"{_OP}: expected image_sizes of shape [{boxes.shape[-3]}, 2], got {list(image_sizes.shape)}")
    if not giou_eps >= 0:
        raise ValueError(f"{_OP}: expected giou_eps >= 0, got {giou_eps}")
    for name, value in (("box_format", box_format), ("l1_format", l1_format or box_format)):
        if value not in _FORMATS:
            raise ValueError(f"{_OP}: expected {name} to be cxcywh or xyxy, got {value}")
    check_reduction(_OP, reduction)


def _forward(
    boxes: Tensor, targets: Tensor, match: Tensor, weight: Tensor | None, sizes: Tensor | None, *options: Any
) -> Tensor:
    losses = boxes.new_empty((2, *match.shape), dtype=accumulator(boxes.dtype))
    kernels, where = _C.on(boxes)
    boxes, targets, match, weight, sizes = _contiguous(boxes, targets, match, weight, sizes)
    eps, corners, l1_corners, clamp_targets = options
    kernels.matched_box_loss(
        where, boxes, targets, match, weight, sizes, eps, corners, l1_corners, clamp_targets, losses
    )
    return losses


def _backward(
    grad: Tensor,
    boxes: Tensor,
    targets: Tensor,
    match: Tensor,
    weight: Tensor | None,
    sizes: Tensor | None,
    *options: Any,
) -> Tensor:
    down = torch.empty_like(boxes, memory_format=torch.contiguous_format)
    kernels, where = _C.on(boxes)
    boxes, targets, match, weight, sizes = _contiguous(boxes, targets, match, weight, sizes)
    eps, corners, l1_corners, clamp_targets = options
    kernels.matched_box_loss_backward(
        where, regular(grad[0]), regular(grad[1]), boxes, targets, match, weight, sizes,
        eps, corners, l1_corners, clamp_targets, down,
    )  # fmt: skip
    return down


def _contiguous(*tensors: Tensor | None) -> Any:
    return tuple(t if t is None else t.contiguous() for t in tensors)


def _save(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.options = inputs[5:]


_ARGUMENTS = (
    "Tensor boxes, Tensor targets, Tensor match, Tensor? weight, Tensor? sizes, float eps, bool corners, "
    "bool l1_corners, bool clamp_targets"
)
_matched_box_loss = differentiable(
    Op(
        f"matched_box_loss({_ARGUMENTS}) -> Tensor",
        _forward,
        fake=lambda boxes, _, match, *rest: boxes.new_empty((2, *match.shape), dtype=accumulator(boxes.dtype)),
    ),
    Op(
        f"matched_box_loss_backward(Tensor grad, {_ARGUMENTS}) -> Tensor",
        _backward,
        fake=lambda grad, boxes, *_: torch.empty_like(boxes, memory_format=torch.contiguous_format),
    ),
    _save,
    lambda ctx, grad: (grad, *ctx.saved_tensors, *ctx.options),
)
