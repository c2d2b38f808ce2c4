"""Turns what a demo found into its page: table, verdict, curves, lanes and attention on pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pydistill.ops import attention_map
from pydistill.recipes.lanes.config import LaneConfig
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.demo import Result, Trained
from pydistill.recipes.lanes.metric import Score
from pydistill.recipes.lanes.road import FRAME, H_SAMPLES
from pydistill.recipes.table import describe_effect
from pydistill.recipes.training import Row
from pydistill.report import page, pictures
from pydistill.report.plots import Line, line_plot, series
from pydistill.taps import Taps

_SCENES = 5


def write_report(result: Result, target: Path, device: torch.device) -> Path:
    """Writes the page of a demo to ``target``, one file that needs no other."""
    plain, sad = result.pairs[0]
    config = result.plan.config
    return page.render(
        "lanes.html.j2",
        target,
        config=config,
        pictures=result.plan.test_scenes,
        seeds=result.plan.seeds,
        stages=plain.student.stages,
        nets=[net.name for net in (plain, sad)],
        tiles=_tiles(result),
        verdict=verdict(result),
        table=_table(result),
        plots=_plots(plain.history, sad.history, config),
        scenes=[_scene(result, index) for index in _choose(plain, _SCENES)],
        environment=page.environment(device),
        plan=_plan(result),
    )


def write_picture(result: Result, target: Path) -> None:
    """Writes the demo's picture: lanes and the attention of stage E2 without and with SAD, on three scenes."""
    nets = result.pairs[0]
    rows = []
    for index in _choose(nets[0], 4)[1:]:
        lanes = [_lanes(result.test, net, index) for net in nets]
        maps = [_attention(net, result.test, index)[1] for net in nets]  # E2, the first stage that learns
        original = pictures.enlarge(result.test.dataset.picture(index), 2)
        rows.append([*lanes, *(pictures.overlay(original, m) for m in maps)])
    titles = ["lanes, ENet", "lanes, ENet + SAD", "E2 attention, ENet", "E2 attention, ENet + SAD"]
    pictures.write_montage(target, rows, titles)


def verdict(result: Result) -> str:
    """What SAD did to the accuracy, whichever way it fell, and how far that can be trusted."""
    gains = [100 * (sad.score.accuracy - plain.score.accuracy) for plain, sad in result.pairs]
    return describe_effect("SAD", "the accuracy", gains, "This holds for generated scenes and one small network.")


def _mean(result: Result, which: int) -> NDArray[np.float64]:
    scores = [pair[which].score for pair in result.pairs]
    rows = np.array([(s.accuracy, s.false_positive, s.false_negative, s.f1) for s in scores])
    return np.asarray(rows.mean(0))


def _table(result: Result) -> list[dict[str, Any]]:
    def row(name: str, values: Sequence[float], trained: bool) -> dict[str, Any]:
        return {
            "name": name,
            "values": [f"{100 * values[0]:.2f} %", *(f"{v:.4f}" for v in values[1:])],
            "trained": trained,
        }

    def floor(name: str, score: Score) -> dict[str, Any]:
        return row(name, (score.accuracy, score.false_positive, score.false_negative, score.f1), False)

    names = [net.name for net in result.pairs[0]]
    floors = [floor("Empty prediction", result.empty), floor("Untrained ENet", result.untrained)]
    return floors + [row(name, _mean(result, i).tolist(), True) for i, name in enumerate(names)]


def _tiles(result: Result) -> list[dict[str, str]]:
    plain, sad = 100 * _mean(result, 0)[0], 100 * _mean(result, 1)[0]
    runs = len(result.pairs)
    return [
        {"label": "accuracy, ENet", "value": f"{plain:.2f} %", "note": "without distillation"},
        {"label": "accuracy, ENet + SAD", "value": f"{sad:.2f} %", "note": "each stage learns from the next"},
        {
            "label": "difference",
            "value": f"{sad - plain:+.2f}",
            "note": "points; one run, no evidence" if runs == 1 else f"points, mean of {runs} seeds",
        },
        {
            "label": "scenes, trainings, scores",
            "value": f"{result.seconds['all'] / 60:.1f} min",
            "note": "on this machine",
        },
    ]


