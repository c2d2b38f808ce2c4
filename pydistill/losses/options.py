"""Checks that the constructors of the losses share."""

from collections.abc import Mapping
from math import isfinite


def check_not_negative(loss: str, numbers: Mapping[str, float]) -> None:
    """ValueError where a number is negative or not finite."""
    for name, number in numbers.items():
        if not (isfinite(number) and number >= 0):
            raise ValueError(f"{loss}: expected a finite {name} >= 0, got {number}")


def check_positive(loss: str, numbers: Mapping[str, float]) -> None:
    """ValueError where a number is not positive or not finite."""
    for name, number in numbers.items():
        if not (isfinite(number) and number > 0):
            raise ValueError(f"{loss}: expected a finite {name} > 0, got {number}")
