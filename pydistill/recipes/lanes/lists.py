"""List files of CULane and BDD100K: a picture a line, alone or with its label picture and the lanes that exist.

::

    /driver_23_30frame/05151649_0422.MP4/00000.jpg
    /driver_23_30frame/05151649_0422.MP4/00000.jpg /laneseg_label_w16/driver_23_30frame/.../00000.png 1 1 1 0
    /train_img/train/0000f77c.jpg /train_label/final_train/0000f77c.png 1 1 1 1
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydistill.recipes.faults import Faults, Malformed


@dataclass(frozen=True)
class Entry:
    """One line of a list: paths below the data set's folder; label and existence of four lanes where it has them."""

    picture: str
    label: str | None = None
    existence: tuple[int, ...] | None = None
    source: str = field(default="", compare=False)  # file and line


def read_list(path: Path, *, malformed: Malformed = "raise") -> list[Entry]:
    """Reads a list file: CULane's ``list/*.txt`` and ``list/test_split/*.txt``, BDD100K's ``list/*_gt_bdd.txt``.

    Args:
        path: file to read. Blank lines in it mean nothing.
        malformed: what becomes of a line of another form: an error, or left out with one warning.

    Raises:
        ValueError: for a malformed line, with file and line.
    """
    faults = Faults("read_list", malformed)
    entries = parse_list(path, faults)
    faults.warn()
    return entries


def parse_list(path: Path, faults: Faults) -> list[Entry]:
    """``read_list`` for a reader that collects other faults, too."""
    entries = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        fields, source = line.split(), f"{path}, line {number}"
        if len(fields) == 1:
            entries.append(Entry(fields[0].lstrip("/"), source=source))
        elif len(fields) == 6 and set(fields[2:]) <= {"0", "1"}:
            existence = tuple(map(int, fields[2:]))
            entries.append(Entry(fields[0].lstrip("/"), fields[1].lstrip("/"), existence, source))
        elif fields:
            form = "a picture, or a picture, a label and four of 0 and 1"
            faults.add(f"expected {form} in {source}, got {line[:120]!r}")
    return entries
