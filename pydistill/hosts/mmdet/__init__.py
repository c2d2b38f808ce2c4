"""mmdetection 3: its losses, overlaps and assigner over the kernels, and the whole of Localization Distillation.

``custom_imports=dict(imports=["pydistill.hosts.mmdet"])`` in a config registers them all; ``type="pydistill.X"`` takes
one. They live in registries of their own, so mmdet's classes of the same names stay what they are.
"""

from pydistill.hosts.mmdet._registry import MODELS, TASK_UTILS
from pydistill.hosts.mmdet.boxes import ATSSAssigner, BboxOverlaps2D
from pydistill.hosts.mmdet.detector import KnowledgeDistillationSingleStageDetector
from pydistill.hosts.mmdet.head import LDHead
from pydistill.hosts.mmdet.losses import (
    CIoULoss,
    DIoULoss,
    DistributionFocalLoss,
    GIoULoss,
    KnowledgeDistillationKLDivLoss,
    QualityFocalLoss,
)

__all__ = [
    "MODELS",
    "TASK_UTILS",
    "ATSSAssigner",
    "BboxOverlaps2D",
    "CIoULoss",
    "DIoULoss",
    "DistributionFocalLoss",
    "GIoULoss",
    "KnowledgeDistillationKLDivLoss",
    "KnowledgeDistillationSingleStageDetector",
    "LDHead",
    "QualityFocalLoss",
]

for _model in (
    CIoULoss,
    DIoULoss,
    DistributionFocalLoss,
    GIoULoss,
    KnowledgeDistillationKLDivLoss,
    KnowledgeDistillationSingleStageDetector,
    LDHead,
    QualityFocalLoss,
):
    MODELS.register_module(module=_model)
for _task_util in (ATSSAssigner, BboxOverlaps2D):
    TASK_UTILS.register_module(module=_task_util)
