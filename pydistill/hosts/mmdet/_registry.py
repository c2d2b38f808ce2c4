"""The registries behind ``type="pydistill.X"`` in a config of mmdetection."""

try:
    from mmdet.structures.bbox import get_box_tensor
    from mmengine.registry import MODELS as _MODELS
    from mmengine.registry import TASK_UTILS as _TASK_UTILS
    from mmengine.registry import Registry
except ImportError as error:
    message = (
        "pydistill.hosts.mmdet: expected mmdet, not installed here; "
        "pip install mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0"
    )
    raise ImportError(message) from error

__all__ = ["MODELS", "TASK_UTILS", "get_box_tensor"]

# Children of the root, siblings of mmdet's: a name with a dot is looked up from the root, so every config finds them.
MODELS = Registry("model", parent=_MODELS, scope="pydistill")
TASK_UTILS = Registry("task util", parent=_TASK_UTILS, scope="pydistill")
