"""Self-contained HTML pages: one file, pictures and plots inside, opened from disk."""

import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import torch

from pydistill import __version__


def render(template: str, target: Path, **content: Any) -> Path:
    """Fills the template of that name in this folder and writes it to ``target``, which it returns."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(pages.get_template(template).render(**content), encoding="utf-8")
    return target


def environment(device: torch.device) -> dict[str, str]:
    """What a result depends on, for the foot of a report: date, command, hardware, versions."""
    gpu = {"GPU": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["pydistill", *sys.argv[1:]]),
        "device": str(device),
        **gpu,
        "processor": f"{_processor()}, {os.cpu_count()} logical cores, {torch.get_num_threads()} threads used",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "pydistill": __version__,
        **{name: version(name) for name in ("torch", "lightning", "numpy", "opencv-python-headless")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
