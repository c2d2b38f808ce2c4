"""Turns what a demo found into its page: table, curves, matches, masks of queries, detections."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pydistill.ops import query_feature_mask, query_quality
from pydistill.recipes.dense.data import Batch
from pydistill.recipes.dense.demo import Trained
from pydistill.recipes.dense.metric import METRICS
from pydistill.recipes.detr.demo import Result
from pydistill.recipes.detr.evaluation import infer
from pydistill.recipes.detr.lending import DetrOutput
from pydistill.recipes.detr.matches import query_of_target
from pydistill.recipes.detr.training import to_targets
from pydistill.recipes.table import describe_effect
from pydistill.report import page, pictures
from pydistill.report.plots import Line, line_plot, series

_SCORE = 0.3  # from which a detection is drawn
_LARGE = 3  # times the size of a picture
_BLUE = (235, 120, 40)


class Shown(NamedTuple):
    """A test picture, enlarged, with its batch."""

    place: int
    picture: pictures.Picture
    batch: Batch

    @property
    def names(self) -> list[int]:
        """Labels of its boxes."""
        labels: list[int] = self.batch.labels[0, : int(self.batch.counts[0])].tolist()
        return labels

    @property
    def boxes(self) -> Tensor:
        """Its boxes in the network's pixels."""
        return self.batch.boxes[0, : int(self.batch.counts[0])]


def write_report(result: Result, target: Path, device: torch.device) -> Path:
    """Writes the page of a demo to ``target``, one file that needs no other."""
    nets = [result.teacher, result.plain, result.distilled]
    shown = [_show(result, index) for index in _choose(result, 4)]
    masks = [_masks(result, scene) for scene in shown]
    return page.render(
        "detr.html.j2",
        target,
        pictures=len(result.test),
        nets=[net.name for net in nets],
        strides=[panel["name"] for panel in masks[0][1:]],
        tiles=_tiles(result),
        verdict=_verdict(result),
        table=_table(result),
        plots=_plots(result),
        matches=[_matches(result, scene) for scene in shown],
        masks=masks,
        detections=[_detections(result, scene) for scene in shown],
        environment=page.environment(device),
        plan=_plan(result),
    )


def _verdict(result: Result) -> str:
    gain = 100 * (result.distilled.numbers["ap"] - result.plain.numbers["ap"])
    return describe_effect("DETRDistill", "the average precision", [gain], "")


def _tiles(result: Result) -> list[dict[str, str]]:
    teacher, plain, ours = (100 * net.numbers["ap50"] for net in (result.teacher, result.plain, result.distilled))
    return [
        {"label": "AP50, student alone", "value": f"{plain:.1f} %", "note": "without distillation"},
        {"label": "AP50, student + DETRDistill", "value": f"{ours:.1f} %", "note": "learns from the teacher's queries"},
        {"label": "difference", "value": f"{ours - plain:+.2f}", "note": "points; one run, no evidence"},
        {"label": "AP50, teacher", "value": f"{teacher:.1f} %", "note": "frozen"},
    ]


def _table(result: Result) -> list[dict[str, Any]]:
    def show(value: float) -> str:
        return "" if np.isnan(value) else f"{100 * value:.2f}"

    nets = [(result.untrained, False), (result.teacher, True), (result.plain, True), (result.distilled, True)]
    return [
        {"name": net.name, "values": [show(net.numbers[name]) for name in METRICS], "trained": trained}
        for net, trained in nets
    ]


