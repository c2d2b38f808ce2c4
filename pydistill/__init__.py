"""Fused losses for knowledge distillation in dense vision: lanes, dense boxes, queries and bird's-eye view.

``pydistill.ops`` has the operators, ``pydistill.losses`` the papers' objectives, ``pydistill.Distiller`` the training
layer. Each is imported when it is first used, so that ``pydistill info`` can explain an installation that lacks one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydistill._version import __version__

if TYPE_CHECKING:
    from pydistill import losses, ops

__all__ = ["__version__", "losses", "ops"]

_SUBMODULES = ("losses", "ops")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"pydistill.{name}")
    raise AttributeError(f"module 'pydistill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
