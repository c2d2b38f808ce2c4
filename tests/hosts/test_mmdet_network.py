"""The GFL detector and its anchors beside mmdetection's: the same weights give the same output."""

import pytest
import torch

from tests.conformance import relative_error
from tests.hosts.mmdet_here import MODELS, TASK_UTILS, register_all_modules

pytest.importorskip("pydistill.recipes", reason="needs pip install 'pydistill[train]'", exc_type=ImportError)

from pydistill.recipes.dense.anchors import grid_anchors, valid_anchors
from pydistill.recipes.dense.network import GFLDetector

STRIDES = (8, 16, 32, 64, 128)
CHANNELS = 32


def mmdets():
    """Theirs, with 32 channels after the backbone, and as many channels in a group as in the published detector."""
    register_all_modules(init_default_scope=True)
    gn = dict(type="GN", num_groups=CHANNELS // 8)
    return MODELS.build(
        dict(
            type="GFL",
            backbone=dict(type="ResNet", depth=18, frozen_stages=1, norm_eval=True),
            neck=dict(
                type="FPN", in_channels=[64, 128, 256, 512], out_channels=CHANNELS, start_level=1,
                add_extra_convs="on_output", num_outs=5,
            ),
            bbox_head=dict(
                type="GFLHead", num_classes=7, in_channels=CHANNELS, feat_channels=CHANNELS, stacked_convs=4,
                norm_cfg=gn, reg_max=16,
                anchor_generator=dict(
                    type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES
                ),
            ),
        )
    )  # fmt: skip


def by_our_names(state):
    """Both modules hold their layers in the same order of use, except that theirs puts the towers side by side."""
    names = {
        "neck.lateral_convs": "fpn.lateral",
        "bbox_head.gfl_cls": "head.classes",
        "bbox_head.gfl_reg": "head.sides",
    }
    names |= {f"neck.fpn_convs.{i}": f"fpn.output.{i}" if i < 3 else f"fpn.extra.{i - 3}" for i in range(5)}
    for ours, theirs in (("class", "cls"), ("side", "reg")):
        for i in range(4):
            names[f"bbox_head.{theirs}_convs.{i}.conv"] = f"head.{ours}_tower.{3 * i}"
            names[f"bbox_head.{theirs}_convs.{i}.gn"] = f"head.{ours}_tower.{3 * i + 1}"
    result = {"head.scales": torch.stack([state[f"bbox_head.scales.{i}.scale"] for i in range(5)])}
    for key, value in state.items():
        start = next((name for name in names if key.startswith(f"{name}.")), None)
        if start:
            result[(names[start] + key[len(start) :]).replace(".conv.", ".")] = value
        elif key.startswith("backbone."):
            result[key] = value
    return result


def test_network():
    torch.manual_seed(0)
    theirs = mmdets()
    for name, value in theirs.named_parameters():
        if "norm" in name or ".gn." in name or ".scale" in name:
            torch.nn.init.uniform_(value, 0.5, 1.5)
    ours = GFLDetector(7, 1.0, "resnet18", STRIDES, fpn_channels=CHANNELS, convolutions=4)
    ours.load_state_dict(by_our_names(theirs.state_dict()))
    ours.backbone.freeze(1)
    ours.train(), theirs.train()
    frozen = {name for name, value in theirs.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, value in ours.named_parameters() if not value.requires_grad}
    x = torch.randn(2, 3, 120, 200)
    output, (logits, sides) = ours(x), theirs(x)
    for a, b in zip((*output.logits, *output.sides), (*logits, *sides), strict=True):
        assert relative_error(a, b) < 1e-5


def test_anchors():
    theirs = TASK_UTILS.build(
        dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES)
    )
    shapes = [(13, 25), (7, 13), (4, 7), (2, 4), (1, 2)]
    anchors, sizes = grid_anchors(shapes, STRIDES)
    assert anchors.equal(torch.cat(theirs.grid_priors(shapes, device="cpu")))
    valid = valid_anchors(shapes, STRIDES, torch.tensor([[65, 150], [100, 200]]))
    for own, padded in zip(valid, ((96, 160), (128, 224))):
        assert own.equal(torch.cat(theirs.valid_flags(shapes, padded, device="cpu")))
    assert sizes == [h * w for h, w in shapes]
