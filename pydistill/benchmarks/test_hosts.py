"""Whole losses of transformers' detectors, forward and backward: 6 stages, 8 images, 300 queries, 20 boxes.

Needs the repository, whose tests know what each model hands over. Operations are not counted.
"""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers", reason="needs pip install transformers")
pytest.importorskip("tests.hosts", reason="needs the repository: a wheel has no tests")
from tests.hosts.test_transformers_losses import CONFIG, FAMILIES, handed_over, run, theirs

CONFIGURED = SimpleNamespace(**{**vars(CONFIG), "decoder_layers": 6})


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loss(compare, device, family):
    """In place of ``model.loss_function``."""
    if device != "cpu":
        pytest.skip("compares on a CPU: the hosts' tests make their tensors there")
    targets, outputs = handed_over(family, counts=(20,) * 8, queries=300, layers=6, dtype=torch.float32)
    ours, transformers = FAMILIES[family][2], theirs(family)
    got, want = (run(loss, family, targets, outputs, CONFIGURED)[0] for loss in (ours, transformers))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=0)
    numbers = sum(x.numel() for x in outputs.values() if isinstance(x, torch.Tensor))
    compare(
        ours=lambda: run(ours, family, targets, outputs, CONFIGURED),
        transformers=lambda: run(transformers, family, targets, outputs, CONFIGURED),
        bytes_moved=2 * 4 * numbers,
    )
