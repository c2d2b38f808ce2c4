"""The papers' objectives, as modules over ``pydistill.ops``."""

from pydistill.losses.attention_health import AttentionHealth
from pydistill.losses.detr import DETRDistillLoss, DETRRules, SetPrediction, SetTargets
from pydistill.losses.lanes import LaneLoss
from pydistill.losses.ld import DensePrediction, LDLoss, LDRules
from pydistill.losses.sad import SADLoss
from pydistill.losses.unidistill import BEVPrediction, UniDistillLoss

__all__ = [
    "AttentionHealth",
    "BEVPrediction",
    "DETRDistillLoss",
    "DETRRules",
    "DensePrediction",
    "LDLoss",
    "LDRules",
    "LaneLoss",
    "SADLoss",
    "SetPrediction",
    "SetTargets",
    "UniDistillLoss",
]
