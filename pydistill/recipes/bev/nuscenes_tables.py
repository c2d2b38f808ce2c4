"""The tables of nuScenes: rows by their tokens, and what follows from several of them."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]
MICROSECONDS = 1e-6  # the unit of the tables' times, in seconds

_TABLES = (
    "scene", "sample", "sample_data", "sensor", "calibrated_sensor", "ego_pose", "sample_annotation", "instance",
    "category", "attribute",
)  # fmt: skip
_APART = 1.5  # seconds between annotations, beyond which a velocity is not known


def transform(row: dict[str, Any]) -> Floats:
    """(4, 4) of a row with a translation and a rotation (w, x, y, z)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(np.roll(row["rotation"], -1)).as_matrix()
    matrix[:3, 3] = row["translation"]
    return matrix


class Tables:
    """The tables of a version, and what is looked up in them; nuScenes' own take gigabytes.

    Args:
        root: folder of the data set.
        version: name of the folder of tables; None: the only one there is.

    Raises:
        FileNotFoundError: for a table that is missing, or a version that is not told and not the only one.
        ValueError: for a table that is not JSON.
    """

    def __init__(self, root: Path, version: str | None = None):
        folder = root / (version or _only_version(root))
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for name in _TABLES:
            path = folder / f"{name}.json"
            if not path.exists():
                raise FileNotFoundError(f"NuScenes: expected the table {name}, got no {path}")
            self.rows[name] = read_json(path)
        self.by_token = {name: {row["token"]: row for row in rows} for name, rows in self.rows.items()}
        self.key_data: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self.rows["sample_data"]:
            if row["is_key_frame"]:
                self.key_data[row["sample_token"]].append(row)
        self.annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self.rows["sample_annotation"]:
            self.annotations[row["sample_token"]].append(row)

    def row(self, table: str, token: str) -> dict[str, Any]:
        """A row by its token.

        Raises:
            ValueError: where there is none.
        """
        found = self.by_token[table].get(token)
        if found is None:
            raise ValueError(f"expected row {token} in the table {table}, got none")
        return found

    def calibration(self, data: dict[str, Any]) -> dict[str, Any]:
        """How the sensor of a measurement is mounted."""
        return self.row("calibrated_sensor", data["calibrated_sensor_token"])

    def channel(self, data: dict[str, Any]) -> str:
        """The name of the sensor of a measurement."""
        name: str = self.row("sensor", self.calibration(data)["sensor_token"])["channel"]
        return name

    def global_from(self, data: dict[str, Any]) -> Floats:
        """(4, 4): from the frame of a sensor at the moment of a measurement."""
        return transform(self.row("ego_pose", data["ego_pose_token"])) @ transform(self.calibration(data))

    def category(self, annotation: dict[str, Any]) -> str:
        """What is annotated."""
        instance = self.row("instance", annotation["instance_token"])
        name: str = self.row("category", instance["category_token"])["name"]
        return name

    def attribute(self, annotation: dict[str, Any]) -> str:
        """Its first attribute, "" for none."""
        tokens = annotation["attribute_tokens"]
        name: str = self.row("attribute", tokens[0])["name"] if tokens else ""
        return name

    def velocity(self, annotation: dict[str, Any]) -> Floats:
        """(3,) from the annotations before and after, in the global frame; NaN where they are too far apart."""
        before, after = (
            self.row("sample_annotation", annotation[side]) if annotation[side] else annotation
            for side in ("prev", "next")
        )
        seconds = MICROSECONDS * (self._time(after) - self._time(before))
        both = bool(annotation["prev"]) and bool(annotation["next"])
        if before is after or seconds > (2 if both else 1) * _APART:
            return np.full(3, np.nan)
        velocity: Floats = (np.array(after["translation"]) - np.array(before["translation"])) / seconds
        return velocity

    def _time(self, annotation: dict[str, Any]) -> int:
        stamp: int = self.row("sample", annotation["sample_token"])["timestamp"]
        return stamp


def _only_version(root: Path) -> str:
    found = sorted(path.parent.name for path in root.glob("*/sample.json"))
    if len(found) != 1:
        got = ", ".join(found) or "none"
        raise FileNotFoundError(f"NuScenes: expected one folder of tables in {root}, or its name, got {got}")
    return found[0]


def read_json(path: Path) -> Any:
    """The content of a file; an error that names it where it is no JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"NuScenes: expected JSON in {path}, got {error}") from error
