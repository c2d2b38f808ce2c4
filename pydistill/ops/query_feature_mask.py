"""Where the features that a teacher's good queries look for are: the masks of DETRDistill's feature distillation."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pydistill import _C
from pydistill.ops import _check
from pydistill.ops._layout import laid_out
from pydistill.ops._register import Op, accumulator

_NORMALIZE = ("max", "none")


def query_feature_mask(
    queries: Tensor,
    quality: Tensor,
    features: Sequence[Tensor],
    *,
    index: Tensor | None = None,
    floor: float = 1e-2,
    normalize: str = "max",
) -> list[Tensor]:
    r"""How similar each pixel of a teacher's features is to its queries, weighted by how good these are.

    With the queries :math:`h_i`, their quality :math:`q_i` and the channels :math:`f_p` of pixel p of an image,

    .. math:: M_p = \max\Big(\epsilon, \sum_i q_i \frac{h_i^\top f_p}{\lVert h_i \rVert \lVert f_p \rVert}\Big)

    divided by the largest of its image, for each map by itself. The sum over queries is one vector,
    :math:`v = \sum_i q_i h_i / \lVert h_i \rVert`, so that a map is read once for all decoder stages.

    Where all q of an image are 0 its mask is constant: 1 or, with ``normalize="none"``, :math:`\epsilon`.

    The feature distillation of several stages k on one pair of maps is one call of ``masked_feature_loss`` too, because
    :math:`\sum_k \overline{(M_k s - M_k t)^2} = \overline{\textstyle\sum_k M_k^2 (s - t)^2}`::

        loss = masked_feature_loss(student, teacher, mask.square().sum(0))

    Args:
        queries: h, ``(..., B, K, D)``: outputs of the decoder. Leading dimensions are decoder stages.
        quality: q, ``(..., B, K)``, as ``query_quality`` gives it. A query with q = 0 is not used, whatever it holds.
        features: Maps ``(B, D, height, width)`` of any sizes, float64, float32, float16 or bfloat16; NCHW or channels
            last, others are copied.
        index: ``(..., B, K)`` int64: the query of each q, where ``queries`` are ``(..., B, Q, D)``; one query may come
            several times, and one outside [0, Q) is not used. None: K = Q, in order.
        floor: :math:`\epsilon`, positive, or with ``normalize="none"`` 0 too.
        normalize: ``"max"`` or ``"none"``.

    Returns:
        A mask ``(..., B, height, width)`` of each map, float64 of float64 maps, else float32. No gradient. Norms below
        1e-12 count as 1e-12. A NaN in a query or a map makes the image's mask NaN, with ``normalize="none"`` only at
        the pixels that it meets.

    Raises:
        ValueError: If a shape or an option is not one of the above; under ``pydistill.checking`` also for queries,
            quality or features that are not finite.
        TypeError: If a dtype is not one of the above.

    Reference:
        Chang et al. 2023 (DETRDistill), arXiv:2211.10156, equations 6 to 9. The paper's normaliser is not known to us:
        floor and maximum are those of BIVLab-USTC/DETRDistill, ``Distiller.forward_train``.
    """
    features = _check.listed("query_feature_mask", "features", features)
    _check_arguments(queries, quality, features, index, floor, normalize)
    if _check.enabled():
        _check.finite("query_feature_mask", "quality", quality)
        used = quality != 0
        if index is not None:  # by any of its places
            place = index.clamp(0, max(queries.shape[-2] - 1, 0))
            used = torch.zeros_like(queries[..., 0], dtype=torch.int64).scatter_add(-1, place, used.long()) > 0
        _check.finite("query_feature_mask", "queries", queries, used[..., None])
        for x in features:
            _check.finite("query_feature_mask", "features", x)
    leading, masks = queries.shape[:-2], []
    directions: dict[torch.dtype, Tensor] = {}
    for x in features:
        wide = accumulator(x.dtype)
        if wide not in directions:
            narrow = queries.dtype if accumulator(queries.dtype) == wide else wide
            directions[wide] = _direction(
                queries.detach().to(narrow).flatten(0, -3),
                quality.detach().to(wide).flatten(0, -2),
                None if index is None else index.flatten(0, -2),
            ).view(math.prod(leading[:-1]), leading[-1], queries.shape[-1])
        mask = _mask(x.detach(), directions[wide], floor, normalize == "max")
        masks.append(mask.view(*leading, *x.shape[2:]))
    return masks


def query_feature_mask_reference(
    queries: Tensor,
    quality: Tensor,
    features: Sequence[Tensor],
    *,
    index: Tensor | None = None,
    floor: float = 1e-2,
    normalize: str = "max",
) -> list[Tensor]:
    """The specification: what the kernels must compute, in plain PyTorch."""
    masks = []
    for x in features:
        wide = accumulator(x.dtype)
        h, q, x = queries.detach().to(wide), quality.detach().to(wide), x.detach().to(wide)
        if index is not None:
            known = (index >= 0) & (index < h.shape[-2])
            q = q.where(known, 0)
            h = torch.cat([h, torch.zeros_like(h[..., :1, :])], -2)
            h = h.gather(-2, index.where(known, h.shape[-2] - 1)[..., None].expand(*index.shape, h.shape[-1]))
        h = F.normalize(h, dim=-1).masked_fill((q == 0)[..., None], 0)
        cosine = torch.einsum("...bkd,bdyx->...bkyx", h, F.normalize(x, dim=1))
        mask = (q[..., None, None] * cosine).sum(-3).clamp_min(floor)
        if normalize == "max" and mask.numel():
            mask = mask / mask.amax((-1, -2), keepdim=True)
        masks.append(mask)
    return masks


def check_options(op: str, floor: float, normalize: str) -> None:
    """Raises where an option is outside its range."""
    if normalize not in _NORMALIZE:
        raise ValueError(f"{op}: expected normalize in {_NORMALIZE}, got {normalize!r}")
    if not (floor > 0 or (floor == 0 and normalize == "none")):
        raise ValueError(f"{op}: expected floor > 0, got {floor}")


def _check_arguments(
    queries: Tensor, quality: Tensor, features: Sequence[Tensor], index: Tensor | None, floor: float, normalize: str
) -> None:
    op = "query_feature_mask"
    _check.tensors(op, queries=queries, quality=quality)
    _check.optional(op, index=index)
    _check.numbers(op, floor=floor)
    if queries.ndim < 3:
        raise ValueError(f"{op}: expected queries of shape (..., B, K, D), got {list(queries.shape)}")
    leading, known = queries.shape[:-2], index is None or index.shape == quality.shape
    if quality.shape[:-1] != leading or not known or (index is None and quality.shape != queries.shape[:-1]):
        got = f"{list(quality.shape)}" + ("" if index is None else f" and index {list(index.shape)}")
        raise ValueError(f"{op}: expected quality of shape {[*leading, 'K']}, and index the same, got {got}")
    if index is not None and index.dtype != torch.int64:
        raise TypeError(f"{op}: expected index of dtype int64, got {index.dtype}")
    for x in features:
        if x.ndim != 4 or (x.shape[0], x.shape[1]) != (leading[-1], queries.shape[-1]):
            expected = f"({leading[-1]}, {queries.shape[-1]}, height, width)"
            raise ValueError(f"{op}: expected features of shape {expected}, got {list(x.shape)}")
    for name, x in (("queries", queries), ("quality", quality), *(("features", x) for x in features)):
        if not x.is_floating_point():
            raise TypeError(f"{op}: expected {name} of a floating point dtype, got {x.dtype}")
    check_options(op, floor, normalize)


def _empty_direction(queries: Tensor, quality: Tensor, index: Tensor | None) -> Tensor:
    return quality.new_empty(queries.shape[0], queries.shape[2])


def _direction_kernel(queries: Tensor, quality: Tensor, index: Tensor | None) -> Tensor:
    kernels, where = _C.on(queries)
    direction, quality = _empty_direction(queries, quality, index), quality.contiguous()
    index = None if index is None else index.contiguous()
    kernels.query_direction(where, queries.contiguous(), quality, index, torch.empty_like(quality), direction)
    return direction


def _empty_mask(features: Tensor, direction: Tensor, floor: float, normalize: bool) -> Tensor:
    b, _, h, w = features.shape
    return direction.new_empty(direction.shape[0], b, h, w)


def _mask_kernel(features: Tensor, direction: Tensor, floor: float, normalize: bool) -> Tensor:
    kernels, where = _C.on(features)
    mask = _empty_mask(features, direction, floor, normalize)
    stages, b, h, w = mask.shape
    most = mask.new_empty(b, kernels.query_mask_tiles(h * w), stages) if normalize else None
    features, interleaved = laid_out(features)
    kernels.query_feature_mask(where, features, direction.contiguous(), floor, interleaved, most, mask)
    return mask


_direction = Op(
    "query_direction(Tensor queries, Tensor quality, Tensor? index) -> Tensor", _direction_kernel, _empty_direction
)
_mask = Op(
    "query_feature_mask(Tensor features, Tensor direction, float floor, bool normalize) -> Tensor",
    _mask_kernel,
    _empty_mask,
)
