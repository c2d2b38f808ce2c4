"""Passing a distiller what is no tensor: Lightning's Fabric looks into dataclasses, and takes no frozen one."""

from typing import Any, Generic, TypeVar

from pydistill.distiller import Distilled, Distiller

Output = TypeVar("Output")
Truth = TypeVar("Truth")


class Told(Generic[Output, Truth]):
    """What a student is told of a batch: the teacher's output, if any, and the truth. Fabric leaves it alone."""

    def __init__(self, teacher: Output | None, truth: Truth):
        self.teacher, self.truth = teacher, truth


class LossesOnly(Distiller):
    """A distiller that keeps the student's output, of frozen dataclasses, to itself."""

    def forward(self, *args: Any, **kwargs: Any) -> Distilled:
        """As ``Distiller.forward``, with None as output."""
        return super().forward(*args, **kwargs)._replace(output=None)
