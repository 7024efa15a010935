"""What is being computed, in words: for each function whose answer the cache keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app.sentences import count
from routing import RoutingTrace

__all__ = ["WORDS", "computing"]

WORDS = {
    "activation_rate": "Counting which experts tasks select",
    "adapter_ratios": "Reading what adapters add",
    "adapter_sharing": "Comparing adapters of layers",
    "adapter_similarity": "Comparing adapters",
    "bytes_below": "Adding up the sizes of files",
    "changes_of_prompts": "Comparing prompts",
    "changes_of_scores": "Comparing scores",
    "changes_of_tokens": "Comparing the tokens of a prompt",
    "changes_of_use": "Comparing the use of every expert",
    "churn_between": "Comparing a passage with another run",
    "coactivation": "Counting pairs of experts",
    "comparison": "Looking at what the two runs have in common",
    "distances": "Comparing loads",
    "distinct_adapters": "Counting distinct adapters",
    "expert_contexts": "Looking for the texts in which an expert fires",
    "expert_groups": "Clustering experts",
    "expert_lifts": "Comparing what experts serve",
    "expert_load": "Reading loads",
    "expert_profile": "Reading what an expert does",
    "expert_relations": "Comparing tables of experts",
    "expert_similarities": "Comparing experts",
    "feature_correlation": "Correlating routes with features of tasks",
    "findings": "Looking for what stands out",
    "findings_since": "Looking for what stands out, and since when",
    "found_prompts": "Searching the prompts",
    "gain_over_control": "Comparing with the earlier checkpoint",
    "group_differences": "Comparing the two groups",
    "idle_experts": "Looking for idle experts",
    "information": "Asking what experts tell about tasks",
    "instance_grouping": "Asking whether tasks lie apart",
    "instance_map": "Placing vectors on a map",
    "kept_by_rank": "Comparing the routing of every token",
    "kept_cells": "Comparing cells with shuffled prompts",
    "layer_churn": "Comparing the routing of every token",
    "layer_order": "Clustering layers",
    "load_balance": "Measuring how even loads are, with intervals",
    "load_over_run": "Following the load over the run",
    "margins": "Reading margins",
    "near_ties": "Counting narrow decisions",
    "nearest_of_items": "Looking for the nearest points",
    "numbering": "Matching the experts of two runs",
    "outcomes": "Reading scores",
    "overlap": "Comparing what tokens select",
    "overload_tasks": "Asking which tasks overload experts",
    "overload_tokens": "Asking which tokens overload experts",
    "passage_routing": "Reading the routing of a passage",
    "prompt_tokens": "Reading the tokens of a passage",
    "prototype_centers": "Comparing prototypes with their tasks",
    "prototype_relations": "Comparing tables of prototypes",
    "prototype_similarity": "Comparing prototypes",
    "retrieval": "Counting which prototypes are retrieved",
    "retrieval_accuracy": "Counting which prototypes are retrieved",
    "route_dynamics": "Comparing the steps of training",
    "route_entropy": "Reading how layers are shared",
    "route_grouping": "Asking whether alike tasks share routes",
    "route_similarity": "Comparing the routes of tasks",
    "routing_clusters": "Clustering experts",
    "routing_entropy": "Reading entropies",
    "routing_map": "Placing points on a map",
    "runner_up_matrix": "Reading runners-up",
    "specialization": "Comparing tasks with shuffled prompts",
    "strongest_groups": "Looking for what experts serve most",
    "summary": "Reading what was recorded",
    "task_information": "Asking what experts tell about tasks",
    "task_routes": "Reading the routes of tasks",
    "task_scores": "Reading how well tasks were answered",
    "token_adapters": "Reading the adapters of a token",
    "token_at": "Looking for a token",
    "token_cloud": "Placing tokens on a map",
    "token_contexts": "Looking for texts around tokens",
    "token_route": "Reading the path of a token",
    "training_within": "Reading snapshots of training",
}
"""Name of a function → what it is at."""

# Of what each of these takes many of, the reader should know how many.
_OVER_EXPERTS = {"expert_groups", "routing_clusters", "expert_load", "coactivation", "load_balance", "specialization"}
_OVER_TOKENS = {
    "findings",
    "findings_since",
    "margins",
    "routing_entropy",
    "near_ties",
    "expert_contexts",
    "token_cloud",
}


def computing(function: Callable[..., Any], traces: Sequence[RoutingTrace], *, is_whole: bool) -> str:
    """What is being computed.

    Args:
        function: answers a question.
        traces: what it is asked of.
        is_whole: whether it is asked of all of that, and not of a selection.
    """
    name = function.__name__
    words = WORDS.get(name, "Computing")
    if len(traces) != 1 or not is_whole:
        return words
    if name in _OVER_EXPERTS:
        return f"{words} ({count(int(traces[0].expert_exists.sum()), 'expert')})"
    if name in _OVER_TOKENS:
        return f"{words} ({count(traces[0].n_tokens, traces[0].unit)})"
    return words
