"""Writes generated scenes to disk in nuScenes' layout, whose readers and evaluators then work.

A scene has two annotated moments half a second apart, seen by six cameras and a LiDAR on a car that stands; each moment
has one earlier turn of the LiDAR. The map is empty. ``generated.json`` says what the folder holds and whether that is
complete. The devkit knows the splits as ``generated_train`` and ``generated_val``, since it gives ``train`` and ``val``
its own scenes.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pydistill.recipes.bev.classes import CAMERAS, CATEGORIES, CLASSES, LIDAR
from pydistill.recipes.bev.scenes import Difficulty, Scene, make_scene
from pydistill.recipes.bev.sensors import photograph, scan, six_cameras
from pydistill.recipes.generated import check_counts, encode_picture, generated_folder, map_threads, write_file

_GENERATOR = 1  # raised when the same arguments give other files than before
_VERSION = "v1.0-generated"
_MOMENTS = (0.0, 0.5)
_MAP = "maps/nothing.png"
_EARLIER = 0.05  # seconds before a moment at which the LiDAR turned before
_LIDAR_AT = (0.94, 0.0, 1.84)  # of the ego's frame; its axes are the ego's
_START = 1_600_000_000_000_000  # microseconds
_NAMES = {name: category for category, name in reversed(CATEGORIES.items())}  # a class's first category


def write_nuscenes(
    root: Path,
    seed: int,
    train: int,
    test: int,
    *,
    size: tuple[int, int] = (48, 96),
    difficulty: Difficulty | None = None,
    workers: int = 2,
) -> Path:
    """Generates scenes below ``root`` in nuScenes' layout, unless they are there already.

    Args:
        root: folder, made where missing; it must be empty, or hold scenes generated before, which are replaced.
        seed: names the world that the scenes are taken from.
        train: number of scenes of the split ``train``, two samples each.
        test: number of scenes of the split ``val``.
        size: height and width of the pictures.
        difficulty: of the scenes; None for the default.
        workers: threads that draw; the files do not depend on it.

    Returns:
        ``root``.

    Raises:
        ValueError: for no scene at all, or pictures without pixels.
        FileExistsError: if ``root`` holds files that were not generated.
        OSError: if a file cannot be written, with its path. The next call starts again.
    """
    check_counts("write_nuscenes", train, test)
    if min(size) < 1:
        raise ValueError(f"write_nuscenes: expected a height and width >= 1, got {size}")
    hard = difficulty or Difficulty()
    recipe = {"layout": "nuscenes", "generator": _GENERATOR, "seed": seed, "train": train, "test": test}
    recipe = json.loads(json.dumps({**recipe, "size": size, "difficulty": asdict(hard)}))
    with generated_folder(root, "write_nuscenes", recipe) as complete:
        if not complete:
            tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
            _write_rig(tables, size)
            splits: dict[str, list[str]] = {}
            for place, (split, count) in enumerate((("train", train), ("val", test))):
                write = partial(_write_scene, root, split, seed, place, size, hard)
                scenes = map_threads(write, range(count), workers)
                splits[split] = [f"{split}-{index:05d}" for index in range(count)]
                for rows in scenes:
                    for table, found in rows.items():
                        tables[table] += found
            for name, lines in tables.items():
                write_file(root / _VERSION / f"{name}.json", json.dumps(lines))
            write_file(root / "splits.json", json.dumps(splits))
            named = {f"generated_{split}": names for split, names in splits.items()}
            write_file(root / _VERSION / "splits.json", json.dumps(named))
            write_file(root / _MAP, encode_picture(np.zeros((8, 8), np.uint8), ".png"))
    return root


def _token(*names: Any) -> str:
    return hashlib.md5(" ".join(map(str, names)).encode()).hexdigest()


def _pose(position: Any, rotation: Any) -> dict[str, list[float]]:
    quaternion = np.roll(Rotation.from_matrix(rotation).as_quat(), 1)  # w first
    return {"translation": [float(x) for x in position], "rotation": quaternion.tolist()}


def _write_rig(tables: dict[str, list[dict[str, Any]]], size: tuple[int, int]) -> None:
    """The sensors, categories, attributes and the map that all scenes share."""
    for channel in (LIDAR, *CAMERAS):
        kind = "lidar" if channel == LIDAR else "camera"
        tables["sensor"].append({"token": _token("sensor", channel), "channel": channel, "modality": kind})
    mounts: list[tuple[str, dict[str, list[float]], Any]] = [(LIDAR, _pose(_LIDAR_AT, np.eye(3)), [])]
    for channel, camera in zip(CAMERAS, six_cameras(size), strict=True):
        mounts.append((channel, _pose(camera.position + _LIDAR_AT, camera.rotation), camera.matrix.tolist()))
    for channel, pose, matrix in mounts:
        row = {"token": _token("mount", channel), "sensor_token": _token("sensor", channel), "camera_intrinsic": matrix}
        tables["calibrated_sensor"].append({**row, **pose})
    for name in CLASSES:
        tables["category"].append({"token": _token("category", name), "name": _NAMES[name], "description": name})
    for name in ("vehicle.moving", "vehicle.stopped", "pedestrian.moving", "pedestrian.standing", "cycle.with_rider"):
        tables["attribute"].append({"token": _token("attribute", name), "name": name, "description": name})
    for level, share in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), 1):
        tables["visibility"].append({"token": str(level), "level": share, "description": share})
    log = {"token": _token("log"), "logfile": "", "vehicle": "generated", "date_captured": "2020-09-13"}
    tables["log"].append({**log, "location": "generated"})
    area = {"token": _token("map"), "log_tokens": [log["token"]], "category": "semantic_prior", "filename": _MAP}
    tables["map"].append(area)


def _write_scene(
    root: Path, split: str, seed: int, place: int, size: tuple[int, int], difficulty: Difficulty, index: int
) -> dict[str, list[dict[str, Any]]]:
    """Draws a scene's files; returns its rows."""
    scene, name = make_scene(seed, index, place, difficulty), f"{split}-{index:05d}"
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    tokens = [_token("sample", name, moment) for moment in range(len(_MOMENTS))]
    rows["scene"].append(
        {
            "token": _token("scene", name), "name": name, "description": "night" if scene.night else "day",
            "log_token": _token("log"), "nbr_samples": len(tokens), "first_sample_token": tokens[0],
            "last_sample_token": tokens[-1],
        }
    )  # fmt: skip
    seen = np.zeros((len(tokens), len(scene.boxes)), int)
    for moment, seconds in enumerate(_MOMENTS):
        stamp = _START + 10_000_000 * index + round(1e6 * seconds)
        row = {"token": tokens[moment], "timestamp": stamp, "scene_token": _token("scene", name)}
        rows["sample"].append({**row, **_neighbours(tokens, moment)})
        now = replace(scene, boxes=scene.after(seconds), seed=scene.seed + moment)
        seen[moment] = _measure(rows, root, name, tokens[moment], stamp, now, size, difficulty)
    for box in range(len(scene.boxes)):
        _annotate(rows, name, tokens, scene, box, seen[:, box])
    return rows


