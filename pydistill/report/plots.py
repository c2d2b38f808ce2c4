"""Line plots as inline SVG."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#64748b", "#2563eb", "#d97706", "#059669")


_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "pydistill", "font.family": "sans-serif", "font.size": 10}


@dataclass(frozen=True)
class Line:
    """One curve: x and y of its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0  # index into COLOURS
    dashed: bool = False


def series(history: Sequence[Mapping[str, float]], name: str, smooth: int = 1) -> tuple[list[float], list[float]]:
    """Steps and values of one column of the log; each value is the mean of up to ``smooth`` rows that end there."""
    rows = [(row["step"], row[name]) for row in history if name in row]
    values = [float(np.mean([v for _, v in rows[max(0, i - smooth + 1) : i + 1]])) for i in range(len(rows))]
    return [step for step, _ in rows], values


def line_plot(
    title: str, lines: Sequence[Line], *, log: bool = False, marker: float | None = None, marked: str = ""
) -> str:
    """Draws curves over training steps.

    Args:
        title: over the plot.
        lines: curves; with several there is a legend.
        log: logarithmic y axis.
        marker: x of a vertical line.
        marked: its label.

    Returns:
        An ``<svg>`` element whose text is text, in the page's font.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            style = "--" if line.dashed else "-"
            axes.plot(line.x, line.y, style, color=COLOURS[line.colour], label=line.name, linewidth=1.8)
        if marker is not None:
            axes.axvline(marker, color="#94a3b8", linewidth=1, linestyle=":")
            axes.annotate(
                marked,
                (marker, 0.98),
                (4, 0),
                ("data", "axes fraction"),
                "offset points",
                va="top",
                fontsize=9,
                color="#64748b",
            )
        if log:
            axes.set_yscale("log")
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("step")
        axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(frameon=False, loc="best")
        return _svg(figure)


def distribution_plots(
    titles: Sequence[str], lines: Sequence[Sequence[Line]], marks: Sequence[float], xlabel: str
) -> str:
    """Draws distributions over bins side by side, as steps, the first of each filled.

    Args:
        titles: one a panel.
        lines: of each panel, x being the bins and y their probabilities; the first panel has the legend.
        marks: the true value of each panel, a dotted line.
        xlabel: what the bins are.

    Returns:
        An ``<svg>`` element, as ``line_plot``.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.9 * len(titles), 2.1), layout="constrained")
        panels = figure.subplots(1, len(titles), sharey=True)
        for axes, title, some, mark in zip(panels, titles, lines, marks):
            for i, line in enumerate(some):
                style = "--" if line.dashed else "-"
                axes.plot(line.x, line.y, style, drawstyle="steps-mid", color=COLOURS[line.colour], label=line.name)
                if i == 0:
                    axes.fill_between(line.x, line.y, step="mid", color=COLOURS[line.colour], alpha=0.2, linewidth=0)
            axes.axvline(mark, color="#0f172a", linewidth=1, linestyle=":")
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel(xlabel)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].legend(frameon=False, loc="best", fontsize=8)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
