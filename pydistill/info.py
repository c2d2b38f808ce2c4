"""What is installed, what was chosen, and what to do where something is missing: ``pydistill info``."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from pydistill import __version__

# CUDA's minor-version compatibility: the oldest Linux driver for each major toolkit.
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
_TRAIN = ("lightning", "cv2", "scipy", "matplotlib", "jinja2", "rich", "tensorboard", "typer")
_REBUILD = "PYDISTILL_CUDA=1 pip install . in the source tree, with nvcc in PATH"


@dataclass(frozen=True)
class Row:
    """One line of the report; ``advice`` says what to do, where there is something to do."""

    name: str
    value: str
    advice: str = ""


def collect() -> list[Row]:
    """The rows of the report. Needs neither the train extra, nor a GPU, nor a complete installation."""
    kernels = [*_cpu(), *_cuda()] if find_spec("torch") else []
    return [*_versions(), *kernels, *_train()]


def report() -> str:
    """The report as text, with an arrow before each piece of advice."""
    rows = collect()
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.name:<{width}}  {row.value}")
        if row.advice:
            lines.append(f"{'':<{width}}  -> {row.advice}")
    return "\n".join(lines)


def main() -> None:
    """Prints the report."""
    print(report())


def oldest_driver(toolkit: str) -> int | None:
    """The oldest driver, by its first number, that runs code of a toolkit such as ``"13.0.88"``; None if unknown."""
    return _OLDEST_DRIVER.get(int(toolkit.split(".")[0])) if re.match(r"\d+\.", toolkit) else None


def driver_advice(toolkit: str, driver: str | None) -> str:
    """What to do about ``driver`` where the kernels were built with ``toolkit``; empty where nothing needs doing."""
    oldest = oldest_driver(toolkit)
    if driver is None:
        return "no NVIDIA driver answers: pydistill runs on the CPU only"
    if oldest is not None and int(driver.split(".")[0]) < oldest:
        return f"the driver is too old, pydistill runs on the CPU only: install driver {oldest} or newer, or {_REBUILD}"
    return ""


def find_driver() -> str | None:
    """The version of the NVIDIA driver, from the kernel module or nvidia-smi; None where there is none."""
    loaded = Path("/proc/driver/nvidia/version")
    if loaded.exists() and (match := re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", loaded.read_text())):
        return match[1]
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return answer[0] if answer and answer[0][0].isdigit() else None


def _versions() -> Iterator[Row]:
    yield Row("pydistill", f"{__version__} in {Path(__file__).parent}")
    yield Row("Python", f"{platform.python_version()} on {platform.machine()}")
    for package in ("torch", "numpy"):
        try:
            yield Row(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Row(package, "missing", f"pip install {package}")


def _cpu() -> Iterator[Row]:
    try:
        import torch

        from pydistill import _C
    except ImportError as error:
        yield Row("CPU kernels", "none", f"{error}")
        return
    chosen, forced = _level(_C.cpu.__name__), os.environ.get("PYDISTILL_ISA")
    yield Row("CPU kernels", f"{chosen}, {'asked for by PYDISTILL_ISA' if forced else 'chosen'} of {_levels()}")
    yield Row("threads", f"{torch.get_num_threads()}, of torch.set_num_threads")
    if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        yield Row("DLPack", "C exchange table")
    else:
        yield Row("DLPack", "__dlpack__", "torch 2.10 or newer hands tensors over faster")


def _level(module: str) -> str:
    return module.rpartition("_cpu_")[2].split(".")[0]


def _levels() -> str:
    """The instruction sets that were built, those that this CPU lacks marked."""
    levels = []
    for level in sorted(_level(file.name) for file in Path(__file__).parent.glob("_cpu_*.so")):
        try:
            import_module(f"pydistill._cpu_{level}")
            levels.append(level)
        except ImportError:
            levels.append(f"{level} (not for this CPU)")
    return ", ".join(levels)


def _cuda() -> Iterator[Row]:
    import torch

    driver = find_driver()
    try:
        module = import_module("pydistill._cuda")
    except ImportError as error:
        missing = find_spec("pydistill._cuda") is None
        yield Row("CUDA kernels", "not built" if missing else f"{error}", f"for a GPU: {_REBUILD}")
        yield Row("driver", driver or "none found")
        return
    toolkit = str(getattr(module, "CUDA_VERSION", "unknown"))
    yield Row("CUDA kernels", f"toolkit {toolkit}, architectures {getattr(module, 'ARCHITECTURES', 'unknown')}")
    needed = oldest_driver(toolkit) or "unknown"
    yield Row("driver", f"needed {needed}, found {driver or 'none'}", driver_advice(toolkit, driver))
    if driver is not None and torch.version.cuda is None:
        yield Row("torch CUDA", "none", "this torch is for the CPU alone: install a CUDA build of torch")


def _train() -> Iterator[Row]:
    missing = [package for package in _TRAIN if find_spec(package) is None]
    advice = "for recipes and demos: pip install 'pydistill[train]'" if missing else ""
    yield Row("train extra", f"missing {', '.join(missing)}" if missing else "installed", advice)


if __name__ == "__main__":
    main()
