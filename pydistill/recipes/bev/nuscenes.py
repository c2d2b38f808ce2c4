"""nuScenes, as its devkit lays it out and as ``generate.write_nuscenes`` writes it.

::

    root/v1.0-trainval/{scene,sample,sample_data,sensor,calibrated_sensor,ego_pose,sample_annotation,instance,category,
                        attribute}.json
    root/samples/LIDAR_TOP/*.pcd.bin, root/samples/CAM_FRONT/*.jpg, ..., root/sweeps/LIDAR_TOP/*.pcd.bin
    root/splits.json     {"train": [names of scenes], "val": [...]}: nuScenes has them in the code of its devkit alone

Everything is given in the frame of a sample's LiDAR: x ahead or right as the sensor is mounted, z up, metres. With
``malformed="raise"`` a sample that lacks a table's row or a file is an error that names it; with ``skip`` it is left
out, with one warning.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pydistill.recipes.bev.classes import CAMERAS, CATEGORIES, CLASSES, LIDAR
from pydistill.recipes.bev.nuscenes_tables import MICROSECONDS, Floats, Tables, read_json, transform
from pydistill.recipes.faults import Faults, Malformed
from pydistill.recipes.pictures import UnreadablePicture

_RACK = "static_object.bicycle_rack"
_BLIND = 1.0  # metres around the LiDAR from which a sweep's points are the car itself


class View(NamedTuple):
    """One camera of a sample."""

    path: Path
    matrix: Floats
    """(3, 3): from the camera's frame (x right, y down, z ahead) to pixels."""
    from_lidar: Floats
    """(4, 4): from the LiDAR's frame to the camera's."""


class Sweep(NamedTuple):
    """One turn of the LiDAR."""

    path: Path
    to_sample: Floats
    """(4, 4): to the frame of the sample's own turn."""
    lag: float
    """Seconds before it."""


class Sample(NamedTuple):
    """One annotated moment; its files are not read yet."""

    token: str
    sweeps: list[Sweep]
    """The sample's own turn first."""
    views: list[View]
    """In the order of ``classes.CAMERAS``."""
    boxes: NDArray[np.float32]
    """(M, 9): x, y, z of the centre, l, w, h, yaw, vx, vy, NaN where a velocity is not known."""
    labels: NDArray[np.int64]
    """(M,) index into ``CLASSES``."""
    attributes: list[str]
    """(M,) names, "" for none."""
    global_from_lidar: Floats
    """(4, 4)."""
    ego_from_lidar: Floats
    """(4, 4): the metric's distances are from the ego."""
    racks: Floats
    """(R, 3, 4): from the LiDAR's frame, homogeneous, to that of each bicycle rack, whose sides are at -1 and 1; the
    metric does not count what stands in one."""


