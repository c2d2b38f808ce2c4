"""The command ``pydistill bench``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pydistill._extra import require_bench
from pydistill.command_tools import readable_errors

PLOTS = (".svg", ".png", ".pdf")


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="operators and steps; all where none is named")] = None,
    scale: Annotated[str, typer.Option(help="times the size of a case, one or several with commas")] = "1",
    rounds: Annotated[int, typer.Option(help="of every case; by default 15, fewer where one takes long")] = 0,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
    skip: Annotated[str, typer.Option(help="contenders to leave out, such as compiled; several with commas")] = "",
    plot: Annotated[Path | None, typer.Option(help="draw bandwidths and a roofline: SVG, PNG, PDF")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="write the numbers to this file")] = None,
    listed: Annotated[bool, typer.Option("--list", help="show what can be named, and run nothing")] = False,
) -> None:
    """Time operators and training steps beside PyTorch, torch.compile and what the machine can do."""
    with readable_errors():
        require_bench("bench")
        from pydistill.benchmarks import suites, table

        if listed:
            known = {name: suites.docstring(files[0]).splitlines()[0] for name, files in suites.subjects().items()}
            print(table.aligned([*known.items()]))
            return
        from pydistill.benchmarks import run

        files = suites.chosen(names or [])
        suites.scales(scale)  # refused now, not after the first suite
        suites.skipped(skip)
        for option, value, least in (("rounds", rounds, 0), ("threads", threads, 1)):
            if value < least:
                raise ValueError(f"bench: expected --{option} >= {least}, got {value}")
        if plot and plot.suffix not in PLOTS:
            raise ValueError(f"bench: expected a plot that ends in {', '.join(PLOTS)}, got {plot.name}")
        options = {"scale": scale, "rounds": rounds, "threads": threads, "skip": skip}
        summary, said = run.run(files, options)
        if summary:
            print(table.plain(summary))
            if output:
                output.parent.mkdir(parents=True, exist_ok=True)
                output.write_text(json.dumps(summary, indent=1) + "\n")
            if plot:
                from pydistill.benchmarks.plot import write_plot

                write_plot(summary, plot)
    if said:
        sys.exit(said)
