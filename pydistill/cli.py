"""The command line: ``pydistill demo`` and ``pydistill info``.

``info`` works with the core installation; the other commands need ``pip install 'pydistill[train]'``.
"""

import sys
from importlib.util import find_spec

_ADVICE = "pydistill: expected the extra `train` for this command, not installed here; pip install 'pydistill[train]'"


def main() -> None:
    """Entry point of the ``pydistill`` command."""
    if find_spec("typer"):
        from pydistill.commands import app

        app()
    elif sys.argv[1:2] == ["info"]:
        from pydistill.info import main as info

        info()
    else:
        sys.exit(f"usage: pydistill info\n{_ADVICE}")
