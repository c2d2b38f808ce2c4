"""The ops: each a fused kernel for CPU and CUDA, with its plain-torch reference beside it."""

from pydistill.ops.attention_distillation_loss import attention_distillation_loss, energy_distillation_loss
from pydistill.ops.attention_map import attention_map, channel_energy
from pydistill.ops.linear_sum_assignment import Assignment, linear_sum_assignment
from pydistill.ops.softmax_kl import softmax_kl

__all__ = [
    "Assignment",
    "attention_distillation_loss",
    "attention_map",
    "channel_energy",
    "energy_distillation_loss",
    "linear_sum_assignment",
    "softmax_kl",
]
