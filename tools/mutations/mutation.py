"""What a mutation is, and the names of the tests that most of them fail."""

from typing import NamedTuple

_CPU = "torch.float64-cpu"


class Mutation(NamedTuple):
    """In csrc/math/``file``, ``old``, which occurs there once, becomes ``new``, and the kernel ``op`` is compiled."""

    name: str
    file: str
    old: str
    new: str
    op: str
    test: str


def forward(op: str, suite: str, case: str) -> str:
    """The conformance test of an op's values, in float64."""
    return f"tests/ops/test_{op}.py::{suite}::test_forward[{case}-{_CPU}]"


def gradient(op: str, suite: str, case: str) -> str:
    """The conformance test of an op's gradient, in float64."""
    return forward(op, suite, case).replace("test_forward", "test_gradient")
