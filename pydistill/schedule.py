"""Distillation terms: what they compare, when they act, and how strongly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from torch import nn

from pydistill.adapters import Adapter

__all__ = ["Schedule", "Term"]

Paths = str | Sequence[str]
AdapterLike = Adapter | nn.Module | None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A weight that starts, rises linearly and ends, counted in optimiser steps.

    ``w(s) = weight * min(1, (s - start) / ramp)`` for ``start <= s < end``, else 0; without a ramp ``w = weight``.

    Args:
        weight: full weight, finite and >= 0. With 0 the term never runs.
        start: first step at which the term may act, >= 0.
        ramp: steps from weight 0 at ``start`` to the full weight, >= 0.
        end: first step without the term, or None for never.

    Raises:
        ValueError: for a value out of range, or an ``end`` that leaves no step with a weight.
    """

    weight: float = 1.0
    start: int = 0
    ramp: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if not (isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"Schedule: expected a finite weight >= 0, got {self.weight}")
        if self.start < 0 or self.ramp < 0:
            raise ValueError(f"Schedule: expected start and ramp >= 0, got {self.start} and {self.ramp}")
        first = self.start + (self.ramp > 0)
        if self.end is not None and self.end <= first:
            raise ValueError(f"Schedule: expected an end after the first weighted step {first}, got {self.end}")

    def weight_at(self, step: int) -> float:
        """The weight at optimiser step ``step`` (the first is 0), in [0, ``weight``]."""
        if step < self.start or (self.end is not None and step >= self.end):
            return 0.0
        return self.weight * min(1.0, (step - self.start) / self.ramp) if self.ramp else self.weight


@dataclass(frozen=True)
class Term(Schedule):
    """One distillation loss: what it compares, and when (``weight``, ``start``, ``ramp``, ``end`` of ``Schedule``).

    Called as ``loss(student)``, ``loss(student, teacher)`` where the term has teacher paths, and with the ``targets``
    of the distiller's call as last argument where ``targets`` is set. It returns a scalar or a dict of scalars.

    Args:
        loss: any callable. Parameters of an ``nn.Module`` train with the student.
        student: module path of a student feature, or several: the loss then gets a list. See ``Taps``.
        teacher: the same for the teacher. None: a self-distillation term.
        adapter: what the student's feature passes first: an ``Adapter`` to build, any module, or None. For several
            paths a sequence with one entry each.
        targets: whether the loss takes the targets.
        upcast: give half features to the loss as float32. Off for losses that accumulate in float32 by themselves, as
            pydistill's do.

    Raises:
        ValueError: for an empty list of paths, or adapters that are not one per path.
    """

    loss: Callable[..., Any]
    student: Paths
    teacher: Paths | None = None
    adapter: AdapterLike | Sequence[AdapterLike] = None
    targets: bool = field(default=False, kw_only=True)
    upcast: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.student_paths or self.teacher in ([], ()):
            raise ValueError(f"Term: expected at least one path, got student {self.student}, teacher {self.teacher}")
        if len(self.adapters) != len(self.student_paths):
            raise ValueError(
                f"Term: expected one adapter for each of {len(self.student_paths)} student paths, "
                f"got {len(self.adapters)}"
            )

    @property
    def student_paths(self) -> tuple[str, ...]:
        """The student's paths, always as a tuple."""
        return _tuple(self.student)

    @property
    def teacher_paths(self) -> tuple[str, ...]:
        """The teacher's paths, always as a tuple."""
        return () if self.teacher is None else _tuple(self.teacher)

    @property
    def adapters(self) -> tuple[AdapterLike, ...]:
        """One adapter, or None, for each student path."""
        if self.adapter is None:
            return (None,) * len(self.student_paths)
        return (self.adapter,) if isinstance(self.adapter, Adapter | nn.Module) else tuple(self.adapter)


def _tuple(paths: Paths) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
