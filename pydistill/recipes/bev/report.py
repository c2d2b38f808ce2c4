"""Turns what a demo found into its page: table, curves, what is compared where, detections."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import attention_map, box_keypoints, gaussian_region
from pydistill.recipes.bev import drawing
from pydistill.recipes.bev.classes import CLASSES
from pydistill.recipes.bev.data import Batch
from pydistill.recipes.bev.decode import decode
from pydistill.recipes.bev.demo import Result, Trained
from pydistill.recipes.bev.evaluation import infer
from pydistill.recipes.bev.metric import ERRORS
from pydistill.recipes.pictures import read_picture
from pydistill.recipes.table import describe_effect
from pydistill.report import page, pictures
from pydistill.report.plots import Line, line_plot, series

_SCORE = 0.3  # from which a detection is drawn
_LARGE = 3  # times the size of a camera's picture
_BLUE = (235, 120, 40)


class Shown(NamedTuple):
    """A test sample, its view from above and its cameras."""

    place: int
    batch: Batch
    above: pictures.Picture
    cameras: list[pictures.Picture]

    @property
    def boxes(self) -> drawing.Floats:
        """The annotated boxes."""
        return self.batch.boxes[0][self.batch.valid[0]].double().numpy()


def write_report(result: Result, target: Path, device: torch.device) -> Path:
    """Writes the page of a demo to ``target``, one file that needs no other."""
    nets = [result.teacher, result.plain, result.distilled]
    shown = [_show(result, index) for index in _choose(result, 3)]
    said = [{net.name: infer(net.network, scene.batch) for net in nets} for scene in shown]
    return page.render(
        "bev.html.j2",
        target,
        samples=len(result.test),
        nets=[net.name for net in nets],
        errors=ERRORS,
        tiles=_tiles(result),
        verdict=_verdict(result),
        table=_table(result),
        classes=_classes(result),
        plots=_plots(result),
        compared=[_compared(result, scene) for scene in shown],
        maps=[_maps(nets, scene, of) for scene, of in zip(shown, said, strict=True)],
        above=[_above(result, nets, scene, of) for scene, of in zip(shown, said, strict=True)],
        cameras=[_cameras(result, scene, of) for scene, of in zip(shown, said, strict=True)],
        environment=page.environment(device),
        plan=_plan(result),
    )


def _verdict(result: Result) -> str:
    gain = 100 * (result.distilled.scores.mean_ap - result.plain.scores.mean_ap)
    return describe_effect("UniDistill", "the mean average precision", [gain], "")


def _tiles(result: Result) -> list[dict[str, str]]:
    teacher, plain, ours = (100 * net.scores.mean_ap for net in (result.teacher, result.plain, result.distilled))
    return [
        {"label": f"mAP, {result.plain.name}", "value": f"{plain:.1f} %", "note": "without distillation"},
        {"label": f"mAP, {result.distilled.name}", "value": f"{ours:.1f} %", "note": "learns at the boxes"},
        {"label": "difference", "value": f"{ours - plain:+.2f}", "note": "points; one run, no evidence"},
        {"label": f"mAP, {result.teacher.name}", "value": f"{teacher:.1f} %", "note": "frozen"},
    ]


def _nets(result: Result) -> list[Trained]:
    return [result.untrained, result.teacher, result.plain, result.distilled, result.adapted]


def _table(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "name": net.name,
            "values": [f"{100 * net.scores.mean_ap:.2f}", f"{100 * net.scores.nds:.2f}"]
            + [f"{net.scores.errors[name]:.3f}" for name in ERRORS],
            "trained": net is not result.untrained,
        }
        for net in _nets(result)
    ]


def _classes(result: Result) -> list[dict[str, Any]]:
    return [
        {"name": name, "values": [f"{100 * net.scores.ap[i]:.1f}" for net in _nets(result)[1:]]}
        for i, name in enumerate(CLASSES)
    ]


def _plots(result: Result) -> list[str]:
    plain, ours, adapted = (net.history for net in (result.plain, result.distilled, result.adapted))

    def own(title: str, name: str) -> str:
        lines = [
            Line(result.distilled.name, *series(ours, name, 5), colour=2),
            Line(result.plain.name, *series(plain, name, 5), colour=1, dashed=True),
        ]
        return line_plot(title, lines)

    def told(title: str, name: str) -> str:
        lines = [
            Line("without adapter", *series(ours, name, 5), colour=2),
            Line("with adapter", *series(adapted, name, 5), colour=3),
        ]
        return line_plot(title, [line for line in lines if line.x], log=True)

    return [
        own("Heat map loss", "heatmap"),
        own("Box loss", "box"),
        told("Features, weighted", "feature"),
        told("Relations, weighted", "relation"),
    ]


def _choose(result: Result, count: int) -> list[int]:
    """Test samples with boxes, spread evenly over the set."""
    filled = [i for i, sample in enumerate(result.test.dataset.samples) if len(sample.boxes)]
    return [filled[round(share * (len(filled) - 1))] for share in np.linspace(0.1, 0.9, count)]


def _show(result: Result, index: int) -> Shown:
    batch = result.test.samples([index])
    h, w = result.test.size
    cameras = [
        pictures.resize(read_picture(view.path, "report"), (_LARGE * w, _LARGE * h))
        for view in result.test.dataset.samples[index].views
    ]
    points = batch.points[0, : int(batch.counts[0])].numpy()
    return Shown(index, batch, drawing.points_above(points, result.plan.config.reach), cameras)


def _panels(panels: list[tuple[str, pictures.Picture]]) -> list[dict[str, str]]:
    return [{"name": name, "image": pictures.data_uri(picture)} for name, picture in panels]


def _compared(result: Result, scene: Shown) -> list[dict[str, str]]:
    """The points of the boxes at which features are compared, and the region of the answers."""
    config, batch = result.plan.config, scene.batch
    truth = drawing.draw_boxes_above(scene.above, scene.boxes, config.reach, drawing.GREEN)
    cells = box_keypoints(batch.boxes, config.grid)[0][batch.valid[0]].double()
    side = torch.tensor([config.grid.cell_x, config.grid.cell_y]).double()
    places = cells * side + torch.tensor([config.grid.x_min, config.grid.y_min]).double()
    region = gaussian_region(batch.boxes, batch.valid, config.grid)[0].numpy()
    return _panels(
        [
            ("points and boxes", truth),
            ("nine points of each box", drawing.draw_marks(truth, places.numpy(), config.reach, _BLUE)),
            ("region of the answers", drawing.heat_above(region, 1.0)),
        ]
    )


def _maps(nets: list[Trained], scene: Shown, said: dict[str, BEVPrediction]) -> list[dict[str, str]]:
    """Where each network's low features are strong, and its strongest class."""
    panels = []
    for net in nets:
        prediction = said[net.name]
        assert prediction.low is not None
        energy = attention_map(prediction.low)[0].float().cpu().numpy()
        best = torch.cat([h.float().sigmoid() for h in prediction.heatmaps], 1)[0].amax(0).cpu().numpy()
        panels += [
            (f"{net.name}: energy", drawing.heat_above(energy)),
            (f"{net.name}: answer", drawing.heat_above(best, 1.0)),
        ]
    return _panels(panels)