def _plots(plain: Sequence[Row], sad: Sequence[Row], config: LaneConfig) -> list[str]:
    def both(title: str, name: str, smooth: int) -> str:
        lines = [
            Line("ENet + SAD", *series(sad, name, smooth), colour=2),
            Line("ENet", *series(plain, name, smooth), colour=1, dashed=True),
        ]
        return line_plot(title, lines, marker=config.start, marked="SAD starts")

    terms = [name for name in dict.fromkeys(n for row in sad for n in row) if name.startswith("sad.")]
    names = [f"E{learner + 1} imitates E{teacher + 1}" for learner, teacher in config.sad_pairs]
    lines = [Line(names[i], *series(sad, name, 5), colour=i + 2) for i, name in enumerate(terms)]
    return [
        both("Segmentation loss", "segmentation", 5),
        both("Accuracy on test scenes", "accuracy", 1),
        line_plot("SAD, squared distance of attention maps", lines, log=True),
    ]


def _choose(net: Trained, count: int) -> list[int]:
    """Test scenes spread evenly over the scores of ``net``, worst first."""
    order = np.argsort([frame.accuracy for frame in net.evaluation.scores], kind="stable")
    return [int(order[round(share * (len(order) - 1))]) for share in np.linspace(0.02, 0.98, count)]


def _lanes(data: LaneData[Any], net: Trained, index: int) -> pictures.Picture:
    record = data.dataset.records[index]
    picture = pictures.enlarge(data.dataset.picture(index), 2)
    picture = pictures.draw_lanes(picture, record.lanes, record.h_samples, FRAME, pictures.GREEN)
    return pictures.draw_lanes(picture, net.evaluation.predictions[index], H_SAMPLES, FRAME, pictures.RED)


@torch.no_grad()
def _attention(net: Trained, data: LaneData[Any], index: int) -> list[NDArray[np.float32]]:
    """The attention map of each stage, shallow to deep, as the loss sees it."""
    net.student.eval()
    device = next(net.student.parameters()).device
    taps = Taps(net.student, net.student.stages)
    with taps.record():
        net.student(data.batch([index]).pictures.to(device))
    return [attention_map(taps[stage].float(), normalize="mean")[0].cpu().numpy() for stage in net.student.stages]


def _scene(result: Result, index: int) -> dict[str, Any]:
    nets = result.pairs[0]
    original = pictures.enlarge(result.test.dataset.picture(index), 2)
    maps = [(net.name, [pictures.overlay(original, m) for m in _attention(net, result.test, index)]) for net in nets]
    return {
        "picture": pictures.data_uri(original),
        "lanes": [
            {
                "image": pictures.data_uri(_lanes(result.test, net, index)),
                "accuracy": f"{100 * net.evaluation.scores[index].accuracy:.1f} %",
            }
            for net in nets
        ],
        "maps": [{"name": name, "images": [pictures.data_uri(image, 75) for image in images]} for name, images in maps],
    }


def _plan(result: Result) -> dict[str, str]:
    plan, config, net = result.plan, result.plan.config, result.pairs[0][0]
    parameters = sum(p.numel() for p in net.student.parameters())
    size = " x ".join(map(str, config.size))
    return {
        "scenes": f"{plan.train_scenes} to train on, {plan.test_scenes} to test on, generated with seed {config.seed}",
        "network": f"ENet, input {size}, {parameters:,} parameters",
        "training": f"{config.steps} steps of {config.batch} pictures, {config.optimizer}, learning rate {config.lr:g}",
        "loss": "cross entropy (background 0.4), 0.1 IoU, 0.1 existence; "
        f"{replace(config, sad=True).sad_weight:g} SAD from step {config.start}",
        "seeds": ", ".join(map(str, plan.seeds)),
        "speed": f"{net.evaluation.milliseconds:.0f} ms a picture, network and decoder",
        "time": ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items()),
    }
