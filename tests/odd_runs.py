"""Runs that say less than most, or other things: what every view, and the report, is to take calmly."""

from __future__ import annotations

from collections.abc import Callable

from routing import RoutingTrace
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.counted import counted
from tests.traces import encoder_decoder_trace, planted_trace, trace_of

ODD: dict[str, Callable[[], RoutingTrace]] = {
    "one token": lambda: trace_of([[0, 1]], n_experts=4),
    "one expert": lambda: trace_of([[0], [0]], n_experts=1),
    "encoder–decoder": encoder_decoder_trace,
    "counts": lambda: counted(
        planted_trace(seed=0, n_tasks=6, n_prompts_a_task=6, n_tokens_a_prompt=10, n_layers=3),
    ),
    "HyperMoE": lambda: hyper_moe_trace(seed=0),
    "PHA": lambda: pha_trace(seed=0),
    "Task-level MoE": lambda: task_moe_trace(seed=0),
    "soft": lambda: task_moe_trace(seed=0, soft=True),
}
