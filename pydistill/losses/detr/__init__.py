"""DETRDistill: the objective of detectors that predict a set of boxes with queries."""

from pydistill.losses.detr.loss import DETRDistillLoss
from pydistill.losses.detr.prediction import SetPrediction, SetTargets
from pydistill.losses.detr.presets import DETRRules

__all__ = ["DETRDistillLoss", "DETRRules", "SetPrediction", "SetTargets"]
