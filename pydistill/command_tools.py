"""What the commands of all recipes share; nothing heavy is imported before a command runs."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class Faulty(str, Enum):
    """What becomes of lines and files that cannot be used."""

    refuse = "raise"
    skip = "skip"


Accelerator = Annotated[str, typer.Option(help="cpu, cuda or auto")]
Devices = Annotated[int, typer.Option(help="how many; more than one share each batch")]
Precision = Annotated[str, typer.Option(help="as Lightning Fabric names it: 32-true, bf16-mixed, 16-mixed, ...")]
Checkpoint = Annotated[Path, typer.Argument(help="last.pt of a training")]
OnFaulty = Annotated[Faulty, typer.Option("--malformed", help="malformed lines, missing and unreadable files")]
BackboneWeights = Annotated[Path | None, typer.Option(help="torchvision state dict for a ResNet")]
Steps = Annotated[int | None, typer.Option(help="optimiser steps")]
BatchSize = Annotated[int | None, typer.Option(help="pictures, or samples of several, a step, over all devices")]
LearningRate = Annotated[float | None, typer.Option(help="first learning rate")]
Seed = Annotated[int, typer.Option(help="of weights, batches, augmentation")]
Resume = Annotated[bool, typer.Option("--resume", help="go on from last.pt in the output folder")]
SaveEvery = Annotated[int | None, typer.Option(help="steps between checkpoints")]
DryRun = Annotated[int, typer.Option(help="train so many steps, keep nothing of them, say what all would take")]
Workers = Annotated[int, typer.Option(help="processes that read pictures ahead")]
Drawing = Annotated[int, typer.Option(help="threads that draw; the files do not depend on it")]
Source = Annotated[Path, typer.Argument(help="a picture, a video, or a folder of pictures")]
Target = Annotated[Path, typer.Argument(help="file for a picture or a video (MP4), folder for a folder")]


def make_fabric(accelerator: str, devices: int, precision: str) -> "Fabric":
    """Devices and precision, processes started.

    Raises:
        ValueError: for devices that this machine does not have, or a precision that nobody knows.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)  # type: ignore[arg-type]
    except (MisconfigurationException, RuntimeError, TypeError) as error:
        got = f"--accelerator {accelerator} --devices {devices}"
        raise ValueError(f"Fabric: expected devices that this machine has, got {got}") from error
    fabric.launch()
    return fabric


def refuse_others(context: typer.Context, known: Sequence[str]) -> None:
    """Raises ValueError for options that were given and would have no effect."""
    others = _given(context, [name for name in context.params if name not in known])
    if others:
        raise ValueError(f"train: expected no other options beside this preset, got {others}")


def refuse_without(switch: str, context: typer.Context, names: Sequence[str]) -> None:
    """Raises ValueError for options of ``names`` that were given and have no effect without ``switch``."""
    unused = _given(context, names)
    if unused:
        raise ValueError(f"train: expected {switch} beside {unused}")


def require_data(data: Path | None, dry_run: int, teacher: str = "") -> None:
    """Raises ValueError where the preset paper is not told what to read.

    Args:
        data: folder of the data set.
        dry_run: steps of a rehearsal, which scenes and an untrained teacher do for.
        teacher: the option for the teacher's checkpoint, where that is missing.
    """
    if data is None and not dry_run:
        missing = f"--data and {teacher}" if teacher else "--data"
        raise ValueError(f"train: expected {missing} beside --preset paper")


def _given(context: typer.Context, names: Sequence[str]) -> str:
    """Those of ``names`` that stand on the command line, as options."""
    given = [name for name in names if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
    return ", ".join(f"--{name.replace('_', '-')}" for name in given)


@contextmanager
def readable_errors() -> Iterator[None]:
    """What a user can mend is one line, not a traceback."""
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"pydistill: {error}")