def _found(result: Result, prediction: BEVPrediction) -> drawing.Floats:
    boxes, scores, _ = decode(prediction, result.plan.config.grid)[0]
    return boxes[scores >= _SCORE].double().numpy()


def _above(result: Result, nets: list[Trained], scene: Shown, said: dict[str, BEVPrediction]) -> list[dict[str, str]]:
    reach = result.plan.config.reach
    truth = drawing.draw_boxes_above(scene.above, scene.boxes, reach, drawing.GREEN)
    panels = [
        (net.name, drawing.draw_boxes_above(truth, _found(result, said[net.name]), reach, drawing.RED)) for net in nets
    ]
    return _panels([("truth", truth), *panels])


def _cameras(result: Result, scene: Shown, said: dict[str, BEVPrediction]) -> list[dict[str, str]]:
    """The six cameras with the truth and what the camera's student finds, without and with UniDistill."""
    matrices = scene.batch.to_pixels[0].double().numpy()

    def all_views(boxes: drawing.Floats) -> pictures.Picture:
        views = []
        for picture, matrix in zip(scene.cameras, matrices, strict=True):
            drawn = drawing.draw_boxes_in_view(picture, scene.boxes, matrix, drawing.GREEN, _LARGE)
            views.append(drawing.draw_boxes_in_view(drawn, boxes, matrix, drawing.RED, _LARGE))
        return drawing.side_by_side(views)

    return _panels([(net.name, all_views(_found(result, said[net.name]))) for net in (result.plain, result.distilled)])


def _plan(result: Result) -> dict[str, str]:
    config = result.plan.config
    nets = (result.teacher, result.plain)
    parameters = {net.name: sum(p.numel() for p in net.network.parameters()) for net in nets}
    counts = ", ".join(f"{name}: {count:,} parameters" for name, count in parameters.items())
    return {
        "samples": f"{len(result.train)} to train on, {len(result.test)} to test on, generated",
        "networks": f"{config.cells} x {config.cells} cells, {2 * config.reach:g} m; {counts}",
        "training": f"{config.steps} steps of {config.batch} samples, {config.optimizer}, learning rate {config.lr:g}",
        "seed": str(config.seed),
        "time": ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items()),
    }
