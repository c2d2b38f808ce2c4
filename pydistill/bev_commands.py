"""``pydistill generate|train|evaluate|predict bev``; each imports what it needs when it runs."""

import sys
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
    Steps,
    Workers,
    make_fabric,
    readable_errors,
    refuse_others,
    refuse_without,
    require_data,
)  # fmt: skip
from pydistill.dense_commands import Backbone, Preset

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class Modality(str, Enum):
    """What a detector sees."""

    lidar = "lidar"
    camera = "camera"
    fusion = "fusion"


class Teacher(str, Enum):
    """What a teacher sees; or that there is none."""

    lidar = "lidar"
    camera = "camera"
    fusion = "fusion"
    none = "none"


class Reference(str, Enum):
    """Whose loss."""

    paper = "paper"
    released = "released"


class AdapterKind(str, Enum):
    """What stands between the student's features and the losses."""

    none = "none"
    one = "1x1"
    three = "3x3"


Weight = Annotated[float | None, typer.Option(help="weight of a term of UniDistill; that of the pair unless told")]

_DEMO = (
    "preset", "output", "seed", "steps", "teacher_checkpoint", "from_scratch", "resume", "workers", "accelerator",
    "precision",
)  # fmt: skip


def generate(
    output: Annotated[Path, typer.Argument(help="folder for the data set")],
    train: Annotated[int, typer.Option(help="scenes to train on, two samples each")] = 500,
    test: Annotated[int, typer.Option(help="scenes to test on")] = 100,
    size: Annotated[tuple[int, int], typer.Option(help="height and width of the pictures")] = (48, 96),
    seed: Annotated[int, typer.Option(help="names the world that the scenes are from")] = 0,
    workers: Drawing = 2,
) -> None:
    """Draw roads seen by a LiDAR and six cameras, in the layout of nuScenes."""
    with readable_errors():
        from pydistill.recipes.bev.generate import write_nuscenes

        root = write_nuscenes(output, seed, train, test, size=size, workers=workers)
        print(f"{train} + {test} scenes in {root.resolve()}")


def train(
    context: typer.Context,
    preset: Annotated[
        Preset, typer.Option(help="demo: both students, a report; student, teacher: one of them; paper: real data")
    ] = Preset.demo,
    data: Annotated[
        Path | None, typer.Option(help="folder of the data set, which --preset paper needs; generated without one")
    ] = None,
    output: Annotated[Path, typer.Option(help="folder for checkpoints, logs, results")] = Path("runs/bev"),
    student: Annotated[Modality | None, typer.Option(help="what the trained detector sees")] = None,
    teacher: Annotated[
        Teacher | None, typer.Option(help="what its teacher sees; without one it learns alone, but with preset paper")
    ] = None,
    teacher_checkpoint: Annotated[
        Path | None, typer.Option(help="of the teacher; the committed one unless told")
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="demo: train the teacher too")] = False,
    backbone: Annotated[Backbone | None, typer.Option(help="of the cameras")] = None,
    backbone_weights: BackboneWeights = None,
    reference: Annotated[Reference | None, typer.Option(help="whose loss, where paper and code disagree")] = None,
    feature: Weight = None,
    relation: Weight = None,
    response: Weight = None,
    adapter: Annotated[AdapterKind | None, typer.Option(help="on the student's features, in training alone")] = None,
    steps: Steps = None,
    batch: BatchSize = None,
    lr: LearningRate = None,
    size: Annotated[tuple[int, int] | None, typer.Option(help="height and width of the pictures")] = None,
    cells: Annotated[int | None, typer.Option(help="rows and columns of the map")] = None,
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
    """Train a detector in bird's-eye view, with or without UniDistill from a frozen teacher.

    The folder gets last.pt, metrics.csv and TensorBoard events. The preset demo trains a camera student alone and with
    a LiDAR teacher and writes a report. The preset reproduce trains the whole table of comparisons, each row once: a
    stopped table goes on where it was.
    """
    with readable_errors():
        from pydistill.recipes.bev import reproduce
        from pydistill.recipes.bev.config import PAPER, STUDENT, TEACHER, TERMS
        from pydistill.recipes.bev.run import train as run

        if preset is Preset.reproduce:
            refuse_others(context, ("preset", "output", "accelerator", "precision"))
            reproduce.run(output, make_fabric(accelerator, 1, precision))
            return
        if preset is Preset.demo:
            refuse_others(context, _DEMO)
            fabric = make_fabric(accelerator, 1, precision)
            sys.exit(_demo(fabric, output, seed, steps, teacher_checkpoint, from_scratch, resume, workers))
        if from_scratch:
            raise ValueError("train: expected --from-scratch beside the preset demo alone")
        chosen: dict[str, Any] = {
            "modality": student, "backbone": backbone, "reference": reference, "feature": feature,
            "relation": relation, "response": response, "adapter": adapter, "steps": steps, "batch": batch, "lr": lr,
            "size": size, "cells": cells, "seed": seed, "save_every": save_every,
        }  # fmt: skip
        given = {k: v.value if isinstance(v, Enum) else v for k, v in chosen.items() if v is not None}
        if teacher or teacher_checkpoint:
            given["unidistill"] = teacher is not Teacher.none
        seeing: Any = None if teacher in (None, Teacher.none) else Modality(teacher).value
        base = {Preset.student: STUDENT, Preset.teacher: TEACHER, Preset.paper: PAPER}[preset]
        config = replace(base, **given)
        if not config.unidistill:
            refuse_without("--teacher", context, (*TERMS, "reference", "adapter", "teacher_checkpoint"))
        if preset is Preset.paper:
            require_data(data, dry_run, "--teacher-checkpoint" if config.unidistill and not teacher_checkpoint else "")
        run(
            config, make_fabric(accelerator, devices, precision), data, output,
            teacher=seeing, checkpoint=teacher_checkpoint,
            resume=resume, workers=workers, malformed=malformed.value, backbone_weights=backbone_weights,
            dry_run=dry_run,
        )  # fmt: skip


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[Path, typer.Option(help="folder of the data set")] = Path("runs/bev/data"),
    split: Annotated[str, typer.Option(help="a key of splits.json")] = "val",
    output: Annotated[
        Path | None, typer.Option(help="file for the detections, as nuScenes' evaluator reads them")
    ] = None,
    malformed: OnFaulty = Faulty.refuse,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
) -> None:
    """Score a trained detector by nuScenes' metric."""
    with readable_errors():
        from pydistill.recipes.bev.evaluation import find, score_found, write_results
        from pydistill.recipes.bev.run import open_data
        from pydistill.recipes.bev.training import load_student

        student, config = load_student(checkpoint)
        samples = open_data(config, data, split, malformed=malformed.value)
        fabric = make_fabric(accelerator, 1, precision)
        network = fabric.to_device(student)
        with fabric.autocast():
            found = find(network, samples, range(len(samples)), config.grid)
        if output:
            write_results(found, samples, output, config.modality)
        print(score_found(found, samples, config.grid).table())


