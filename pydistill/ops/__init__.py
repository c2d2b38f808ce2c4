"""The ops: each a fused kernel for CPU and CUDA, with its plain-torch reference beside it."""

from pydistill.ops.attention_distillation_loss import attention_distillation_loss, energy_distillation_loss
from pydistill.ops.attention_map import attention_map, channel_energy

__all__ = ["attention_distillation_loss", "attention_map", "channel_energy", "energy_distillation_loss"]
