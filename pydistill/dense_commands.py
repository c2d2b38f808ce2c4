"""``pydistill generate|train|evaluate|predict dense``; each imports what it needs when it runs."""

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
    from lightning.fabric import Fabric


class Preset(str, Enum):
    """Sizes of a training."""

    demo = "demo"
    student = "student"
    teacher = "teacher"
    paper = "paper"
    reproduce = "reproduce"


class Backbone(str, Enum):
    """Backbones of detectors."""

    compact = "compact"
    resnet18 = "resnet18"
    resnet34 = "resnet34"
    resnet50 = "resnet50"
    resnet101 = "resnet101"


class Reference(str, Enum):
    """Whose loss."""

    paper = "paper"
    released = "released"
    mmdet = "mmdet"


class Region(str, Enum):
    """Where features are imitated."""

    general_instance = "general_instance"
    fine_grained = "fine_grained"
    inside = "inside"


Weight = Annotated[float | None, typer.Option(help="weight of a term of LD; the reference's unless told")]

_DEMO = (
    "preset",
    "output",
    "seed",
    "steps",
    "teacher",
    "from_scratch",
    "resume",
    "workers",
    "accelerator",
    "precision",
)


def generate(
    output: Annotated[Path, typer.Argument(help="folder for the data set")],
    train: Annotated[int, typer.Option(help="scenes to train on")] = 1200,
    test: Annotated[int, typer.Option(help="scenes to test on")] = 300,
    classes: Annotated[int, typer.Option(help="digits, 0 to one less")] = 10,
    seed: Annotated[int, typer.Option(help="names the world that the scenes are from")] = 0,
    workers: Drawing = 2,
) -> None:
    """Draw scenes of digits before photographs, with their boxes, in the layout of COCO."""
    with readable_errors():
        from pydistill.recipes.dense.generate import write_coco

        root = write_coco(output, seed, train, test, classes=classes, workers=workers)
        print(f"{train} + {test} scenes in {root.resolve()}")


def train(
    context: typer.Context,
    preset: Annotated[
        Preset, typer.Option(help="demo: both students, a report; student, teacher: one of them; paper: real data")
    ] = Preset.demo,
    data: Annotated[
        Path | None, typer.Option(help="folder of the data set, which --preset paper needs; generated without one")
    ] = None,
    output: Annotated[Path, typer.Option(help="folder for checkpoints, logs, results")] = Path("runs/dense"),
    teacher: Annotated[
        Path | None, typer.Option(help="checkpoint of the teacher; the committed one unless told")
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="demo: train the teacher too")] = False,
    backbone: Annotated[Backbone | None, typer.Option(help="network")] = None,
    backbone_weights: BackboneWeights = None,
    ld: Annotated[bool | None, typer.Option(help="localization distillation; on in the preset paper")] = None,
    reference: Annotated[Reference | None, typer.Option(help="whose loss, where paper and codes disagree")] = None,
    main_ld: Weight = None,
    vlr_ld: Weight = None,
    main_kd: Weight = None,
    vlr_kd: Weight = None,
    imitation: Weight = None,
    pseudo_box: Weight = None,
    dfl: Annotated[float | None, typer.Option(help="weight of the distribution focal loss")] = None,
    gamma: Annotated[float | None, typer.Option(help="lower end of the valuable region, a part of the upper")] = None,
    temperature: Annotated[float | None, typer.Option(help="of LD")] = None,
    kd_temperature: Annotated[float | None, typer.Option(help="of KD")] = None,
    imitation_region: Annotated[Region | None, typer.Option(help="where features are imitated")] = None,
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
    """Train a dense detector, with or without localization distillation from a frozen teacher.

    The folder gets last.pt, metrics.csv and TensorBoard events. The preset demo trains a student without and with LD
    and writes a report. The preset reproduce trains the whole table of comparisons, each row once: a stopped table
    goes on where it was.
    """
    with readable_errors():
        from pydistill.recipes.dense import reproduce
        from pydistill.recipes.dense.config import LD_OPTIONS, PAPER, STUDENT, TEACHER
        from pydistill.recipes.dense.run import train as run

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
            "backbone": backbone, "ld": ld, "reference": reference, "main_ld": main_ld, "vlr_ld": vlr_ld,
            "main_kd": main_kd, "vlr_kd": vlr_kd, "imitation": imitation, "pseudo_box": pseudo_box, "dfl": dfl,
            "gamma": gamma, "temperature": temperature, "kd_temperature": kd_temperature,
            "imitation_region": imitation_region, "steps": steps, "batch": batch, "lr": lr, "size": size, "seed": seed,
            "save_every": save_every,
        }  # fmt: skip
        given = {k: v.value if isinstance(v, Enum) else v for k, v in chosen.items() if v is not None}
        base = {Preset.student: STUDENT, Preset.teacher: TEACHER, Preset.paper: PAPER}[preset]
        config = replace(base, **given)
        if not config.ld:
            refuse_without("--ld", context, ("teacher", *LD_OPTIONS))
        if preset is Preset.paper:
            require_data(data, dry_run, "--teacher" if config.ld and teacher is None else "")
        run(
            config, make_fabric(accelerator, devices, precision), data, output, teacher=teacher, resume=resume,
            workers=workers, malformed=malformed.value, backbone_weights=backbone_weights, dry_run=dry_run,
        )  # fmt: skip


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[Path, typer.Option(help="folder of the data set")] = Path("runs/dense/data"),
    split: Annotated[str, typer.Option(help="train or val, or the name that the file of annotations has")] = "val",
    output: Annotated[Path | None, typer.Option(help="file for the detections, as COCO's evaluator reads them")] = None,
    malformed: OnFaulty = Faulty.refuse,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
) -> None:
    """Score a trained detector by COCO's average precision."""
    with readable_errors():
        from pydistill.recipes.dense.evaluation import evaluate as score
        from pydistill.recipes.dense.evaluation import write_detections
        from pydistill.recipes.dense.run import open_data
        from pydistill.recipes.dense.training import check_classes, load_student

        student, config, classes = load_student(checkpoint)
        pictures = open_data(config, data, split, malformed=malformed.value)
        check_classes(classes, pictures.dataset.classes, "evaluate")
        found = score(make_fabric(accelerator, 1, precision).setup_module(student), pictures)
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
        from pydistill.recipes.dense.training import load_student

        student, config, classes = load_student(checkpoint)
        module = make_fabric(accelerator, 1, precision).setup_module(student)
        count = draw_predictions(module, config, classes, source, output, score)
        print(f"{count} drawn: {output.resolve()}")


def _demo(
    fabric: "Fabric", output: Path, seed: int, steps: int | None, teacher: Path | None, from_scratch: bool,
    resume: bool, workers: int,
) -> int:  # fmt: skip
    """Runs the demo; returns 1 where a trained network does not beat the untrained one, else 0."""
    from pydistill.recipes.dense.config import STUDENT
    from pydistill.recipes.dense.demo import Demo, Plan
    from pydistill.recipes.dense.report import write_report

    config = replace(STUDENT, seed=seed, steps=steps or STUDENT.steps)
    options: dict[str, Any] = dict(teacher=teacher, from_scratch=from_scratch, resume=resume, workers=workers)
    result = Demo(Plan(config), output, fabric, **options).run()
    report = write_report(result, output / "report.html", fabric.device)
    for failure in result.failures():
        print(failure, file=sys.stderr)
    print(f"report: {report.resolve()}")
    return 1 if result.failures() else 0
