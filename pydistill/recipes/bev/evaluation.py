"""Scores a detector in bird's-eye view on a data set by nuScenes' metric."""

import json
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from pydistill.losses.unidistill import BEVPrediction
from pydistill.ops import BEVGrid
from pydistill.recipes.bev.classes import CLASSES
from pydistill.recipes.bev.data import Batch, BEVData
from pydistill.recipes.bev.decode import decode
from pydistill.recipes.bev.metric import Floats, Objects, Scores, score
from pydistill.recipes.bev.network import Modality
from pydistill.recipes.bev.nuscenes import Sample
from pydistill.recipes.generated import write_file

Found = tuple[Tensor, Tensor, Tensor]  # boxes (n, 9) in the LiDAR's frame, scores, labels
_TWO_WHEELED = [CLASSES.index(name) for name in ("motorcycle", "bicycle")]


@torch.no_grad()
def infer(student: nn.Module, batch: Batch) -> BEVPrediction:
    """What ``student`` says of a batch in eval mode."""
    training, device = student.training, next(student.parameters()).device
    student.eval()
    prediction: BEVPrediction = student(on_device(batch, device))
    student.train(training)
    return prediction


def on_device(batch: Batch, device: torch.device | str) -> Batch:
    """A copy of ``batch``."""
    return Batch(*(getattr(batch, name).to(device) for name in Batch.__dataclass_fields__))


def find(student: nn.Module, data: BEVData, indices: Sequence[int], grid: BEVGrid, *, batch: int = 8) -> list[Found]:
    """What ``student`` finds on some samples."""
    found: list[Found] = []
    for first in range(0, len(indices), batch):
        found += decode(infer(student, data.samples(indices[first : first + batch])), grid)
    return found


def evaluate(
    student: nn.Module, data: BEVData, grid: BEVGrid, indices: Sequence[int] | None = None, *, batch: int = 8
) -> Scores:
    """The scores of nuScenes on some samples of ``data``, or on all; see ``score_found``."""
    indices = range(len(data)) if indices is None else indices
    return score_found(find(student, data, indices, grid, batch=batch), data, grid, indices)


def score_found(found: Sequence[Found], data: BEVData, grid: BEVGrid, indices: Sequence[int] | None = None) -> Scores:
    """The scores of nuScenes for what was found on some samples of ``data``, or on all.

    The numbers are those of nuscenes-devkit but for two things. Objects beyond the map do not count: neither has a
    detector seen them, nor is it told of them in training. And where the LiDAR is tilted, annotated directions and
    velocities are seen along its ground.
    """
    indices = range(len(data)) if indices is None else indices
    samples = [data.dataset.samples[i] for i in indices]
    truth = [_truth(sample, grid) for sample in samples]
    return score(truth, [_found(sample, *each) for sample, each in zip(samples, found, strict=True)])


def _in_world(sample: Sample, boxes: Floats) -> Floats:
    """Boxes of the LiDAR's frame, seen from the ego, along the axes of the world."""
    turn = sample.global_from_lidar[:3, :3]
    ego = turn @ np.linalg.inv(sample.ego_from_lidar)[:3, 3]  # from the LiDAR
    ahead = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], 1) @ turn[:2, :2].T
    moved = boxes.copy()
    moved[:, :3] = boxes[:, :3] @ turn.T - ego
    moved[:, 6] = np.arctan2(ahead[:, 1], ahead[:, 0])
    moved[:, 7:9] = boxes[:, 7:9] @ turn[:2, :2].T
    return moved


def _counted(sample: Sample, boxes: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether boxes of the LiDAR's frame are anything but two-wheelers in a rack."""
    own = boxes[:, :3] @ sample.racks[..., :3].swapaxes(1, 2) + sample.racks[:, None, :, 3]  # (racks, M, 3)
    parked: NDArray[np.bool_] = (np.abs(own) <= 1).all(-1).any(0) & np.isin(labels, _TWO_WHEELED)
    return ~parked


def _truth(sample: Sample, grid: BEVGrid) -> Objects:
    boxes = sample.boxes.astype(np.float64)
    cells = grid.cells(torch.from_numpy(boxes[:, :2]))
    kept = ((cells >= 0) & (cells < torch.tensor([grid.width, grid.height]))).all(-1).numpy()
    kept &= _counted(sample, boxes, sample.labels)
    return Objects(
        _in_world(sample, boxes[kept]), sample.labels[kept], attributes=list(compress(sample.attributes, kept))
    )


def _found(sample: Sample, boxes: Tensor, scores: Tensor, labels: Tensor) -> Objects:
    """Detections; without attributes, which the recipe's heads do not tell."""
    raw, named = boxes.double().numpy(), labels.numpy()
    kept = _counted(sample, raw, named)
    return Objects(_in_world(sample, raw[kept]), named[kept], scores.double().numpy()[kept])


def write_results(
    found: Sequence[Found], data: BEVData, path: Path, modality: Modality, indices: Sequence[int] | None = None
) -> None:
    """Writes what was found as nuScenes' evaluator reads it: in the global frame, width before length.

    Args:
        found: detections on some samples of ``data``, or on all.
        data: where they were found.
        path: file to write.
        modality: the detector's; the file says which sensors it has used.
        indices: of the samples; None for all.
    """
    indices = range(len(data)) if indices is None else indices
    results = {}
    for index, (boxes, scores, labels) in zip(indices, found, strict=True):
        sample = data.dataset.samples[index]
        turn, shift = sample.global_from_lidar[:3, :3], sample.global_from_lidar[:3, 3]
        rows = []
        for box, value, label in zip(boxes.double().numpy(), scores.tolist(), labels.tolist(), strict=True):
            rotation = Rotation.from_matrix(turn @ Rotation.from_euler("z", box[6]).as_matrix())
            rows.append(
                {
                    "sample_token": sample.token,
                    "translation": (turn @ box[:3] + shift).tolist(),
                    "size": box[[4, 3, 5]].tolist(),
                    "rotation": np.roll(rotation.as_quat(), 1).tolist(),
                    "velocity": (turn[:2, :2] @ box[7:9]).tolist(),
                    "detection_name": CLASSES[label],
                    "detection_score": value,
                    "attribute_name": "",
                }
            )
        results[sample.token] = rows
    used = ("camera", "lidar") if modality == "fusion" else (modality,)
    meta = {f"use_{sensor}": sensor in used for sensor in ("camera", "lidar", "radar", "map", "external")}
    write_file(path, json.dumps({"meta": meta, "results": results}))
