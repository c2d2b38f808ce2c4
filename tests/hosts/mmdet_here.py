"""mmdetection for the tests, or a skip where it is absent. mmcv-lite lacks the compiled operators of mmcv."""

import sys
import types

import pytest


class _NoOperators(types.ModuleType):
    """mmcv imports its compiled operators by name; no test calls one."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args, **kwargs):
            raise RuntimeError(f"mmcv-lite has no {name}")

        return refuse


pytest.importorskip("mmdet", reason="needs mmdet, in an environment of its own: make test-hosts")
sys.modules.setdefault("mmcv._ext", _NoOperators("mmcv._ext"))

import mmdet  # noqa: E402
from mmdet.models import dense_heads  # noqa: E402
from mmdet.models.losses.iou_loss import diou_loss  # noqa: E402
from mmdet.registry import MODELS, TASK_UTILS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

import pydistill.hosts.mmdet  # noqa: E402, F401

init_default_scope("mmdet")
__all__ = [
    "MODELS",
    "TASK_UTILS",
    "Config",
    "DetDataSample",
    "InstanceData",
    "dense_heads",
    "diou_loss",
    "mmdet",
    "register_all_modules",
]
