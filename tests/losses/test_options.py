"""What the constructors of the losses refuse, and how a loss is printed."""

import copy
import inspect
import re

import pytest
import torch

from pydistill.adapters import Adapter
from pydistill.losses import DETRDistillLoss, LaneLoss, LDLoss, SADLoss, UniDistillLoss
from pydistill.ops import BEVGrid

GRID = BEVGrid(-4, -3, 0.5, 0.4, 11, 17)
NAN = float("nan")

WRONG = [
    (SADLoss, dict(mapping="sum"), "expected mapping in ('sum_power', 'max_power'), got 'sum'"),
    (SADLoss, dict(power=0.5), "expected power >= 1, got 0.5"),
    (SADLoss, dict(normalize="max"), "expected normalize in (None, 'mean', 'standardize'), got 'max'"),
    (SADLoss, dict(temperature=0.0), "expected temperature > 0, got 0.0"),
    (SADLoss, dict(reduction="none"), "expected reduction in ('batchmean', 'mean', 'sum'), got 'none'"),
    (SADLoss, dict(pairs=[]), "expected pairs of indices >= 0, at least one, got []"),
    (SADLoss, dict(pairs=[(0, 1), (1, -1)]), "expected pairs of indices >= 0, at least one, got [(0, 1), (1, -1)]"),
    (LaneLoss, dict(iou_form="soft"), "expected iou_form in ('lanes', 'port', 'port0', 'binary', 'paper_literal')"),
    (LaneLoss, dict(iou_absent="zero", alpha=0), "expected iou_absent in ('skip', 'one') or None, got 'zero'"),
    (LDLoss, dict(strides=[]), "expected at least one stride, got []"),
    (LDLoss, dict(strides=[8, 0]), "expected a finite stride of level 1 > 0, got 0.0"),
    (LDLoss, dict(gamma=-3), "expected gamma in [0, 1], got -3"),
    (LDLoss, dict(gamma=NAN), "expected gamma in [0, 1], got nan"),
    (LDLoss, dict(temperature=-1), "expected a finite temperature > 0, got -1"),
    (LDLoss, dict(kd_temperature=-1), "expected a finite kd_temperature > 0, got -1"),
    (LDLoss, dict(images_per_process=0), "expected a finite images_per_process > 0, got 0"),
    (LDLoss, dict(box_offset=-1e-6), "expected a finite box_offset >= 0, got -1e-06"),
    (LDLoss, dict(eps=NAN), "expected a finite eps >= 0, got nan"),
    (DETRDistillLoss, dict(temperature=-1), "expected temperature > 0, got -1"),
    (DETRDistillLoss, dict(topk=0), "expected topk of at least 1, got 0"),
    (DETRDistillLoss, dict(gamma=2), "expected gamma in [0, 1], got 2"),
    (DETRDistillLoss, dict(floor=0), "expected floor > 0, got 0"),
    (DETRDistillLoss, dict(eos_weight=NAN), "expected a finite eos_weight >= 0, got nan"),
    (UniDistillLoss, dict(teacher_temperature=-1), "expected teacher_temperature > 0, got -1"),
]
NEEDED = {LDLoss: dict(strides=[8, 16]), UniDistillLoss: dict(grid=GRID)}


@pytest.mark.parametrize(("loss", "options", "message"), WRONG, ids=[f"{w[0].__name__}-{w[1]}" for w in WRONG])
def test_a_wrong_option_is_named_when_the_loss_is_made(loss, options, message):
    with pytest.raises(ValueError, match=re.escape(f"{loss.__name__}: {message}")):
        loss(**NEEDED.get(loss, {}) | options)


def test_a_grid_that_is_none_is_named_when_the_loss_is_made():
    with pytest.raises(TypeError, match="UniDistillLoss: expected grid as a BEVGrid, got tuple"):
        UniDistillLoss((0, 0, 1, 1, 4, 4))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (SADLoss, "SADLoss(reference='paper')"),
        (lambda: SADLoss([(0, 2)], power=2.0, health=1), "SADLoss(pairs=[(0, 2)], reference='paper', health=1)"),
        (lambda: LaneLoss(reference="port", alpha=0), "LaneLoss(reference='port', alpha=0)"),
        (lambda: LaneLoss(ignore_index=255), "LaneLoss(reference='paper')"),
        (
            lambda: LDLoss([8, 16], preset="retina", gamma=0.5, vlr_kd=None, eps=1e-6),
            "LDLoss(strides=[8, 16], preset='retina', reference='paper', gamma=0.5, eps=1e-06)",
        ),
        (
            lambda: DETRDistillLoss(detector="detr", stages=[1], topk=30),
            "DETRDistillLoss(detector='detr', reference='paper', stages=[1], topk=30)",
        ),
        (
            lambda: UniDistillLoss(GRID, low_adapter=torch.nn.ReLU(), high_adapter=Adapter("1x1", 1, 2)),
            f"UniDistillLoss(grid={GRID}, path='camera_from_lidar', reference='paper', "
            "high_adapter=Adapter(kind='1x1', in_channels=1, out_channels=2)(adapters)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_prints_what_it_was_made_with(make, text):
    """The options that say most, and those that are not the defaults."""
    loss = make()
    assert "".join(repr(loss).replace("\n  ", "").splitlines()).startswith(text)
    assert repr(copy.deepcopy(loss)) == repr(loss)


def test_the_constructors_keep_their_signatures():
    assert list(inspect.signature(LDLoss).parameters)[:3] == ["strides", "preset", "reference"]
    assert inspect.signature(SADLoss).parameters["temperature"].default == 1.0
