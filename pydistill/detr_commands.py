"""``pydistill generate|train|evaluate|predict detr``; each imports what it needs when it runs."""

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
from pydistill.dense_commands import Backbone, Preset, generate

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["evaluate", "generate", "predict", "train"]


class Detector(str, Enum):
    """Detectors by queries."""

    detr = "detr"
    conditional_detr = "conditional_detr"
    deformable_detr = "deformable_detr"
    rt_detr = "rt_detr"
    adamixer = "adamixer"


class Reference(str, Enum):
    """Whose loss."""

    paper = "paper"
    released = "released"


class Region(str, Enum):
    """Where features are compared."""

    quality = "quality"
    query = "query"
    boxes = "boxes"
    none = "none"


class Pairs(str, Enum):
    """Which pairs of queries teach."""

    all = "all"
    positives = "positives"
    negatives = "negatives"
    none = "none"


class Stage(str, Enum):
    """The teacher's stage that a student's learns from."""

    same = "same"
    last = "last"


class Assignment(str, Enum):
    """What the teacher's queries are matched with in the student."""

    teacher = "teacher"
    rematch = "rematch"


Weight = Annotated[float | None, typer.Option(help="weight of a term of DETRDistill; the reference's unless told")]
TeachingPairs = Annotated[Pairs | None, typer.Option(help="pairs of queries that teach")]

_DEMO = (
    "preset", "output", "seed", "steps", "teacher", "from_scratch", "resume", "workers", "accelerator", "precision",
)  # fmt: skip


def train(
    context: typer.Context,
    preset: Annotated[
        Preset, typer.Option(help="demo: both students, a report; student, teacher: one of them; paper: real data")
    ] = Preset.demo,
    data: Annotated[
        Path | None, typer.Option(help="folder of the data set, which --preset paper needs; generated without one")
    ] = None,
    output: Annotated[Path, typer.Option(help="folder for checkpoints, logs, results")] = Path("runs/detr"),
    teacher: Annotated[
        Path | None, typer.Option(help="checkpoint of the teacher; the committed one unless told")
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="demo: train the teacher too")] = False,
    detector: Annotated[Detector | None, typer.Option(help="network")] = None,
    backbone: Annotated[Backbone | None, typer.Option(help="its backbone")] = None,
    backbone_weights: BackboneWeights = None,
    width: Annotated[float | None, typer.Option(help="share of the backbone's channels")] = None,
    queries: Annotated[int | None, typer.Option(help="number of queries")] = None,
    layers: Annotated[int | None, typer.Option(help="stages of the decoder")] = None,
    detrdistill: Annotated[bool | None, typer.Option(help="DETRDistill; on in the preset paper")] = None,
    reference: Annotated[Reference | None, typer.Option(help="whose loss, where paper and code disagree")] = None,
    instance: Weight = None,
    feature: Weight = None,
    relation: Weight = None,
    group: Weight = None,
    instance_stage: Annotated[Stage | None, typer.Option(help="of the teacher")] = None,
    instance_class_pairs: TeachingPairs = None,
    instance_box_pairs: TeachingPairs = None,
    feature_region: Annotated[Region | None, typer.Option(help="where features are compared; none: all over")] = None,
    assignment: Annotated[Assignment | None, typer.Option(help="of the teacher's queries in the student")] = None,
    steps: Steps = None,
    batch: BatchSize = None,
    lr: LearningRate = None,
    size: Annotated[tuple[int, int] | None, typer.Option(help="height and width that pictures fit into")] = None,
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
    """Train a detector by queries, with or without DETRDistill from a frozen teacher.

    The folder gets last.pt, metrics.csv and TensorBoard events. The preset demo trains a student without and with
    DETRDistill and writes a report. The preset reproduce trains the whole table of comparisons, each row once: a
    stopped table goes on where it was.
    """
    with readable_errors():
        from pydistill.recipes.detr import reproduce
        from pydistill.recipes.detr.config import DISTILL_OPTIONS, PAPER, STUDENT, TEACHER
        from pydistill.recipes.detr.run import train as run

        if preset is Preset.reproduce:
            refuse_others(context, ("preset", "output", "accelerator", "precision"))
            reproduce.run(output, make_fabric(accelerator, 1, precision))
            return
        if preset is Preset.demo:
            refuse_others(context, _DEMO)
            fabric = make_fabric(accelerator, 1, precision)
            sys.exit(_demo(fabric, output, seed, steps, teacher, from_scratch, resume, workers))
        if from_scratch:
            raise ValueError("train: expected --from-scratch beside the preset demo alone")
        chosen: dict[str, Any] = {
            "detector": detector, "backbone": backbone, "width": width, "queries": queries,
            "layers": layers, "detrdistill": detrdistill, "reference": reference, "instance": instance,
            "feature": feature, "relation": relation, "group": group, "instance_stage": instance_stage,
            "instance_class_pairs": instance_class_pairs, "instance_box_pairs": instance_box_pairs,
            "feature_region": feature_region, "assignment": assignment, "steps": steps, "batch": batch, "lr": lr,
            "size": size, "seed": seed, "save_every": save_every,
        }  # fmt: skip
        given = {k: v.value if isinstance(v, Enum) else v for k, v in chosen.items() if v is not None}
        base = {Preset.student: STUDENT, Preset.teacher: TEACHER, Preset.paper: PAPER}[preset]
        config = replace(base, **given)
        if not config.detrdistill:
            refuse_without("--detrdistill", context, ("teacher", *DISTILL_OPTIONS))
        if preset is Preset.paper:
            require_data(data, dry_run, "--teacher" if config.detrdistill and teacher is None else "")
        run(
            config, make_fabric(accelerator, devices, precision), data, output, teacher=teacher, resume=resume,
            workers=workers, malformed=malformed.value, backbone_weights=backbone_weights, dry_run=dry_run,
        )  # fmt: skip


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[Path, typer.Option(help="folder of the data set")] = Path("runs/detr/data"),
    split: Annotated[str, typer.Option(help="train or val, or the name that the file of annotations has")] = "val",
    output: Annotated[Path | None, typer.Option(help="file for the detections, as COCO's evaluator reads them")] = None,
    malformed: OnFaulty = Faulty.refuse,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
) -> None:
    """Score a trained detector by COCO's average precision."""
    with readable_errors():
        from pydistill.recipes.dense.evaluation import write_detections
        from pydistill.recipes.dense.run import open_data
        from pydistill.recipes.dense.training import check_classes
        from pydistill.recipes.detr.evaluation import Boxes
        from pydistill.recipes.detr.evaluation import evaluate as score
        from pydistill.recipes.detr.training import load_student

        student, config, classes = load_student(checkpoint)
        pictures = open_data(config, data, split, malformed=malformed.value)
        check_classes(classes, pictures.dataset.classes, "evaluate")
        found = score(make_fabric(accelerator, 1, precision).setup_module(Boxes(student)), pictures)
        if output:
            write_detections(pictures.dataset, found.detections, output)
        print(found.table, f"{found.milliseconds:.1f} ms a picture, network and decoder", sep="\n")


