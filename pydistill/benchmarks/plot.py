"""A summary as two plots: bandwidth over sizes, and arithmetic over its intensity, each under the machine's roofs."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

CONTENDERS = {"ours": ("#2563eb", "o"), "compiled": ("#d97706", "s"), "eager": ("#64748b", "^")}
ROOF = "#0f172a"
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "pydistill", "font.family": "sans-serif", "font.size": 10}


def write_plot(summary: dict[str, Any], file: Path) -> None:
    """Draws ``summary`` into ``file``, in the format that its name ends in; raises ValueError for an unknown one."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        bandwidth(left, summary)
        roofline(right, summary)
        figure.suptitle(summary["machine"]["name"], x=0.01, ha="left", fontsize=11, fontweight="bold")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150)


def bandwidth(axes: Any, summary: dict[str, Any]) -> None:
    """GB/s of each case against the bytes that it must move; the roof is a call's latency, then copying."""
    rows, machine = [*summary["rows"].values()], summary["machine"]
    points(axes, rows, [row["bytes_moved"] for row in rows], [row["bytes_moved"] / 1e6 for row in rows])
    moved = spread([row["bytes_moved"] for row in rows])
    for threads, rate in machine["copy_gb_s"].items():
        seconds = np.maximum(moved / rate / 1e9, machine["latency_us"] / 1e6)
        roof(axes, moved, moved / seconds / 1e9, f"copy {rate:.3g} GB/s", threads)
    finish(axes, "bandwidth", "bytes that must move", "GB/s")


def roofline(axes: Any, summary: dict[str, Any]) -> None:
    """Gop/s of each case that counts its operations against operations a byte, under copying and float32 torch.mm."""
    rows, machine = [row for row in summary["rows"].values() if row["operations"]], summary["machine"]
    intensity = [row["operations"] / row["bytes_moved"] for row in rows]
    points(axes, rows, intensity, [row["operations"] / 1e6 for row in rows])
    if not rows:
        axes.text(0.05, 0.95, "no case counts its operations", va="top", transform=axes.transAxes)
    across = spread(
        [*intensity, *(machine["operations_gflop_s"][n] / rate for n, rate in machine["copy_gb_s"].items())]
    )
    for threads, rate in machine["copy_gb_s"].items():
        peak = machine["operations_gflop_s"][threads]
        roof(axes, across, np.minimum(across * rate, peak), f"copy, then torch.mm {peak:.3g} Gop/s", threads)
    finish(axes, "roofline", "operations a byte", "Gop/s")


def points(axes: Any, rows: list[dict[str, Any]], x: list[float], work: list[float]) -> None:
    """Each contender's rate: ``work``, in millions, over its milliseconds is billions a second."""
    for name, (colour, marker) in CONTENDERS.items():
        at = [i for i, row in enumerate(rows) if name in row["minimum_ms"]]
        rates = [work[i] / rows[i]["minimum_ms"][name] for i in at]
        if at:
            axes.plot([x[i] for i in at], rates, marker, color=colour, label=name, markersize=5, alpha=0.8)


def spread(values: list[float]) -> Any:
    """From a quarter of the smallest to four times the largest."""
    return np.geomspace(min(values) / 4, max(values) * 4, 200)


def roof(axes: Any, x: Any, y: Any, label: str, threads: str) -> None:
    """A line over the points; more threads have longer dashes."""
    style = "-" if threads == "1" else "--"
    axes.plot(x, y, style, color=ROOF, linewidth=1, label=f"{label}, {threads} thread{'s' * (threads != '1')}")


def finish(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Scales, labels and legend."""
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(color="#e2e8f0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
