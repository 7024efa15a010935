"""Trace in, labelled table out. No pictures, no model, no screen."""

from analysis.counts import assignment_counts, routed_tokens
from analysis.information import task_information
from analysis.load import activation_rate, expert_load, idle_experts, load_balance
from analysis.reading import prompt_tokens, token_experts, token_route
from analysis.signatures import signatures
from analysis.specialization import specialization

__all__ = [
    "activation_rate",
    "assignment_counts",
    "expert_load",
    "idle_experts",
    "load_balance",
    "prompt_tokens",
    "routed_tokens",
    "signatures",
    "specialization",
    "task_information",
    "token_experts",
    "token_route",
]