def predict(
    checkpoint: Checkpoint,
    source: Source,
    output: Target,
    score: Annotated[float, typer.Option(help="probability from which a box is drawn")] = 0.3,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
) -> None:
    """Draw the boxes that a trained detector finds."""
    with readable_errors():
        from pydistill.recipes.dense.prediction import draw_predictions
        from pydistill.recipes.detr.evaluation import Boxes, find
        from pydistill.recipes.detr.training import load_student

        student, config, classes = load_student(checkpoint)
        module = make_fabric(accelerator, 1, precision).setup_module(Boxes(student))
        count = draw_predictions(module, config, classes, source, output, score, find)
        print(f"{count} drawn: {output.resolve()}")


def _demo(
    fabric: "Fabric", output: Path, seed: int, steps: int | None, teacher: Path | None, from_scratch: bool,
    resume: bool, workers: int,
) -> int:  # fmt: skip
    """Runs the demo; returns 1 where a trained network does not beat the untrained one, else 0."""
    from pydistill.recipes.detr.config import STUDENT
    from pydistill.recipes.detr.demo import Demo, Plan
    from pydistill.recipes.detr.report import write_report

    config = replace(STUDENT, seed=seed, steps=steps or STUDENT.steps)
    options: dict[str, Any] = dict(teacher=teacher, from_scratch=from_scratch, resume=resume, workers=workers)
    result = Demo(Plan(config), output, fabric, **options).run()
    report = write_report(result, output / "report.html", fabric.device)
    for failure in result.failures():
        print(failure, file=sys.stderr)
    print(f"report: {report.resolve()}")
    return 1 if result.failures() else 0
