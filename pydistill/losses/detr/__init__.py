"""DETRDistill: the objective of detectors that predict a set of boxes with queries."""

from pydistill.losses.detr.prediction import SetPrediction, SetTargets

__all__ = ["SetPrediction", "SetTargets"]
