"""Checks built wheels: what they may need of a system, and that they carry every module.

    python tools/check_wheel.py dist/*.whl

A wheel must link nothing but the C and C++ runtimes of the system: not torch, and not libgomp, whose symbols come from
the runtime that torch has loaded. Then auditwheel names the oldest Linux that it runs on.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

SYSTEM = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
SYSTEM |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def needed(module: Path) -> set[str]:
    """The shared libraries that ``module`` is linked to."""
    with module.open("rb") as file:
        sections = [s for s in ELFFile(file).iter_sections() if isinstance(s, DynamicSection)]
        return {tag.needed for section in sections for tag in section.iter_tags("DT_NEEDED")}


def check(wheel: Path) -> list[str]:
    """What is wrong with ``wheel``."""
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        package = Path(folder) / "pydistill"
        modules = sorted(package.glob("*.so"))
        faults = [f"{m.name} needs {library}" for m in modules for library in sorted(needed(m) - SYSTEM)]
        faults += [f"{name} is missing" for name in ("py.typed", "_C.py", "_C.pyi") if not (package / name).exists()]
    if not any(m.name.startswith("_cpu_") for m in modules):
        faults.append("it has no CPU module")
    return faults


def main(wheels: list[str]) -> int:
    """Checks each wheel; the exit status is 0 where nothing is wrong."""
    faults = []
    for wheel in wheels:
        faults += [f"{wheel}: {fault}" for fault in check(Path(wheel))]
        subprocess.run([sys.executable, "-m", "auditwheel", "show", wheel], check=True)
    print("\n".join(faults) or f"{len(wheels)} checked, nothing wrong")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
