"""The papers' objectives, as modules over ``pydistill.ops``."""

from pydistill.losses.sad import SADLoss

__all__ = ["SADLoss"]
