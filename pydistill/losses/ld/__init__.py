"""Localization distillation (LD): the objective of dense detectors whose boxes are distributions."""

from pydistill.losses.ld.loss import LDLoss
from pydistill.losses.ld.prediction import DensePrediction
from pydistill.losses.ld.presets import LDRules

__all__ = ["DensePrediction", "LDLoss", "LDRules"]
