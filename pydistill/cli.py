"""The command line: ``pydistill demo``, ``pydistill bench``, ``pydistill info`` and the recipes' commands.

``info`` and ``--version`` work with the core installation, ``bench`` needs ``pip install 'pydistill[bench]'``, the
other commands ``pip install 'pydistill[train]'``.
"""

import sys
from importlib.util import find_spec

from pydistill import __version__

_ADVICE = "pydistill: expected the extra `{0}` for this command, not installed here; pip install 'pydistill[{0}]'"


def main() -> None:
    """Entry point of the ``pydistill`` command."""
    if find_spec("typer"):
        from pydistill.commands import app

        app()
    elif sys.argv[1:2] == ["info"]:
        from pydistill.info import main as info

        info()
    elif sys.argv[1:2] == ["--version"]:
        print(f"pydistill {__version__}")
    else:
        extra = "bench" if sys.argv[1:2] == ["bench"] else "train"
        sys.exit(f"usage: pydistill info\n{_ADVICE.format(extra)}")
