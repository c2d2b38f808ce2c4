"""One wheel, every torch: builds it once and runs tests/ops with it beside each of several torch releases.

    python tools/test_torch_versions.py [VERSION ...] [--environments DIR] [--wheel FILE] [-- PYTEST ARGUMENTS]

The environments are kept, several GB each; a second run only installs the new wheel.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ["2.6.0", "2.13.0", "2.14.1"]
TEST_TOOLS = ["numpy", "scipy", "pytest", "pytest-xdist", "pytest-benchmark"]


def build_wheel(folder: Path) -> Path:
    """Builds the wheel in an isolated environment, where there is no torch."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("pydistill-*.whl")
    return wheel


def environment(folder: Path, version: str) -> Path:
    """The Python of an environment that has torch ``version`` and the tools of the tests."""
    python = folder / version / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / version], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", f"torch=={version}", *TEST_TOOLS], check=True)
    return python


def run_tests(python: Path, wheel: Path, arguments: list[str]) -> tuple[bool, str]:
    """Installs ``wheel`` and runs tests/ops from a copy outside the source tree, which would hide it."""
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel], check=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "tests", Path(folder) / "tests")
        shutil.copy(ROOT / "pyproject.toml", folder)
        command = [str(python), "-m", "pytest", "-q", "tests/ops", *arguments]
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, text=True, stdout=subprocess.PIPE)
    print(done.stdout, flush=True)
    return done.returncode == 0, done.stdout.strip().splitlines()[-1]


def main() -> int:
    """Runs all; the exit status is 0 where every version passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "torch-versions")
    parser.add_argument("--wheel", type=Path, help="test this wheel instead of building one")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, pytest_arguments = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        wheel = (options.wheel or build_wheel(Path(folder))).resolve()
        for version in options.versions:
            python = environment(options.environments.resolve(), version)
            results[version] = run_tests(python, wheel, pytest_arguments)
        for version, (_, summary) in results.items():
            print(f"torch {version}, {wheel.name}: {summary}")
    return 0 if all(passed for passed, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
