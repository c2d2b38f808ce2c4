"""softmax_kl, forward and backward: box sides of all locations, all of them and with weights on 2%, and class maps.

Operations: 17 a bin. Of both softmaxes a product, the maximum, a difference, an exponential, a sum and a product; of
the divergence a difference, a product and a sum; of the gradient a difference and a product; the rest is of the rows.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.cases import contenders, sides, times
from pydistill.benchmarks.timing import rotate
from pydistill.ops import softmax_kl

ROWS, BINS, A_BIN = 106744, 17, 17


def logits(device, *shape, dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=rng).to(device, dtype) for _ in range(2))
    return student.requires_grad_(), teacher


def torch_kl(student, teacher, weight=None, *, temperature, dim=-1):
    """What one writes in PyTorch."""
    log_s, p = (student / temperature).log_softmax(dim), (teacher / temperature).softmax(dim)
    rows = temperature**2 * F.kl_div(log_s, p, reduction="none").mean(dim)
    return (rows if weight is None else rows * weight).sum()


def runs(*inputs, temperature, dim=-1, **options):
    """Of student, teacher and perhaps weight."""
    given = dict(temperature=temperature, dim=dim)

    def ours(student, teacher, weight=None):
        return softmax_kl(student, teacher, weight=weight, bins="mean", reduction="sum", **given)

    return contenders(ours, partial(torch_kl, **given), *inputs, **options)


def test_rows(compare, device, scale):
    """Floor: both inputs are read and one gradient is written."""
    student, teacher = logits(device, times(scale, ROWS), BINS)
    compare(
        **runs(student, teacher, temperature=10.0),
        floor=rotate(torch.add, student.detach(), teacher),
        bytes_moved=4 * 3 * student.numel(),
        operations=A_BIN * student.numel(),
    )


def test_few_weighted_rows(compare, device, scale):
    """Floor: the gradient is filled with zeros."""
    student, teacher = logits(device, times(scale, ROWS), BINS)
    weight = (torch.rand(len(student), generator=torch.Generator().manual_seed(1)) < 0.02).float().to(device)
    compare(
        **runs(student, teacher, weight, temperature=10.0),
        floor=rotate(torch.zeros_like, teacher),
        bytes_moved=int(4 * (1 + 2 / 50) * student.numel()),
        operations=A_BIN * student.numel() // 50,
    )


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float16, 0.02), (torch.bfloat16, 0.1)], ids=["float16", "bfloat16"]
)
def test_half(compare, device, scale, dtype, tolerance):
    student, teacher = logits(device, times(scale, ROWS), BINS, dtype=dtype)
    compare(
        **runs(student, teacher, compiled=False, tolerance=tolerance, temperature=10.0),
        floor=rotate(torch.add, student.detach(), teacher),
        bytes_moved=2 * 3 * student.numel(),
        operations=A_BIN * student.numel(),
    )


def test_class_map(compare, device, scale):
    """80 class logits at each location, as a head leaves them: (N, C, H, W)."""
    student, teacher = logits(device, 2, 80, *sides(scale, 100, 168))
    compare(
        **runs(student, teacher, temperature=2.0, dim=1),
        floor=rotate(torch.add, student.detach(), teacher),
        bytes_moved=4 * 3 * student.numel(),
        operations=A_BIN * student.numel(),
    )


def test_call_overhead(compare, device):
    student, teacher = logits(device, 64, BINS)
    compare(
        **runs(student, teacher, compiled=False, copies=1, temperature=10.0),
        bytes_moved=4 * 3 * student.numel(),
        iterations=200,
    )
