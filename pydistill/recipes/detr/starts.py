"""Random weights for a training from nothing; transformers' own expect weights to be loaded."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_PRIOR = 0.01  # what every class has at the start, so that the background does not drown the first steps
_OWN = ("sampling_offsets", "attention_weights")  # of deformable attention, which starts at points around the query


@torch.no_grad()
def restart(host: nn.Module, classes: Iterable[Any] = (), boxes: Iterable[Any] = ()) -> None:
    """Gives a detector of transformers the initial weights of its paper's code.

    Matrices by Xavier, biases 0, norms 1 (transformers starts RT-DETR's batch norms near 0, so that nothing passes),
    embeddings from the standard normal.

    Args:
        host: the detector.
        classes: its linear heads whose probabilities are sigmoids; they start at 0.01.
        boxes: its heads whose outputs are offsets; they start at 0.
    """
    for name, module in host.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not name.endswith(_OWN):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.Embedding)):
            module.reset_parameters()
    for head in classes:
        nn.init.constant_(head.bias, -math.log(1 / _PRIOR - 1))
    for head in boxes:
        nn.init.zeros_(head.layers[-1].weight)
