"""A training of seconds of detectors by queries, for the tests."""

import torch

from pydistill.recipes.detr.config import DetrConfig
from pydistill.recipes.detr.training import build_model

TINY = DetrConfig(
    width=0.125, channels=32, queries=6, layers=2, encoder_layers=0, feedforward=32, steps=4, batch=2, warmup=2,
    log_every=1, evaluate_every=4, probe=2, save_every=2, lr=1e-3,
)  # fmt: skip


def make_teacher(config=TINY, classes=3):
    """A teacher of the same shape with weights of its own."""
    torch.manual_seed(77)
    return build_model(config, classes).eval()
