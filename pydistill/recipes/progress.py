"""Trainings under the eye of a user: a bar, and what the whole would take."""

import resource
import time
from typing import Any

import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pydistill.recipes.training import Row, TrainingLoop


def run_with_progress(
    training: TrainingLoop[Any, Any], about: str, until: int | None = None, console: Console | None = None
) -> None:
    """Trains up to step ``until``, or to the end, with a bar that shows the latest losses."""
    text, losses = TextColumn("{task.description}"), TextColumn("{task.fields[losses]}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), losses)
    with Progress(*columns, console=console, disable=not training.fabric.is_global_zero) as progress:
        task = progress.add_task(about, total=training.config.steps, completed=training.step, losses="")

        def show(step: int, row: Row) -> None:
            shown = (f"{name} {row[name]:.3f}" for name in training.shown if name in row)
            progress.update(task, completed=step, losses="  ".join(shown))

        training.run(until, show)


def rehearse(training: TrainingLoop[Any, Any], steps: int) -> str:
    """Trains ``steps`` steps and says what the whole training would take: memory, time. Writes nothing.

    The forecast is the fastest of these steps times their number in all.
    """
    seconds = step_seconds(training, steps)
    config, device = training.config, training.fabric.device
    size = " x ".join(map(str, config.size))
    return (
        f"{training.name}, {config.batch} {training.unit} of {size} a step, {device}: "
        f"{min(seconds):.2f} s a step, at most {_peak_memory(training.fabric):.1f} GiB, "
        f"about {min(seconds) * config.steps / 3600:.1f} hours for {config.steps} steps"
    )


def step_seconds(training: TrainingLoop[Any, Any], steps: int) -> list[float]:
    """How long each of the next ``steps`` steps takes."""
    times = [time.perf_counter()]

    def stop(step: int, row: Row) -> None:
        if training.fabric.device.type == "cuda":
            torch.cuda.synchronize(training.fabric.device)
        times.append(time.perf_counter())

    training.run(training.step + steps, stop)
    return [after - before for before, after in zip(times[:-1], times[1:])]


def _peak_memory(fabric: Fabric) -> float:
    """The most memory in GiB that this process has used, on its GPU where it has one."""
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated(fabric.device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