def _neighbours(tokens: list[str], place: int) -> dict[str, str]:
    """The entries of a row in a chain."""
    before, after = ["", *tokens[:-1]], [*tokens[1:], ""]
    return {"prev": before[place], "next": after[place]}


def _measure(
    rows: dict[str, list[dict[str, Any]]],
    root: Path,
    name: str,
    sample: str,
    stamp: int,
    scene: Scene,
    size: tuple[int, int],
    difficulty: Difficulty,
) -> Any:
    """Writes what the sensors measure at one moment; returns how many points each box has."""
    turns = [scan(scene, scene.after(-lag), difficulty, turn) for turn, lag in enumerate((0.0, _EARLIER))]
    files: list[tuple[str, str, int, bytes]] = []
    for turn, points in enumerate(turns):
        cloud = np.concatenate([points, np.zeros((len(points), 1), np.float32)], 1)
        folder = "sweeps" if turn else "samples"
        time = stamp - turn * round(1e6 * _EARLIER)
        files.append((LIDAR, f"{folder}/{LIDAR}/{name}_{time}.pcd.bin", time, cloud.astype(np.float32).tobytes()))
    for number, (channel, camera) in enumerate(zip(CAMERAS, six_cameras(size), strict=True)):
        picture = photograph(scene, camera, difficulty, number)
        content = encode_picture(np.ascontiguousarray(picture[..., ::-1]), ".jpg")
        files.append((channel, f"samples/{channel}/{name}_{stamp}.jpg", stamp, content))
    for place, (channel, path, time, content) in enumerate(files):
        write_file(root / path, content)
        earlier = place == 1
        pose = _token("pose", name, time, channel)
        rows["ego_pose"].append({"token": pose, "timestamp": time, **_pose((0.0, 0.0, 0.0), np.eye(3))})
        rows["sample_data"].append(
            {
                "token": _token("data", path), "sample_token": sample, "ego_pose_token": pose, "timestamp": time,
                "calibrated_sensor_token": _token("mount", channel), "filename": path, "is_key_frame": not earlier,
                "fileformat": "pcd" if channel == LIDAR else "jpg",
                "height": 0 if channel == LIDAR else size[0], "width": 0 if channel == LIDAR else size[1],
                "prev": _token("data", files[1][1]) if place == 0 else "",
                "next": _token("data", files[0][1]) if earlier else "",
            }
        )  # fmt: skip
    return np.array([_inside(turns[0], box) for box in scene.boxes], int)


