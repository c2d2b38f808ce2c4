"""Golden arrays: ``golden("ld_kl")`` is tests/golden/ld_kl.npz as a dict."""

from pathlib import Path

import numpy as np


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)
