"""``pydistill generate|train|evaluate|predict lanes``; each imports what it needs when it runs."""

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydistill.command_tools import (
    Accelerator,
    BackboneWeights,
    BatchSize,
    Checkpoint,
    Devices,
    Drawing,
    DryRun,
    Faulty,
    LearningRate,
    OnFaulty,
    Precision,
    Resume,
    SaveEvery,
    Seed,
    Source,
    Steps,
    Target,
    Workers,
    make_fabric,
    readable_errors,
    refuse_others,
    refuse_without,
    require_data,
)  # fmt: skip

if TYPE_CHECKING:
    from pydistill.recipes.lanes.config import LaneConfig


class Layout(str, Enum):
    """Data sets whose layout, decoder and metric are known."""

    tusimple = "tusimple"
    culane = "culane"
    bdd100k = "bdd100k"


class Preset(str, Enum):
    """Sizes of a training."""

    demo = "demo"
    paper = "paper"
    reproduce = "reproduce"


class Network(str, Enum):
    """Lane networks."""

    enet = "enet"
    resnet18 = "resnet18"
    resnet34 = "resnet34"


class Reference(str, Enum):
    """Whose loss."""

    paper = "paper"
    port = "port"
    tensorflow = "tensorflow"


def generate(
    output: Annotated[Path, typer.Argument(help="folder for the data set")],
    format: Annotated[Layout, typer.Option(help="layout: tusimple or culane")] = Layout.tusimple,
    train: Annotated[int, typer.Option(help="scenes to train on")] = 800,
    test: Annotated[int, typer.Option(help="scenes to test on")] = 200,
    seed: Annotated[int, typer.Option(help="names the world that the scenes are from")] = 0,
    category: Annotated[list[str] | None, typer.Option(help="CULane category, repeatable; a mix by default")] = None,
    workers: Drawing = 2,
) -> None:
    """Draw road scenes with known lanes, in the layout of TuSimple or CULane."""
    with readable_errors():
        from pydistill.recipes.lanes.generate import write_culane, write_tusimple

        if format is Layout.bdd100k:
            raise ValueError("generate: expected format tusimple or culane, got bdd100k")
        write = write_culane if format is Layout.culane else write_tusimple
        root = write(output, seed, train, test, categories=category or None, workers=workers)
        print(f"{train} + {test} scenes in {root.resolve()}")


def train(
    context: typer.Context,
    preset: Annotated[Preset, typer.Option(help="demo: minutes; paper: real data; reproduce: the table")] = Preset.demo,
    data: Annotated[
        Path | None, typer.Option(help="folder of the data set, which --preset paper needs; generated without one")
    ] = None,
    format: Annotated[Layout, typer.Option(help="layout of the data set")] = Layout.tusimple,
    output: Annotated[Path, typer.Option(help="folder for checkpoints, logs, results")] = Path("runs/lanes"),
    model: Annotated[Network, typer.Option(help="network")] = Network.enet,
    backbone_weights: BackboneWeights = None,
    sad: Annotated[bool | None, typer.Option(help="self attention distillation; on in the preset paper")] = None,
    reference: Annotated[Reference | None, typer.Option(help="whose loss, where paper and codes disagree")] = None,
    gamma: Annotated[float | None, typer.Option(help="weight of SAD")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="deeper stages imitate shallower ones")] = False,
    sad_start: Annotated[float | None, typer.Option(help="share of the steps before SAD")] = None,
    steps: Steps = None,
    batch: BatchSize = None,
    lr: LearningRate = None,
    size: Annotated[tuple[int, int] | None, typer.Option(help="height and width, multiples of 8")] = None,
    seed: Seed = 0,
    resume: Resume = False,
    save_every: SaveEvery = None,
    dry_run: DryRun = 0,
    workers: Workers = 0,
    malformed: OnFaulty = Faulty.refuse,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    precision: Precision = "32-true",
) -> None:
    """Train a lane network, with or without self attention distillation.

    The folder gets last.pt, metrics.csv and TensorBoard events. The preset reproduce trains the whole table of
    comparisons, each row once: a stopped table goes on where it was.
    """
    with readable_errors():
        from pydistill.recipes.lanes import reproduce
        from pydistill.recipes.lanes.run import train as run

        if preset is Preset.reproduce:
            refuse_others(context, ("preset", "output", "accelerator", "precision"))
            reproduce.run(output, make_fabric(accelerator, 1, precision))
            return
        options = {
            "model": model.value, "sad": sad, "reference": reference and reference.value, "gamma": gamma,
            "steps": steps, "batch": batch, "lr": lr, "size": size, "seed": seed, "sad_start": sad_start,
            "save_every": save_every, "direction": "reverse" if reverse else None,
        }  # fmt: skip
        config = _configure(preset, format, {k: v for k, v in options.items() if v is not None})
        if not config.sad:
            refuse_without("--sad", context, ("gamma", "reverse", "sad_start"))
        if preset is Preset.paper:
            require_data(data, dry_run)
        run(
            config, make_fabric(accelerator, devices, precision), data, output, resume=resume, workers=workers,
            malformed=malformed.value, backbone_weights=backbone_weights, dry_run=dry_run,
        )  # fmt: skip


def evaluate(
    checkpoint: Annotated[Path | None, typer.Argument(help="last.pt of a training")] = None,
    data: Annotated[Path, typer.Option(help="folder of the data set")] = Path("runs/lanes/data"),
    split: Annotated[str, typer.Option(help="train, val, test, or a list file below the folder")] = "test",
    output: Annotated[Path | None, typer.Option(help="folder for prediction files")] = None,
    predictions: Annotated[Path | None, typer.Option(help="score these files instead of a network")] = None,
    format: Annotated[Layout, typer.Option(help="layout of the prediction files' data set")] = Layout.tusimple,
    malformed: OnFaulty = Faulty.refuse,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
) -> None:
    """Score a trained network, or prediction files, on a data set, by category where it has some."""
    with readable_errors():
        from pydistill.recipes.lanes.evaluation import evaluate as score
        from pydistill.recipes.lanes.evaluation import score_predictions
        from pydistill.recipes.lanes.splits import open_data
        from pydistill.recipes.lanes.training import load_student

        if predictions is not None:
            print(score_predictions(format.value, data, split, predictions, malformed.value))
            return
        if checkpoint is None:
            raise ValueError("evaluate: expected a checkpoint or --predictions, got neither")
        student, config = load_student(checkpoint)
        module = make_fabric(accelerator, 1, precision).setup_module(student)
        found = score(module, open_data(config, data, split, malformed=malformed.value), config, folder=output)
        print(found.table, f"{found.milliseconds:.1f} ms a picture, network and decoder", sep="\n")


def predict(
    checkpoint: Checkpoint,
    source: Source,
    output: Target,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
) -> None:
    """Draw the lanes that a trained network finds."""
    with readable_errors():
        from pydistill.recipes.lanes.prediction import draw_predictions
        from pydistill.recipes.lanes.training import load_student

        student, config = load_student(checkpoint)
        module = make_fabric(accelerator, 1, precision).setup_module(student)
        count = draw_predictions(module, config, source, output)
        print(f"{count} drawn: {output.resolve()}")


def _configure(preset: Preset, layout: Layout, options: dict[str, Any]) -> "LaneConfig":
    from pydistill.recipes.lanes.config import DEMO, PAPER

    base = replace(DEMO, format=layout.value) if preset is Preset.demo else PAPER[layout.value]
    return replace(base, **options)
