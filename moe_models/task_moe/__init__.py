"""Task-level MoE: whole layers as experts, routed per task."""

from moe_models.task_moe.model import (
    RoutedLayer,
    TaskMoeConfig,
    TaskMoeForConditionalGeneration,
    TaskMoeOutput,
    experts_from,
)
from moe_models.task_moe.router import TaskRouter, gumbel_weights

__all__ = [
    "RoutedLayer",
    "TaskMoeConfig",
    "TaskMoeForConditionalGeneration",
    "TaskMoeOutput",
    "TaskRouter",
    "experts_from",
    "gumbel_weights",
]
