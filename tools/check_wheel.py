"""Checks wheels before they are published; `make wheel` calls it.

    python tools/check_wheel.py [--levels v3] [--cuda] [--release] [--glibc 2.34] dist/*.whl

A wheel has a manylinux tag that auditwheel confirms and that is not newer than ``--glibc``; it links nothing but the C
and C++ runtimes of the system: not torch, and not libgomp, whose symbols come from the runtime that torch has loaded.
It has a CPU module for each of ``--levels``, with ``--cuda`` a CUDA module, with ``--release`` one for every
architecture of a release; the licences; no file that is not of the package; less than PyPI's limit. And it runs.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
SYSTEM |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
LIMIT = 100_000_000  # bytes; PyPI's for a file
KINDS = {".py", ".pyi", ".typed", ".so", ".npz", ".pt", ".html", ".j2", ".css"}  # of files in the package
REQUIRED = ["pydistill/py.typed", "pydistill/_C.py", "pydistill/_C.pyi"]
LICENCES = ["LICENSE", "THIRD_PARTY_LICENSES"]

RUN = """
from importlib.util import find_spec
import pydistill, torch
from pydistill import _C
from pydistill.ops import softmax_kl
assert pydistill.__file__.startswith({folder!r}), pydistill.__file__
x = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
softmax_kl(x, torch.tensor([[3.0, 0.0, 1.0]]), reduction="sum").backward()
p, q = (torch.tensor(v).softmax(0) for v in ([1.0, 2.0, 4.0], [3.0, 0.0, 1.0]))
assert torch.allclose(x.grad[0], p - q, rtol=1e-5), x.grad
cuda = _C.cuda.__name__ if find_spec("pydistill._cuda") else "no CUDA module"
print(f"runs under torch {{torch.__version__}}: {{_C.cpu.__name__}}, {{cuda}}")
"""


@dataclass
class Wanted:
    """What a wheel must have beyond what each must."""

    levels: Sequence[str] | None = None
    """CPU modules; None: all of the machine that the wheel's tag names."""
    cuda: bool = False
    architectures: str = ""
    """Of the CUDA module, as CMake's list with spaces."""
    glibc: tuple[int, int] = (2, 34)
    """The newest that the tag may ask for."""


def needed(module: Path) -> set[str]:
    """The shared libraries that ``module`` is linked to."""
    with module.open("rb") as file:
        sections = [s for s in ELFFile(file).iter_sections() if isinstance(s, DynamicSection)]
        return {tag.needed for section in sections for tag in section.iter_tags("DT_NEEDED")}


def tag_faults(wheel: str, newest: tuple[int, int]) -> list[str]:
    """Whether the platform in the name of a wheel is one that PyPI takes, and old enough."""
    platform = PurePosixPath(wheel).stem.rpartition("-")[2]
    found = re.match(r"manylinux_(\d+)_(\d+)_", platform)
    if not found:
        return [f"expected a manylinux tag, got {platform}: auditwheel repair names the one that it keeps"]
    if (int(found[1]), int(found[2])) > newest:
        return [f"expected manylinux_{newest[0]}_{newest[1]} or older, got {platform}: build on an older system"]
    return []


def audit_faults(wheel: Path) -> list[str]:
    """Whether auditwheel reads the same platform from the modules as stands in the name."""
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    said = " ".join(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split())
    found = re.search(r'platform tag: "([^"]+)"', said)
    if not found:
        return [f"auditwheel names no platform: {said}"]
    print(f"auditwheel: {found[1]}")
    return [] if found[1] in wheel.name else [f"auditwheel finds {found[1]} in it"]


def content_faults(files: Sequence[str], wanted: Wanted, wheel: str = "x86_64") -> list[str]:
    """What is missing among the ``files`` of a wheel, and what does not belong there."""
    levels = wanted.levels or (["v2", "v3", "v4"] if "x86_64" in wheel else ["any"])
    modules = {PurePosixPath(f).name.partition(".")[0] for f in files if f.endswith(".so")}
    needs = [f"_cpu_{level}" for level in levels] + ["_cuda"] * wanted.cuda
    faults = [f"it has no module {name}" for name in needs if name not in modules]
    faults += [f"{name} is missing" for name in REQUIRED if name not in files]
    own = [f for f in files if re.match(r"pydistill-[^/]+\.dist-info/", f)]
    faults += [f"no licence {name}" for name in LICENCES if not any(f.endswith(f"/licenses/{name}") for f in own)]
    for file in sorted(set(files) - set(own)):
        path = PurePosixPath(file)
        if path.parts[0] != "pydistill" or path.suffix not in KINDS:
            faults.append(f"stray file {file}")
    return faults


def module_faults(package: Path, wanted: Wanted) -> list[str]:
    """What the compiled modules link to that a system may lack, and the architectures that a release lacks."""
    modules = sorted(package.glob("*.so"))
    faults = [f"{m.name} needs {library}" for m in modules for library in sorted(needed(m) - SYSTEM)]
    for module in package.glob("_cuda*.so"):
        if wanted.architectures.encode() + b"\0" not in module.read_bytes():
            faults.append(f"{module.name} is not for {wanted.architectures}")
    return faults


def run_faults(folder: Path) -> list[str]:
    """Imports the package from ``folder``, which has nothing of the source tree, and runs one operator."""
    code, environment = RUN.format(folder=str(folder)), {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    print(done.stdout, end="")
    return [f"it does not run: {done.stderr.strip()}"] if done.returncode else []


def check(wheel: Path, wanted: Wanted) -> list[str]:
    """What is wrong with ``wheel``."""
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.1f} MB")
    faults = [f"it has {size} bytes; PyPI takes {LIMIT}"] if size > LIMIT else []
    faults += tag_faults(wheel.name, wanted.glibc)
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(wheel) as archive:
        folder = Path(name).resolve()
        faults += content_faults([f for f in archive.namelist() if not f.endswith("/")], wanted, wheel.name)
        archive.extractall(folder)
        faults += module_faults(folder / "pydistill", wanted) + run_faults(folder)
    return faults + audit_faults(wheel)


def release_architectures() -> str:
    """The architectures that CMakeLists.txt names for a release."""
    found = re.search(r"if\(PYDISTILL_RELEASE\)\s+set\(found ([^)]+)\)", (ROOT / "CMakeLists.txt").read_text())
    assert found, "CMakeLists.txt names no architectures for PYDISTILL_RELEASE"
    return found[1]


def main() -> int:
    """Checks each wheel; the exit status is 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--levels", nargs="?", help="CPU modules, with commas; otherwise all of the machine")
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--release", action="store_true")
    parser.add_argument("--glibc", default="2.34")
    options = parser.parse_args()
    major, minor = options.glibc.split(".")
    wanted = Wanted(
        levels=options.levels and options.levels.split(","),
        cuda=options.cuda or options.release,
        architectures=release_architectures() if options.release else "",
        glibc=(int(major), int(minor)),
    )
    faults = [f"{wheel.name}: {fault}" for wheel in options.wheels for fault in check(wheel, wanted)]
    print("\n".join(faults) or f"{len(options.wheels)} checked, nothing wrong")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
