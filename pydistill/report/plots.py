"""Line plots as inline SVG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#64748b", "#2563eb", "#d97706", "#059669")


@dataclass(frozen=True)
class Line:
    """One curve: x and y of its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0  # index into COLOURS
    dashed: bool = False


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
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "pydistill", "font.family": "sans-serif", "font.size": 10}
    ):
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
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
