"""Turns what a demo found into its page: table, curves, box sides as distributions, regions, detections."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydistill.ops import assign_atss, valuable_localization_region
from pydistill.recipes.dense.anchors import Grid, make_grid
from pydistill.recipes.dense.demo import Result, Trained
from pydistill.recipes.dense.evaluation import infer
from pydistill.recipes.dense.metric import METRICS
from pydistill.recipes.table import describe_effect
from pydistill.report import page, pictures
from pydistill.report.plots import Line, distribution_plots, line_plot, series

GAMMAS = (0.0, 0.25, 0.5)
_SIDES = ("left", "top", "right", "bottom")
_TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
_SCORE = 0.4  # from which a detection is drawn
_LARGE = 3  # times the size of a picture


class Shown(NamedTuple):
    """A test picture at the network's size with its boxes (k, 4), and the anchors of it."""

    place: int
    picture: pictures.Picture
    boxes: Tensor
    labels: list[int]
    grid: Grid
    shapes: tuple[tuple[int, int], ...]


def write_report(result: Result, target: Path, device: torch.device) -> Path:
    """Writes the page of a demo to ``target``, one file that needs no other."""
    nets = [result.teacher, result.plain, result.ld]
    shown = [_show(result, index) for index in _choose(result, 4)]
    return page.render(
        "dense.html.j2",
        target,
        config=result.ld_config,
        weights=result.ld_config.loss().settings.weights,
        pictures=len(result.test),
        nets=[net.name for net in nets],
        gammas=GAMMAS,
        tiles=_tiles(result),
        verdict=_verdict(result),
        table=_table(result),
        plots=_plots(result),
        boxes=[_sides(result, scene) for scene in shown[:3]],
        regions=[_regions(result, scene) for scene in shown[:2]],
        detections=[_detections(result, scene) for scene in shown],
        environment=page.environment(device),
        plan=_plan(result),
    )


def _verdict(result: Result) -> str:
    gain = 100 * (result.ld.numbers["ap"] - result.plain.numbers["ap"])
    return describe_effect("LD", "the average precision", [gain], "")


def _tiles(result: Result) -> list[dict[str, str]]:
    teacher, plain, ld = (100 * net.numbers["ap"] for net in (result.teacher, result.plain, result.ld))
    return [
        {"label": "AP, student alone", "value": f"{plain:.1f} %", "note": "without distillation"},
        {
            "label": "AP, student + LD",
            "value": f"{ld:.1f} %",
            "note": "learns from the teacher's sides and classes",
        },
        {"label": "difference", "value": f"{ld - plain:+.2f}", "note": "points; one run, no evidence"},
        {"label": "AP, teacher", "value": f"{teacher:.1f} %", "note": "frozen"},
    ]


def _table(result: Result) -> list[dict[str, Any]]:
    def show(value: float) -> str:
        return "" if np.isnan(value) else f"{100 * value:.2f}"

    nets = [(result.untrained, False), (result.teacher, True), (result.plain, True), (result.ld, True)]
    return [
        {"name": net.name, "values": [show(net.numbers[name]) for name in METRICS], "trained": trained}
        for net, trained in nets
    ]


def _plots(result: Result) -> list[str]:
    plain, ld = result.plain.history, result.ld.history

    def both(title: str, name: str, smooth: int) -> str:
        lines = [
            Line("student + LD", *series(ld, name, smooth), colour=2),
            Line("student alone", *series(plain, name, smooth), colour=1, dashed=True),
        ]
        return line_plot(title, lines)

    names = {"main_ld": "Main LD", "vlr_ld": "VLR LD", "main_kd": "Main KD"}
    terms = [Line(text, *series(ld, name, 5), colour=i + 1) for i, (name, text) in enumerate(names.items())]
    return [
        both("Box loss (GIoU)", "box", 5),
        both("Classification loss (QFL)", "classification", 5),
        line_plot("What the teacher adds, weighted", [line for line in terms if line.x], log=True),
    ]


def _choose(result: Result, count: int) -> list[int]:
    """Test pictures with boxes, spread evenly over the set."""
    filled = [i for i in range(len(result.test)) if len(result.test.batch([i]).boxes[0, : _count(result, i)])]
    return [filled[round(share * (len(filled) - 1))] for share in np.linspace(0.1, 0.9, count)]


def _count(result: Result, index: int) -> int:
    return int((~result.test.dataset.target(index)[2]).sum())


def _show(result: Result, index: int) -> Shown:
    batch = result.test.batch([index])
    count = int(batch.counts[0])
    picture, scale = result.test.original(index), float(result.test.pictures([index]).scales[0])
    size = [round(side * scale * _LARGE) for side in picture.shape[1::-1]]
    output = infer(result.teacher.network, batch.pictures)
    return Shown(
        index, pictures.resize(picture, size), batch.boxes[:, :count], batch.labels[0, :count].tolist(),
        make_grid(output.shapes, result.teacher.network.strides), output.shapes,
    )  # fmt: skip


