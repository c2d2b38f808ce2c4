"""The reviewed summaries of benchmarks/results, and how their numbers are written in tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
GPU_CHECK = ".gpu-check.json"
NAMES = {"eager": "eager PyTorch", "compiled": "`torch.compile`", "mmdet": "mmdetection", "scipy": "SciPy"}


@dataclass(frozen=True)
class Summary:
    """One machine's times, as ``pydistill.benchmarks.summary`` writes them."""

    machine: dict[str, Any]
    rows: dict[str, dict[str, Any]]

    @property
    def gpu(self) -> bool:
        """Whether the times are a GPU's."""
        return bool(self.machine["device"] != "cpu")

    def ours(self, key: str) -> float:
        """Our milliseconds."""
        return float(self.rows[key]["minimum_ms"]["ours"])

    def times(self, key: str, peer: str) -> float | None:
        """How many times as long ``peer`` took; None where it did not run."""
        found = self.rows.get(key, {}).get("minimum_ms", {})
        return found[peer] / found["ours"] if peer in found else None


def summaries(folder: Path = RESULTS) -> list[Summary]:
    """All that are committed, CPUs first. A run that was disturbed is an error: nobody may quote it."""
    found = []
    for file in sorted(folder.glob("*.json")):
        if not file.name.endswith(GPU_CHECK):
            read = json.loads(file.read_text())
            if not read["machine"]["valid"]:
                raise SystemExit(f"{file.name}: expected a run on an idle machine, got one that says it was not")
            found.append(Summary(read["machine"], read["rows"]))
    return sorted(found, key=lambda s: s.gpu)


def gpu_checks(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """What `make gpu-check` found on each GPU."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"*{GPU_CHECK}"))]


def milliseconds(number: float) -> str:
    """``12.6 ms``."""
    return f"{digits(number)} ms"


def factor(number: float | None) -> str:
    """``4.3x``; nothing for what was not measured."""
    return "" if number is None else f"{digits(number, 2)}x"


def digits(number: float, count: int = 3) -> str:
    """The first digits, without an exponent."""
    return f"{float(f'{number:.{count}g}'):g}" if number < 10**6 else f"{number:.0f}"


def peer_name(peer: str) -> str:
    """How a contender is called in text."""
    return NAMES.get(peer, peer.replace("_", " "))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
