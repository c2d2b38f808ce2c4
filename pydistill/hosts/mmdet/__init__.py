"""mmdetection 3: its losses, overlaps, assigners and DETR heads over the kernels, and all of Localization Distillation.

``custom_imports=dict(imports=["pydistill.hosts.mmdet"])`` in a config registers them all; ``type="pydistill.X"`` takes
one. They live in registries of their own, so mmdet's classes of the same names stay what they are.
"""

from pydistill.hosts.mmdet._registry import MODELS, TASK_UTILS
from pydistill.hosts.mmdet.assigner import COSTS, HungarianAssigner
from pydistill.hosts.mmdet.boxes import ATSSAssigner, BboxOverlaps2D
from pydistill.hosts.mmdet.detector import KnowledgeDistillationSingleStageDetector
from pydistill.hosts.mmdet.detr import (
    ConditionalDETRHead,
    DABDETRHead,
    DeformableDETRHead,
    DETRHead,
    DINOHead,
)
from pydistill.hosts.mmdet.head import LDHead
from pydistill.hosts.mmdet.losses import (
    CIoULoss,
    DIoULoss,
    DistributionFocalLoss,
    GIoULoss,
    KnowledgeDistillationKLDivLoss,
    QualityFocalLoss,
)
from pydistill.hosts.mmdet.match_costs import (
    BBoxL1Cost,
    BinaryFocalLossCost,
    ClassificationCost,
    CrossEntropyLossCost,
    DiceCost,
    FocalLossCost,
    IoUCost,
)

__all__ = [
    "ATSSAssigner",
    "BBoxL1Cost",
    "BinaryFocalLossCost",
    "BboxOverlaps2D",
    "CIoULoss",
    "ClassificationCost",
    "ConditionalDETRHead",
    "CrossEntropyLossCost",
    "DABDETRHead",
    "DETRHead",
    "DINOHead",
    "DeformableDETRHead",
    "DiceCost",
    "DIoULoss",
    "DistributionFocalLoss",
    "FocalLossCost",
    "GIoULoss",
    "HungarianAssigner",
    "IoUCost",
    "KnowledgeDistillationKLDivLoss",
    "KnowledgeDistillationSingleStageDetector",
    "LDHead",
    "QualityFocalLoss",
]

for _model in (
    CIoULoss,
    ConditionalDETRHead,
    DABDETRHead,
    DETRHead,
    DINOHead,
    DIoULoss,
    DeformableDETRHead,
    DistributionFocalLoss,
    GIoULoss,
    KnowledgeDistillationKLDivLoss,
    KnowledgeDistillationSingleStageDetector,
    LDHead,
    QualityFocalLoss,
):
    MODELS.register_module(module=_model)
for _task_util in (ATSSAssigner, BboxOverlaps2D, HungarianAssigner, *COSTS):
    TASK_UTILS.register_module(module=_task_util)
