"""What the constructors of the losses share: checks of their options, and how these are printed."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import BoundArguments, Parameter, signature
from math import isfinite
from typing import Any, TypeVar, cast

from torch import nn

Init = TypeVar("Init", bound=Callable[..., None])


class Loss(nn.Module):
    """A loss that prints the options it was made with."""

    _options = ""

    def extra_repr(self) -> str:
        """As ``printed`` noted them."""
        return self._options


def printed(*always: str) -> Callable[[Init], Init]:
    """Decorates the constructor of a ``Loss`` that prints the options ``always``, and others where not the default."""

    def decorate(init: Init) -> Init:
        taken = signature(init)

        @wraps(init)
        def init_and_note(self: Loss, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            bound = taken.bind(self, *args, **kwargs)
            bound.apply_defaults()
            self._options = _joined(bound, always)

        return cast(Init, init_and_note)

    return decorate


def _joined(bound: BoundArguments, always: tuple[str, ...]) -> str:
    shown: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:  # without self
        parameter = bound.signature.parameters[name]
        if parameter.kind is Parameter.VAR_KEYWORD:
            shown |= value
        elif name in always or _differs(value, parameter.default):
            shown[name] = value
    return ", ".join(f"{name}={value!r}" for name, value in shown.items() if not isinstance(value, nn.Module))


def _differs(value: Any, default: Any) -> bool:
    return value is not None if default is None else bool(value != default)


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
