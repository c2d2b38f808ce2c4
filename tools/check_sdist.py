"""Checks a source distribution: it has every tracked file, and nothing else.

    python tools/check_sdist.py dist/*.tar.gz

`make wheel` builds the wheel from the unpacked source distribution, so that it builds at all is known by then.
"""

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MADE = re.compile(r"PKG-INFO|setup\.cfg|pydistill\.egg-info/.*")  # by setuptools
HIDDEN = re.compile(r"\.")  # settings of the repository, of no use to who builds


def faults(packed: Iterable[str], tracked: Iterable[str]) -> list[str]:
    """The files that ``packed`` lacks of ``tracked``, and has beyond them."""
    has = {name for name in packed if not MADE.fullmatch(name)}
    wants = {name for name in tracked if name == ".clang-format" or not HIDDEN.match(name)}
    return [f"{name} is missing" for name in sorted(wants - has)] + [f"stray file {n}" for n in sorted(has - wants)]


def packed(file: Path) -> list[str]:
    """The files of a source distribution, without the folder that they lie in."""
    with tarfile.open(file) as archive:
        return [member.name.partition("/")[2] for member in archive if not member.isdir()]


def main(files: list[str]) -> int:
    """Checks each; the exit status is 0 where nothing is wrong."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    found = [f"{file}: {fault}" for file in files for fault in faults(packed(Path(file)), tracked.stdout.split())]
    print("\n".join(found) or f"{len(files)} checked, nothing wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
