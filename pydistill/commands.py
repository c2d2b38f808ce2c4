"""The commands behind ``pydistill``; each imports what it needs when it runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pydistill import __version__, bench_command, bev_commands, dense_commands, detr_commands, lane_commands
from pydistill.command_tools import make_fabric, readable_errors

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Fused losses for knowledge distillation in dense vision."
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pydistill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit")
    ] = False,
) -> None:
    """What stands before any command."""


@app.command()
def info() -> None:
    """Versions, kernels, GPU and driver, and what to do where something is missing."""
    from pydistill.info import main as show

    show()


@app.command()
def demo(
    minutes: Annotated[
        float, typer.Option(help="about how long it takes on two idle cores; sets the number of steps")
    ] = 5,
    quick: Annotated[bool, typer.Option(help="the shortest form that still learns, two minutes")] = False,
    seed: Annotated[int, typer.Option(help="of scenes, weights and batches")] = 0,
    repeats: Annotated[int, typer.Option(help="train with so many seeds and give an interval; shares the minutes")] = 1,
    output: Annotated[Path, typer.Option(help="folder for scenes, checkpoints, logs and the report")] = Path(
        "runs/demo"
    ),
    resume: Annotated[bool, typer.Option(help="go on from the checkpoints in the output folder")] = False,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "auto",
    precision: Annotated[str, typer.Option(help="as Lightning Fabric names it, e.g. bf16-mixed")] = "32-true",
    picture: Annotated[Path | None, typer.Option(help="also write the demo's picture to this PNG file")] = None,
) -> None:
    """Train ENet on generated road scenes with and without self attention distillation, and write a report.

    Exits with 1 where a trained network does not beat the empty prediction and the untrained network.
    """
    with readable_errors():
        from pydistill.recipes.lanes.demo import Demo, Plan
        from pydistill.recipes.lanes.report import write_picture, write_report

        fabric = make_fabric(accelerator, 1, precision)
        result = Demo(Plan.make(minutes, quick, seed, repeats), output, fabric, resume).run()
        report = write_report(result, output / "report.html", fabric.device)
        if picture:
            write_picture(result, picture)
    failures = result.failures()
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"report: {report.resolve()}")
    sys.exit(1 if failures else 0)


app.command()(bench_command.bench)


def _group(help: str) -> typer.Typer:
    return typer.Typer(no_args_is_help=True, help=help)


for verb, help in (
    ("generate", "Draw data sets."),
    ("train", "Train students, with and without distillation."),
    ("evaluate", "Score trained networks."),
    ("predict", "Show what trained networks find."),
):
    group = _group(help)
    group.command("lanes")(getattr(lane_commands, verb))
    group.command("dense")(getattr(dense_commands, verb))
    group.command("detr")(getattr(detr_commands, verb))
    group.command("bev")(getattr(bev_commands, verb))
    app.add_typer(group, name=verb)