def _plots(result: Result) -> list[str]:
    plain, ours = result.plain.history, result.distilled.history

    def both(title: str, name: str) -> str:
        lines = [
            Line(result.distilled.name, *series(ours, name, 5), colour=2),
            Line(result.plain.name, *series(plain, name, 5), colour=1, dashed=True),
        ]
        return line_plot(title, lines)

    terms = {"instance_class": "instances", "feature": "features", "group_classification": "teacher's queries"}
    taught = [Line(text, *series(ours, name, 5), colour=i + 1) for i, (name, text) in enumerate(terms.items())]
    epoch = max(1, len(result.train) // result.plan.config.batch)
    changes = [
        Line(name, [epoch * (i + 2) for i in range(len(shares))], [100 * v for v in shares], colour, colour == 1)
        for colour, (name, shares) in zip((1, 2), result.changed.items())
    ]
    return [
        both("Box loss (GIoU)", "giou"),
        both("Classification loss", "classification"),
        line_plot("What the teacher adds, weighted", [line for line in taught if line.x], log=True),
        line_plot("Boxes that fall to another query, %", [line for line in changes if line.x]),
    ]


def _choose(result: Result, count: int) -> list[int]:
    """Test pictures with boxes, spread evenly over the set."""
    filled = [i for i in range(len(result.test)) if (~result.test.dataset.target(i)[2]).any()]
    return [filled[round(share * (len(filled) - 1))] for share in np.linspace(0.1, 0.9, count)]


def _show(result: Result, index: int) -> Shown:
    picture, scale = result.test.original(index), float(result.test.pictures([index]).scales[0])
    size = [round(side * scale * _LARGE) for side in picture.shape[1::-1]]
    return Shown(index, pictures.resize(picture, size), result.test.batch([index]))


def _matches(result: Result, scene: Shown) -> list[dict[str, str]]:
    """The truth, and for each network the box of the query that is matched with each box, under the query's number."""
    classes = result.test.dataset.classes
    panels = [("truth", _draw(scene, scene.boxes, [classes[label] for label in scene.names], pictures.GREEN))]
    for net in (result.teacher, result.plain, result.distilled):
        output = _output(net, scene)
        found = query_of_target(output.prediction, to_targets(scene.batch), result.plan.config.detector)[0]
        found = found[: len(scene.names)]
        boxes = _corners(output, found) * torch.tensor(scene.batch.pictures.shape[:1:-1]).repeat(2)
        panels.append((net.name, _draw(scene, boxes, [f"query {i}" for i in found.tolist()], _BLUE)))
    return [{"name": name, "image": pictures.data_uri(image)} for name, image in panels]


def _masks(result: Result, scene: Shown) -> list[dict[str, str]]:
    """The teacher's masks of the last stage over the picture, a panel a level."""
    output, targets = _output(result.teacher, scene), to_targets(scene.batch)
    told = output.prediction
    assert told.queries is not None
    quality = query_quality(told.logits[-1:], told.boxes[-1:], targets.boxes, targets.counts)
    masks = query_feature_mask(told.queries[-1:], quality.quality, told.features, index=quality.index)
    panels = [("truth", _draw(scene, scene.boxes, [], pictures.GREEN))]
    for mask in masks:
        values = mask[0, 0].float().cpu().numpy()
        stride = result.plan.config.size[0] // values.shape[0]
        h, w = (max(1, round(side / (_LARGE * stride))) for side in scene.picture.shape[:2])  # without the padding
        panels.append((f"stride {stride}", pictures.overlay(scene.picture, values[:h, :w], largest=1.0, smooth=False)))
    return [{"name": name, "image": pictures.data_uri(image)} for name, image in panels]


def _detections(result: Result, scene: Shown) -> list[dict[str, str]]:
    """Truth and what each network finds, side by side."""
    classes = result.test.dataset.classes
    panels = [("truth", _draw(scene, scene.boxes, [classes[label] for label in scene.names], pictures.GREEN))]
    scale = float(result.test.pictures([scene.place]).scales[0])
    for net in (result.teacher, result.plain, result.distilled):
        found = net.evaluation.detections[scene.place]
        kept = found.scores >= _SCORE
        texts = [f"{classes[i]} {s:.2f}" for i, s in zip(found.labels[kept], found.scores[kept])]
        panels.append((net.name, _draw(scene, torch.from_numpy(found.boxes[kept] * scale), texts, pictures.RED)))
    return [{"name": name, "image": pictures.data_uri(image)} for name, image in panels]


def _output(net: Trained, scene: Shown) -> DetrOutput:
    return infer(net.network, scene.batch.pictures)


def _corners(output: DetrOutput, chosen: Tensor) -> Tensor:
    """Boxes of the last stage's ``chosen`` queries of the one picture, in shares of the input's sides."""
    boxes = output.prediction.boxes[-1, 0].float().cpu()[chosen.cpu()]
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def _draw(scene: Shown, boxes: Tensor, names: list[str], colour: tuple[int, int, int]) -> pictures.Picture:
    return pictures.draw_boxes(scene.picture, _LARGE * boxes.numpy().astype(np.float32), names, colour)


def _plan(result: Result) -> dict[str, str]:
    config = result.plan.config
    nets = (result.teacher, result.plain)
    parameters = {net.name: sum(p.numel() for p in net.network.parameters()) for net in nets}
    size = " x ".join(map(str, config.size))
    counts = ", ".join(f"{name}: {count:,} parameters" for name, count in parameters.items())
    return {
        "scenes": f"{len(result.train)} to train on, {len(result.test)} to test on, generated",
        "networks": f"{config.detector}, {config.queries} queries, {config.layers} stages, input {size}; {counts}",
        "training": f"{config.steps} steps of {config.batch} pictures, {config.optimizer}, learning rate {config.lr:g}",
        "seed": str(config.seed),
        "speed": f"{result.plain.evaluation.milliseconds:.0f} ms a picture, student and decoder",
        "time": ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items()),
    }
