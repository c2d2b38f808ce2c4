"""How much a teacher's object queries can be trusted: class score and overlap with an annotated box."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._boxes import proper
from pydistill.ops._register import Op, accumulator

_FORMS = ("paper", "released")
_LEAST_PIXELS = 1e-6  # a smaller union counts as this, as in the released code


class QueryQuality(NamedTuple):
    """The best queries of each image, best class score first."""

    quality: Tensor  # (..., B, K)
    index: Tensor  # type: ignore[assignment]  # (..., B, K) int64: which query


def query_quality(
    scores: Tensor,
    boxes: Tensor,
    target_boxes: Tensor,
    counts: Tensor | None = None,
    *,
    gamma: float = 0.5,
    topk: int = 100,
    form: str = "paper",
    activated: bool = False,
    image_sizes: Tensor | None = None,
) -> QueryQuality:
    r"""The queries with the best class scores, and how good each is: its score, times how well it covers an object.

    With c the class score of a query and u the largest IoU of its box with the boxes of its image,

    .. math:: q = c^\gamma \, u^{1 - \gamma} \quad \text{("paper")}, \qquad q = c \, u \quad \text{("released")}

    In an image without boxes u is 1. The paper has one q per query: ``"paper"`` takes each query once, with its best
    class. The released code takes the best of all Q x C scores, so that a query comes once for each of its classes that
    is among them. Either way the best K in c are taken, not in q; of equals the one with the lower index.

    Args:
        scores: ``(..., B, Q, C)`` class logits, before the sigmoid, float64, float32, float16 or bfloat16. Leading
            dimensions are decoder stages. A NaN counts as probability 0.
        boxes: ``(..., B, Q, 4)``, cx, cy, w, h, in coordinates that are 0 to 1 over the image. One that is inverted or
            not finite overlaps nothing: u is 0.
        target_boxes: ``(B, T, 4)``, in the same coordinates. One that is inverted or not finite is as if not there.
        counts: ``(B,)`` int64, boxes of each image, clamped to [0, T]; None: T.
        gamma: From 0, the overlap alone, to 1, the score alone; for ``"paper"``.
        topk: The largest K.
        form: ``"paper"`` or ``"released"``.
        activated: Whether ``scores`` are probabilities already.
        image_sizes: ``(B, 2)``, height and width in pixels: unions of less than 1e-6 pixels^2 count as that, as in the
            released code. None: no such floor. IoU is 0 where the union is.

    Returns:
        ``quality`` ``(..., B, K)``, float64 of float64 scores, else float32, and ``index`` ``(..., B, K)`` int64 in
        [0, Q). K is the smaller of ``topk`` and Q, or Q C for ``"released"``. No gradient.

    Raises:
        ValueError: If a shape or an option is not one of the above; under ``pydistill.checking`` also for scores that
            are not finite, boxes that are inverted or not finite, and counts outside [0, T].
        TypeError: If scores or boxes are not floating point, or counts not int64.

    Reference:
        Chang et al. 2023 (DETRDistill), arXiv:2211.10156, equation 8; BIVLab-USTC/DETRDistill,
        ``simple_test_teacher_distill``. The gamma of the paper is not known to us: at 1/2 the square is ``"released"``.
    """
    _check_arguments(scores, boxes, target_boxes, counts, gamma, topk, form, image_sizes)
    if _check.enabled():
        _check.finite("query_quality", "scores", scores)
        _check.boxes("query_quality", boxes, corners=False)
        if counts is not None:
            _check.counts("query_quality", counts, target_boxes.shape[1])
        _check.boxes("query_quality", target_boxes, counts, corners=False, name="target_boxes")
    wide = accumulator(scores.dtype)
    *leading, b, q, c = scores.shape
    if counts is None:
        counts = torch.full((b,), target_boxes.shape[1], device=scores.device)
    taken = min(topk, q * c if form == "released" else q * min(c, 1))
    quality, index = _quality(
        scores.detach().flatten(0, -3),
        boxes.detach().to(wide).flatten(0, -3),
        target_boxes.detach().to(wide),
        counts,
        None if image_sizes is None else image_sizes.detach().to(wide),
        taken,
        gamma,
        form == "released",
        activated,
    )
    return QueryQuality(quality.view(*leading, b, taken), index.view(*leading, b, taken))


def query_quality_reference(
    scores: Tensor,
    boxes: Tensor,
    target_boxes: Tensor,
    counts: Tensor | None = None,
    *,
    gamma: float = 0.5,
    topk: int = 100,
    form: str = "paper",
    activated: bool = False,
    image_sizes: Tensor | None = None,
) -> QueryQuality:
    """The specification: what the kernels must compute, in plain PyTorch."""
    wide = accumulator(scores.dtype)
    x, classes = scores.detach().to(wide), scores.shape[-1]
    p = (x.clamp_min(0) if activated else x.sigmoid()).masked_fill(x.isnan(), 0)
    rank = x.masked_fill(x.isnan(), -torch.inf)
    if form == "paper" and classes:
        rank, p = rank.amax(-1), p.amax(-1)
    else:
        rank, p = rank.flatten(-2), p.flatten(-2)
    best = rank.sort(dim=-1, descending=True, stable=True).indices[..., :topk]
    index = best if form == "paper" else best // max(classes, 1)
    u = _best_overlap(boxes.detach().to(wide), target_boxes.detach().to(wide), counts, image_sizes).gather(-1, index)
    c = p.gather(-1, best)
    return QueryQuality(c**gamma * u ** (1 - gamma) if form == "paper" else c * u, index)


def _best_overlap(boxes: Tensor, target_boxes: Tensor, counts: Tensor | None, image_sizes: Tensor | None) -> Tensor:
    """The largest IoU of each query, (..., B, Q)."""
    a, b = (torch.cat([x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2], -1) for x in (boxes, target_boxes))
    usable, there = proper(a), proper(b)
    if counts is not None:
        there = there & (torch.arange(b.shape[1], device=b.device) < counts[:, None])
    low, high = torch.maximum(a[..., None, :2], b[:, None, :, :2]), torch.minimum(a[..., None, 2:], b[:, None, :, 2:])
    both = (high - low).clamp_min(0).prod(-1)
    union = ((a[..., 2:] - a[..., :2]).prod(-1)[..., None] + (b[..., 2:] - b[..., :2]).prod(-1)[:, None]) - both
    least = torch.full_like(union[..., :1, :1], torch.finfo(a.dtype).tiny)
    if image_sizes is not None:
        least = torch.maximum(least, (_LEAST_PIXELS / image_sizes.to(a.dtype).prod(-1))[:, None, None])
    iou = (both / torch.maximum(union, least)).where(usable[..., None] & there[:, None], 0)
    best = torch.cat([iou, iou.new_zeros(*iou.shape[:-1], 1)], -1).amax(-1)
    return best.where(there.any(-1)[:, None] | ~usable, 1)


def check_options(op: str, form: str, gamma: Any, topk: Any) -> None:
    """Raises where an option is outside its range."""
    _check.numbers(op, gamma=gamma, topk=topk)
    if form not in _FORMS:
        raise ValueError(f"{op}: expected form in {_FORMS}, got {form!r}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"{op}: expected gamma in [0, 1], got {gamma}")
    if topk < 1:
        raise ValueError(f"{op}: expected topk of at least 1, got {topk}")


def _check_arguments(
    scores: Tensor,
    boxes: Tensor,
    target_boxes: Tensor,
    counts: Tensor | None,
    gamma: Any,
    topk: Any,
    form: str,
    image_sizes: Tensor | None,
) -> None:
    op = "query_quality"
    _check.tensors(op, scores=scores, boxes=boxes, target_boxes=target_boxes)
    _check.optional(op, counts=counts, image_sizes=image_sizes)
    if scores.ndim < 3 or boxes.shape != (*scores.shape[:-1], 4):
        raise ValueError(
            f"{op}: expected scores (..., B, Q, C) and boxes (..., B, Q, 4), got {list(scores.shape)} and"
            f" {list(boxes.shape)}"
        )
    b = scores.shape[-3]
    if target_boxes.ndim != 3 or (target_boxes.shape[0], target_boxes.shape[2]) != (b, 4):
        raise ValueError(f"{op}: expected target_boxes of shape [{b}, T, 4], got {list(target_boxes.shape)}")
    if counts is not None and counts.shape != (b,):
        raise ValueError(f"{op}: expected counts of shape [{b}], got {list(counts.shape)}")
    if counts is not None and counts.dtype != torch.int64:
        raise TypeError(f"{op}: expected counts of dtype int64, got {counts.dtype}")
    if image_sizes is not None and image_sizes.shape != (b, 2):
        raise ValueError(f"{op}: expected image_sizes of shape [{b}, 2], got {list(image_sizes.shape)}")
    for name, x in (("scores", scores), ("boxes", boxes), ("target_boxes", target_boxes)):
        if not x.is_floating_point():
            raise TypeError(f"{op}: expected {name} of a floating point dtype, got {x.dtype}")
    check_options(op, form, gamma, topk)


def _empty(scores: Tensor, boxes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    shape = (scores.shape[0], rest[3])
    return boxes.new_empty(shape), boxes.new_empty(shape, dtype=torch.int64)


def _kernel(
    scores: Tensor,
    boxes: Tensor,
    target_boxes: Tensor,
    counts: Tensor,
    sizes: Tensor | None,
    taken: int,
    gamma: float,
    released: bool,
    activated: bool,
) -> tuple[Tensor, Tensor]:
    n, q, _ = scores.shape
    quality, index = boxes.new_empty(n, taken), boxes.new_empty((n, taken), dtype=torch.int64)
    rank, corners = None if released else boxes.new_empty(n, q), boxes.new_empty(n, 4, taken)
    entry = torch.empty_like(index, dtype=torch.int32)
    kernels, where = _C.on(scores)
    kernels.query_quality(
        where, scores.contiguous(), boxes.contiguous(), target_boxes.contiguous(), counts.contiguous(),
        None if sizes is None else sizes.contiguous(), gamma, released, activated,
        rank, entry, corners, quality, index,
    )  # fmt: skip
    return quality, index


_quality = Op(
    "query_quality(Tensor scores, Tensor boxes, Tensor target_boxes, Tensor counts, Tensor? image_sizes, SymInt taken,"
    " float gamma, bool released, bool activated) -> (Tensor, Tensor)",
    _kernel,
    fake=_empty,
)
