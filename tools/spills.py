"""The kernels that spill registers to local memory, and why it is left so. tools/kernels.py holds them to this list."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spill:
    """Kernels whose name begins with ``pattern`` (a regular expression) may spill ``most`` bytes a thread, anywhere."""

    pattern: str
    most: int
    reason: str


SPILLS = [
    Spill(
        "",
        40,
        "ptxas stops at a number of registers that lets in one more block (40, 48, 64, 80, 128) and spills the few "
        "over, in other kernels on each architecture. Which of the two is faster, a GPU has to say.",
    ),
    Spill(
        "HungarianMatch<",
        260,
        "None on sm_90. On Blackwell ptxas prefers 64 or 80 registers. Launch bounds of one block a multiprocessor "
        "take 140 to 152 and spill nothing on sm_90 and sm_100, but then one problem runs there, not two or more.",
    ),
    Spill(
        "AtssCandidates<",
        128,
        "None on sm_90 and later. Before, a box's search keeps its state across a block's barriers.",
    ),
    Spill("KeypointChannelRelationLoss<double", 176, "float64, for gradient checks; other types stay within 40 bytes."),
    Spill("KeypointRelationBackward<double", 116, "float64, for gradient checks; other types stay within 40 bytes."),
    Spill("SoftIouBackward<double", 76, "float64, for gradient checks; other types do not spill."),
]
