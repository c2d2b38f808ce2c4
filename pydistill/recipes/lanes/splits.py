"""Which files of a data set make up a split, and the split opened for a network."""

from pathlib import Path

from pydistill.recipes.faults import Malformed
from pydistill.recipes.lanes.augment import PRESETS
from pydistill.recipes.lanes.config import Format, LaneConfig
from pydistill.recipes.lanes.data import LaneData
from pydistill.recipes.lanes.datasets import BDD100K, CULane, LaneDataset, TuSimple

_KINDS: dict[Format, type[TuSimple | CULane | BDD100K]] = {"tusimple": TuSimple, "culane": CULane, "bdd100k": BDD100K}
_CACHED = 2**30  # bytes of pictures at the network's size that are kept in memory


def split_files(layout: Format, root: Path, split: str) -> list[str]:
    """The files below ``root`` that list a split: ``"train"``, ``"val"``, ``"test"``, or the path of such a file.

    Raises:
        FileNotFoundError: where there is none; the message names what was looked for.
    """
    known = _KINDS[layout].SPLITS.get(split, split)
    wanted = [known] if isinstance(known, str) else list(known)
    found = [file for file in wanted if (root / file).is_file()]
    if not found:
        raise FileNotFoundError(f"split_files: expected {' or '.join(wanted)} in {root}, got none")
    return found


def open_dataset(layout: Format, root: Path, split: str, malformed: Malformed = "raise") -> LaneDataset:
    """A split of the data set below ``root``; ``malformed`` lines and files are refused or left out."""
    files = split_files(layout, root, split)
    if layout == "tusimple":
        return TuSimple(root, files, malformed=malformed)
    kind = CULane if layout == "culane" else BDD100K
    return kind(root, files[0], malformed=malformed)


def open_data(
    config: LaneConfig, root: Path, split: str, *, training: bool = False, malformed: Malformed = "raise"
) -> LaneData[LaneDataset]:
    """Pictures of a split for a network; for ``training`` augmented as ``config`` says. Small sets stay in memory."""
    dataset = open_dataset(config.format, root, split, malformed)
    augment = PRESETS[config.augment] if training else None
    small = len(dataset) * 3 * config.size[0] * config.size[1] <= _CACHED
    return LaneData(dataset, config.size, config.line_width, augment=augment, cache=small, unreadable=malformed)