def predict(
    checkpoint: Checkpoint,
    data: Annotated[Path, typer.Argument(help="folder of a data set in nuScenes' layout")],
    output: Annotated[Path, typer.Argument(help="folder for the pictures")],
    split: Annotated[str, typer.Option(help="a key of splits.json")] = "val",
    count: Annotated[int, typer.Option(help="samples that are drawn")] = 10,
    score: Annotated[float, typer.Option(help="probability from which a box is drawn")] = 0.3,
    malformed: OnFaulty = Faulty.refuse,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
) -> None:
    """Draw the boxes that a trained detector finds: samples from above and in their cameras."""
    with readable_errors():
        from pydistill.recipes.bev.prediction import draw_predictions
        from pydistill.recipes.bev.run import open_data
        from pydistill.recipes.bev.training import load_student

        student, config = load_student(checkpoint)
        samples = open_data(config, data, split, malformed=malformed.value)
        fabric = make_fabric(accelerator, 1, precision)
        with fabric.autocast():
            drawn = draw_predictions(fabric.to_device(student), samples, config, output, count, score)
        print(f"{drawn} drawn: {output.resolve()}")


def _demo(
    fabric: "Fabric", output: Path, seed: int, steps: int | None, teacher: Path | None, from_scratch: bool,
    resume: bool, workers: int,
) -> int:  # fmt: skip
    """Runs the demo; returns 1 where a trained network does not beat the untrained one, else 0."""
    from pydistill.recipes.bev.config import STUDENT
    from pydistill.recipes.bev.demo import Demo, Plan
    from pydistill.recipes.bev.report import write_report

    config = replace(STUDENT, seed=seed, steps=steps or STUDENT.steps)
    options: dict[str, Any] = dict(teacher=teacher, from_scratch=from_scratch, resume=resume, workers=workers)
    result = Demo(Plan(config), output, fabric, **options).run()
    report = write_report(result, output / "report.html", fabric.device)
    for failure in result.failures():
        print(failure, file=sys.stderr)
    print(f"report: {report.resolve()}")
    return 1 if result.failures() else 0