class NuScenes:
    """The samples of a split.

    Args:
        root: folder of the data set.
        split: a key of ``splits.json``.
        tables: of ``root``, for several splits to share; None: read here, and not kept.
        sweeps: turns of the LiDAR that make up a cloud, the sample's own among them.
        malformed: see the module.
        filled: leaves out samples without a box, as UniDistill's training does.

    Raises:
        FileNotFoundError: for tables, splits or files that are missing.
        ValueError: for tables and splits that are not as they should be.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        tables: Tables | None = None,
        sweeps: int = 1,
        malformed: Malformed = "raise",
        filled: bool = False,
    ):
        if sweeps < 1:
            raise ValueError(f"NuScenes: expected sweeps >= 1, got {sweeps}")
        self.root, self.classes = root, CLASSES
        tables = tables or Tables(root)
        self.turns = sweeps
        names = _scenes_of(root, split)
        known = {row["name"] for row in tables.rows["scene"]}
        if not names <= known:
            raise ValueError(f"NuScenes: expected the scenes of {split!r} in the tables, got no {min(names - known)}")
        scenes = {row["token"] for row in tables.rows["scene"] if row["name"] in names}
        faults = Faults("NuScenes", malformed)
        self.samples: list[Sample] = []
        for row in sorted(tables.rows["sample"], key=lambda row: (row["scene_token"], row["timestamp"])):
            if row["scene_token"] in scenes:
                try:
                    sample = self._sample(row, tables)
                except (ValueError, FileNotFoundError) as error:
                    faults.add(str(error), ValueError if isinstance(error, ValueError) else FileNotFoundError)
                    continue
                if len(sample.boxes) or not filled:
                    self.samples.append(sample)
        faults.warn()

    def __len__(self) -> int:
        return len(self.samples)

    def points(self, index: int) -> NDArray[np.float32]:
        """(P, 5) x, y, z, intensity and the seconds since each was measured, of all turns of a sample.

        Raises:
            UnreadablePicture: if a file is missing, empty or cut short.
        """
        clouds = []
        for sweep in self.samples[index].sweeps:
            cloud = _read_cloud(sweep.path)
            cloud = cloud[np.abs(cloud[:, :2]).max(1, initial=0) >= _BLIND]
            turn = sweep.to_sample.astype(np.float32)
            cloud[:, :3] = cloud[:, :3] @ turn[:3, :3].T + turn[:3, 3]
            cloud[:, 4] = sweep.lag
            clouds.append(cloud)
        return np.concatenate(clouds)

    def _sample(self, row: dict[str, Any], tables: Tables) -> Sample:
        """The sample of a row; an error for what the tables or the folders lack."""
        data = {tables.channel(d): d for d in tables.key_data[row["token"]]}
        missing = [channel for channel in (LIDAR, *CAMERAS) if channel not in data]
        if missing:
            raise ValueError(f"expected all sensors of sample {row['token']}, got no {missing[0]}")
        lidar = data[LIDAR]
        home = tables.global_from(lidar)
        sweeps, turn = [], lidar
        for _ in range(self.turns):
            to_sample = np.linalg.inv(home) @ tables.global_from(turn)
            lag = MICROSECONDS * (lidar["timestamp"] - turn["timestamp"])
            sweeps.append(Sweep(self.root / turn["filename"], to_sample, lag))
            if not turn["prev"]:
                break
            turn = tables.row("sample_data", turn["prev"])
        views = []
        for channel in CAMERAS:
            pose = tables.global_from(data[channel])
            matrix = np.array(tables.calibration(data[channel])["camera_intrinsic"], dtype=np.float64)
            views.append(View(self.root / data[channel]["filename"], matrix, np.linalg.inv(pose) @ home))
        for path in (*(s.path for s in sweeps), *(v.path for v in views)):
            if not path.exists():
                raise FileNotFoundError(f"expected a file of sample {row['token']}, got no {path}")
        boxes, labels, attributes = self._boxes(row["token"], home, tables)
        ego = transform(tables.calibration(lidar))
        racks = self._racks(row["token"], home, tables)
        return Sample(row["token"], sweeps, views, boxes, labels, attributes, home, ego, racks)

    def _boxes(
        self, token: str, home: Floats, tables: Tables
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
        """The boxes of a sample that are detected and were met by a beam, seen from its LiDAR."""
        back = np.linalg.inv(home)
        boxes, labels, attributes = [], [], []
        for row in tables.annotations[token]:
            name = CATEGORIES.get(tables.category(row))
            if name is None or row["num_lidar_pts"] + row["num_radar_pts"] == 0:
                continue
            w, length, h = row["size"]
            turn = back[:3, :3] @ Rotation.from_quat(np.roll(row["rotation"], -1)).as_matrix()
            velocity = back[:3, :3] @ tables.velocity(row)
            centre = back[:3, :3] @ np.array(row["translation"]) + back[:3, 3]
            boxes.append([*centre, length, w, h, np.arctan2(turn[1, 0], turn[0, 0]), *velocity[:2]])
            labels.append(CLASSES.index(name))
            attributes.append(tables.attribute(row))
        found = np.array(boxes, dtype=np.float32).reshape(-1, 9)
        return found, np.array(labels, dtype=np.int64), attributes

    def _racks(self, token: str, home: Floats, tables: Tables) -> Floats:
        racks = [np.zeros((0, 3, 4))]
        for row in tables.annotations[token]:
            if tables.category(row) == _RACK:
                w, length, h = row["size"]
                corner = transform(row) @ np.diag([length / 2, w / 2, h / 2, 1])
                racks.append((np.linalg.inv(corner) @ home)[None, :3])
        return np.concatenate(racks)


def _scenes_of(root: Path, split: str) -> set[str]:
    path = root / "splits.json"
    if not path.exists():
        raise FileNotFoundError(
            "NuScenes: expected the names of each split's scenes, which nuscenes.utils.splits.create_splits_scenes() "
            f"of the devkit returns, as JSON, got no {path}"
        )
    splits = read_json(path)
    if split not in splits:
        raise ValueError(f"NuScenes: expected a split of {sorted(splits)}, got {split!r}")
    return set(splits[split])


def _read_cloud(path: Path) -> NDArray[np.float32]:
    """(P, 5) as the file has them."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UnreadablePicture(f"NuScenes: expected the points in {path}, got: {error.strerror}") from error
    if not raw or len(raw) % 20:
        raise UnreadablePicture(f"NuScenes: expected five float32 numbers a point in {path}, got {len(raw)} bytes")
    return np.frombuffer(raw, np.float32).reshape(-1, 5).copy()
