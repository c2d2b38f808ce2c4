"""softmax_kl, forward and backward: box sides of all locations, all of them and with weights on 2%, and class maps."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from pydistill.benchmarks.timing import forward_backward
from pydistill.ops import softmax_kl

ROWS, BINS = 106744, 17


def logits(device, *shape):
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=rng).to(device) for _ in range(2))
    return student.requires_grad_(), teacher


def torch_kl(student, teacher, *, temperature, dim=-1, weight=None):
    """What one writes in PyTorch."""
    log_s, p = (student / temperature).log_softmax(dim), (teacher / temperature).softmax(dim)
    rows = temperature**2 * F.kl_div(log_s, p, reduction="none").mean(dim)
    return (rows if weight is None else rows * weight).sum()


def contenders(student, teacher, compiled=True, **options):
    ours = partial(softmax_kl, bins="mean", reduction="sum", **options)
    eager = partial(torch_kl, **options)
    peers = {"eager": eager, "compiled": torch.compile(eager)} if compiled else {"eager": eager}
    return {name: forward_backward(fn, student, teacher) for name, fn in {"ours": ours, **peers}.items()}


def test_softmax_kl(compare, device):
    """Floor: both inputs are read once and one gradient is written."""
    student, teacher = logits(device, ROWS, BINS)
    plain = student.detach()
    compare(
        **contenders(student, teacher, temperature=10.0),
        floor=lambda: plain + teacher,
        bytes_moved=4 * 3 * student.numel(),
    )


def test_softmax_kl_few_weighted_rows(compare, device):
    """Floor: the gradient is filled with zeros."""
    student, teacher = logits(device, ROWS, BINS)
    weight = (torch.rand(ROWS, generator=torch.Generator().manual_seed(1)) < 0.02).float().to(device)
    compare(
        **contenders(student, teacher, temperature=10.0, weight=weight),
        floor=lambda: torch.zeros_like(teacher),
        bytes_moved=4 * student.numel(),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_softmax_kl_half(compare, device, dtype):
    student, teacher = (x.detach().to(dtype) for x in logits(device, ROWS, BINS))
    student.requires_grad_()
    compare(
        **contenders(student, teacher, compiled=False, temperature=10.0),
        floor=lambda: student.detach() + teacher,
        bytes_moved=2 * 3 * student.numel(),
    )


def test_softmax_kl_class_map(compare, device):
    """80 class logits at each location, as a head leaves them: (N, C, H, W)."""
    student, teacher = logits(device, 2, 80, 100, 168)
    compare(
        **contenders(student, teacher, temperature=2.0, dim=1),
        floor=lambda: student.detach() + teacher,
        bytes_moved=4 * 3 * student.numel(),
    )


def test_softmax_kl_call_overhead(compare, device):
    student, teacher = logits(device, 64, BINS)
    compare(
        **contenders(student, teacher, compiled=False, temperature=10.0),
        bytes_moved=4 * 3 * student.numel(),
        iterations=200,
    )