def _sides(result: Result, scene: Shown) -> dict[str, Any]:
    """The four distributions of the largest box of a picture, at the positive anchor with the largest IoU."""
    grid, boxes = scene.grid, scene.boxes
    extent = boxes[0, :, 2:] - boxes[0, :, :2]
    chosen = int(extent.prod(-1).argmax())
    only = boxes[:, chosen : chosen + 1]
    found = assign_atss(grid.anchors, grid.level_sizes, only, torch.ones(1, dtype=torch.int64))
    anchor = int(found.max_iou[0].masked_fill(found.gt_index[0] != 0, -1).argmax())
    stride, point = float(grid.strides[anchor]), grid.points[anchor]
    truth = torch.cat([point - only[0, 0, :2], only[0, 0, 2:] - point]) / stride
    panels: list[list[Line]] = [[] for _ in _SIDES]
    inputs = result.test.pictures([scene.place]).pictures
    for colour, net in enumerate((result.teacher, result.plain, result.ld)):
        rows = _at(net, inputs, anchor)
        for panel, probability in zip(panels, rows):
            panel.append(Line(net.name, list(range(len(probability))), probability.tolist(), (0, 1, 2)[colour]))
    name = result.test.dataset.classes[scene.labels[chosen]]
    drawn = pictures.draw_boxes(scene.picture, _LARGE * only[0].numpy(), [name])
    drawn = pictures.draw_point(drawn, (_LARGE * point).tolist())
    return {
        "picture": pictures.data_uri(drawn),
        "plot": distribution_plots(_SIDES, panels, truth.tolist(), f"strides of {stride:.0f} pixels"),
        "caption": f"class {name}, {extent[chosen, 0]:.0f} x {extent[chosen, 1]:.0f} pixels, stride {stride:.0f}",
    }


def _at(net: Trained, inputs: Tensor, anchor: int) -> NDArray[np.float32]:
    """Probabilities (4, n) of the bins of an anchor's sides."""
    sides = torch.cat([x.flatten(2) for x in infer(net.network, inputs).sides], 2)[0, :, anchor]
    return np.asarray(sides.reshape(4, -1).softmax(-1).cpu().numpy())


def _regions(result: Result, scene: Shown) -> dict[str, Any]:
    """For each gamma and level the weights of main and valuable region over a picture."""
    grid = scene.grid
    counts = torch.tensor([scene.boxes.shape[1]])
    assigned = assign_atss(grid.anchors, grid.level_sizes, scene.boxes, counts)
    positive = assigned.gt_index >= 0
    rows = []
    for gamma in GAMMAS:
        weight = valuable_localization_region(
            grid.anchors, scene.boxes, counts, assigned.threshold, gamma=gamma, exclude=positive
        )
        levels = zip(*(torch.split(x[0], list(grid.level_sizes)) for x in (weight, positive)), scene.shapes)
        images = [_weights(scene.picture, w.view(shape), p.view(shape)) for w, p, shape in levels]
        rows.append({"gamma": f"{gamma:g}", "images": images, "count": int((weight > 0).sum())})
    original = pictures.draw_boxes(scene.picture, _LARGE * scene.boxes[0].numpy())
    return {
        "picture": pictures.data_uri(original),
        "rows": rows,
        "positives": int(positive.sum()),
        "strides": [f"stride {stride}" for stride in result.teacher.network.strides],
    }


def _weights(picture: pictures.Picture, weight: Tensor, positive: Tensor) -> str:
    """The weights (h, w) of a level over ``picture``, 1 in yellow, and its positive anchors as green points."""
    laid = pictures.overlay(picture, weight.float().numpy(), largest=1.0, smooth=False)
    h, w = positive.shape
    step = picture.shape[0] / h, picture.shape[1] / w
    for row, column in positive.nonzero().tolist():
        laid = pictures.draw_point(laid, ((column + 0.5) * step[1], (row + 0.5) * step[0]))
    return pictures.data_uri(laid, 80)


def _detections(result: Result, scene: Shown) -> list[dict[str, str]]:
    """Truth and what each network finds, side by side."""
    names = [result.test.dataset.classes[label] for label in scene.labels]
    panels = [("truth", pictures.draw_boxes(scene.picture, _LARGE * scene.boxes[0].numpy(), names))]
    scale = float(result.test.pictures([scene.place]).scales[0])
    for net in (result.teacher, result.plain, result.ld):
        found = net.evaluation.detections[scene.place]
        kept = found.scores >= _SCORE
        texts = [f"{result.test.dataset.classes[i]} {s:.2f}" for i, s in zip(found.labels[kept], found.scores[kept])]
        boxes = found.boxes[kept] * np.float32(scale * _LARGE)
        panels.append((net.name, pictures.draw_boxes(scene.picture, boxes, texts, pictures.RED)))
    return [{"name": name, "image": pictures.data_uri(image)} for name, image in panels]


def _plan(result: Result) -> dict[str, str]:
    config = result.plan.config
    parameters = {net.name: sum(p.numel() for p in net.network.parameters()) for net in (result.teacher, result.plain)}
    size = " x ".join(map(str, config.size))
    return {
        "scenes": f"{len(result.train)} to train on, {len(result.test)} to test on, generated",
        "networks": f"GFL, input {size}; " + ", ".join(f"{n}: {count:,} parameters" for n, count in parameters.items()),
        "training": f"{config.steps} steps of {config.batch} pictures, {config.optimizer}, learning rate {config.lr:g}",
        "seed": str(config.seed),
        "speed": f"{result.plain.evaluation.milliseconds:.0f} ms a picture, student and decoder",
        "time": ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items()),
    }