def _inside(points: Any, box: Any) -> int:
    """How many points lie in a box, the sensor's noise allowed for."""
    cos, sin = np.cos(box[6]), np.sin(box[6])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    own = (points[:, :3] - box[:3]) @ turn
    return int((np.abs(own) <= box[3:6] / 2 + 0.05).all(1).sum())


def _annotate(
    rows: dict[str, list[dict[str, Any]]], name: str, samples: list[str], scene: Scene, box: int, seen: Any
) -> None:
    instance, label = _token("instance", name, box), CLASSES[scene.labels[box]]
    tokens = [_token("annotation", name, box, moment) for moment in range(len(samples))]
    rows["instance"].append(
        {
            "token": instance, "category_token": _token("category", label), "nbr_annotations": len(tokens),
            "first_annotation_token": tokens[0], "last_annotation_token": tokens[-1],
        }
    )  # fmt: skip
    for moment, seconds in enumerate(_MOMENTS):
        x, y, z, length, w, h, yaw, vx, vy = scene.after(seconds)[box].tolist()
        attribute = _attribute(label, bool(vx or vy))
        turn = Rotation.from_euler("z", yaw).as_matrix()
        rows["sample_annotation"].append(
            {
                "token": tokens[moment], "sample_token": samples[moment], "instance_token": instance,
                "size": [w, length, h], **_neighbours(tokens, moment),
                "visibility_token": "", "attribute_tokens": [_token("attribute", attribute)] if attribute else [],
                **_pose(np.array([x, y, z]) + _LIDAR_AT, turn), "num_lidar_pts": int(seen[moment]), "num_radar_pts": 0,
            }
        )  # fmt: skip


def _attribute(label: str, moves: bool) -> str:
    if label in ("barrier", "traffic_cone"):
        return ""
    if label == "pedestrian":
        return "pedestrian.moving" if moves else "pedestrian.standing"
    if label in ("motorcycle", "bicycle"):
        return "cycle.with_rider"
    return "vehicle.moving" if moves else "vehicle.stopped"
