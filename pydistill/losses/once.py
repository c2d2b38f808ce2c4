"""Values that the terms of a step share, computed when they are first read."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class once(Generic[T]):
    """A property that is computed when it is first read: what no term of the step reads costs nothing."""

    def __init__(self, compute: Callable[[Any], T]):
        self.compute, self.name = compute, compute.__name__

    def __get__(self, step: Any, owner: object = None) -> T:
        value: T = self.compute(step)
        step.__dict__[self.name] = value
        return value
