"""Trace in, labelled table out. No pictures, no model, no screen."""

from analysis.counts import assignment_counts, routed_tokens
from analysis.load import activation_rate, expert_load, idle_experts, load_balance

__all__ = [
    "activation_rate",
    "assignment_counts",
    "expert_load",
    "idle_experts",
    "load_balance",
    "routed_tokens",
]
