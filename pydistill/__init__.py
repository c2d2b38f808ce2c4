"""Fused losses for knowledge distillation in dense vision: lanes, dense boxes, queries and bird's-eye view.

``pydistill.ops`` has the operators, ``pydistill.losses`` the papers' objectives, ``pydistill.Distiller`` the training
layer. Each is imported when it is first used, so that ``pydistill info`` can explain an installation that lacks one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydistill._version import __version__

if TYPE_CHECKING:
    from pydistill import losses, ops
    from pydistill.adapters import Adapter
    from pydistill.distiller import Distiller
    from pydistill.ops._check import checking
    from pydistill.schedule import Term

__all__ = ["Adapter", "Distiller", "Term", "__version__", "checking", "losses", "ops"]

_SUBMODULES = ("adapters", "distiller", "heads", "losses", "ops", "schedule", "taps")
_ELSEWHERE = {"Adapter": "adapters", "Distiller": "distiller", "Term": "schedule", "checking": "ops._check"}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(import_module(f"pydistill.{_ELSEWHERE[name]}"), name)
    if name in _SUBMODULES:
        return import_module(f"pydistill.{name}")
    raise AttributeError(f"module 'pydistill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES})
