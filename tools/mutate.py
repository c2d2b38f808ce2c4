"""Makes each of the listed mistakes in a copy of csrc/math, and looks whether the test named for it fails.

    python tools/mutate.py [--only NAME ...] [--list] [--jobs N]

The tree is only read. In build/mutate are an ordinary build of the CPU kernels, quick to compile, and a copy of the
package of links; the tests must pass there. A mutation then costs the compilation of one kernel against its mutated
header, a link in front of all other objects, and one test. The exit status is 1 where a mutation survives, where its
pattern does not occur exactly once, or where its test fails without it.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
MATH = ROOT / "csrc" / "math"
BUILD = ROOT / "build" / "mutate"
OBJECTS = BUILD / "base" / "CMakeFiles" / "_cpu_any.dir" / "csrc"
SECONDS = 600  # for one test


class Failed(Exception):
    """What went wrong, in a word or a few lines."""


def mutated(mutation: Mutation) -> str:
    """The text of the header with the mutation."""
    text = (MATH / mutation.file).read_text()
    if (n := text.count(mutation.old)) != 1:
        raise Failed(f"its pattern occurs {n} times in csrc/math/{mutation.file}")
    return text.replace(mutation.old, mutation.new)


def run(command: list[str], cwd: Path | None = None) -> None:
    """Runs a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise Failed(f"{shlex.join(command)}\n{done.stdout}{done.stderr}"[-4000:])


def build(jobs: int) -> None:
    """Compiles the kernels as they are, for any CPU and without optimisation: only what changed since the last time."""
    options = ["-DPYDISTILL_ISA=any", "-DPYDISTILL_CUDA=0", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0"]
    options += ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", f"-DPython_EXECUTABLE={sys.executable}", "-G", "Ninja"]
    run(["cmake", "-S", str(ROOT), "-B", str(BUILD / "base"), *options])
    run(["cmake", "--build", str(BUILD / "base"), "--parallel", str(jobs)])


def package(folder: Path) -> Path:
    """Links to the Python files and the tests, without compiled modules; returns where one goes."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pydistill").mkdir(parents=True)
    for path in (ROOT / "pydistill").iterdir():
        if path.suffix != ".so":
            (folder / "pydistill" / path.name).symlink_to(path)
    for name in ("csrc", "tests", "tools", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder / "pydistill" / "_cpu_any.so"


def link(target: Path, first: Path | None = None) -> None:
    """A module of all objects; of functions that several of them have, those of ``first`` are used."""
    own = [first] if first else []
    others = [o for o in sorted(OBJECTS.rglob("*.o")) if not first or o.name != first.name]
    exports = f"-Wl,--version-script={BUILD / 'base' / 'exports'}"
    run([os.environ.get("CXX", "c++"), "-shared", "-o", str(target), *map(str, own + others), "-lgcc", exports])


def compile_mutated(mutation: Mutation, folder: Path) -> Path:
    """The object of the mutation's kernel, its header in front of those of the tree."""
    header = folder / "include" / "math" / mutation.file
    header.parent.mkdir(parents=True)
    header.write_text(mutated(mutation))
    source = f"csrc/cpu/{mutation.op}.cpp"
    known = json.loads((BUILD / "base" / "compile_commands.json").read_text())
    command = shlex.split(next(entry["command"] for entry in known if entry["file"].endswith(source)))
    target = folder / f"{mutation.op}.cpp.o"
    command[command.index("-o") + 1] = str(target)
    command.insert(1, f"-I{folder / 'include'}")
    run(command, cwd=BUILD / "base")
    return target


def passes(folder: Path, tests: list[str]) -> tuple[bool, str]:
    """Whether ``tests`` pass in ``folder``, and what pytest says. A crash and a hang are failures as well."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
    env = {**os.environ, "PYDISTILL_ISA": "any", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False, "it hangs"
    said = (done.stdout + done.stderr)[-4000:]
    if done.returncode > 1 or (done.returncode == 0 and " passed" not in said):  # no such test, no module, or skipped
        raise Failed(f"the test did not run\n{said}")
    return done.returncode == 0, said


def verdict(mutation: Mutation) -> str:
    """What a mutation is to be blamed for; nothing where its test sees it."""
    folder = BUILD / f"{mutation.file}.{MUTATIONS.index(mutation)}"
    try:
        module = package(folder)
        link(module, compile_mutated(mutation, folder))
        survives, _ = passes(folder, [mutation.test])
        return "SURVIVES" if survives else ""
    except Failed as error:
        return str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Tries the mutations; the exit status is 0 where each is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="those whose name, file or kernel has one of these")
    parser.add_argument("--list", action="store_true", help="print them and stop")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="mutations at a time")
    options = parser.parse_args()
    words = options.only or [""]
    chosen = [m for m in MUTATIONS if any(word in (m.name, m.file, m.op) or word in m.name for word in words)]
    if options.list or not chosen:
        for m in chosen:
            print(f"{m.name}\n    {m.file}: {m.old} -> {m.new}\n    {m.test}")
        return 0 if chosen else 1
    try:
        build(options.jobs)
        link(package(BUILD / "unmutated"))
        right, said = passes(BUILD / "unmutated", sorted({m.test for m in chosen}))
    except Failed as error:
        right, said = False, str(error)
    if not right:
        print(f"without a mutation:\n{said}")
        return 1
    bad = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for m, blame in zip(chosen, pool.map(verdict, chosen)):
            print(f"{'ok  ' if not blame else 'BAD '} {m.file:34} {m.name}{': ' if blame else ''}{blame}", flush=True)
            bad += bool(blame)
    print(f"{len(chosen)} mutations, {bad} of which no test sees, or that could not be tried")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
