"""A lane training of seconds, for the tests."""

import torch

from pydistill.recipes.lanes.config import LaneConfig

TINY = LaneConfig(
    size=(48, 80), steps=6, batch=2, warmup=2, sad_start=0.5, sad_ramp=0.3, log_every=1, evaluate_every=3, probe=2,
    optimizer="adamw", lr=1e-3, save_every=2,
)  # fmt: skip


def weights(training):
    """A copy of all weights and statistics of a student."""
    return {name: value.clone() for name, value in training.student.state_dict().items()}


def same(a, b):
    """Whether two state dicts have the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
