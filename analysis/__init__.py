"""Trace in, labelled table out. No pictures, no model, no screen."""

from analysis.adapter_signatures import adapter_signatures
from analysis.agreement import Agreement, ExpertTaskTypes, agreement, expert_task_types
from analysis.balance_scales import balance_scales, importance, load_by_position
from analysis.capacity import capacity_drops
from analysis.clustering import Clustering, clusters
from analysis.coactivation import coactivation
from analysis.confidence import margins, routing_entropy
from analysis.convergence import load_convergence
from analysis.correlation import feature_correlation, task_features
from analysis.counts import assignment_counts, routed_tokens
from analysis.dynamics import over_training, saturation
from analysis.experts import ExpertProfile, expert_profile
from analysis.findings import Finding, findings
from analysis.health import Verdict, load_health
from analysis.hierarchy import Order, hierarchical_order
from analysis.information import task_information
from analysis.load import activation_rate, expert_load, idle_experts, load_balance
from analysis.maps import routing_clusters, routing_map, stored_map
from analysis.overload import overload_tasks, overload_tokens
from analysis.pass_load import pass_load, worst_passes
from analysis.paths import path_entropy, repetition
from analysis.placement_study import PlacementStudy, placement_what_if
from analysis.placements import Placement, balanced_placement, coactivated_placement, linear_placement, read_placement
from analysis.projection import Projection, project
from analysis.quality import MapQuality, map_quality
from analysis.reading import prompt_tokens, token_experts, token_route
from analysis.router_losses import router_losses
from analysis.runners_up import near_ties, runner_up_matrix
from analysis.scores import task_scores
from analysis.signatures import signatures
from analysis.specialists import specialists
from analysis.specialization import specialization
from analysis.token_routes import token_overlap
from analysis.token_sample import token_sample
from analysis.transitions import layer_information, next_layer_predictability, transitions
from analysis.vocabulary import context_independence

__all__ = [
    "Agreement",
    "Clustering",
    "ExpertProfile",
    "ExpertTaskTypes",
    "Finding",
    "MapQuality",
    "Order",
    "Placement",
    "PlacementStudy",
    "Projection",
    "Verdict",
    "activation_rate",
    "adapter_signatures",
    "agreement",
    "assignment_counts",
    "balance_scales",
    "balanced_placement",
    "capacity_drops",
    "clusters",
    "coactivated_placement",
    "coactivation",
    "context_independence",
    "expert_load",
    "expert_profile",
    "expert_task_types",
    "feature_correlation",
    "findings",
    "hierarchical_order",
    "idle_experts",
    "importance",
    "layer_information",
    "linear_placement",
    "load_balance",
    "load_by_position",
    "load_convergence",
    "load_health",
    "map_quality",
    "margins",
    "near_ties",
    "next_layer_predictability",
    "over_training",
    "overload_tasks",
    "overload_tokens",
    "pass_load",
    "path_entropy",
    "placement_what_if",
    "project",
    "prompt_tokens",
    "read_placement",
    "repetition",
    "routed_tokens",
    "router_losses",
    "routing_clusters",
    "routing_entropy",
    "routing_map",
    "runner_up_matrix",
    "saturation",
    "signatures",
    "specialists",
    "specialization",
    "stored_map",
    "task_features",
    "task_information",
    "task_scores",
    "token_experts",
    "token_overlap",
    "token_route",
    "token_sample",
    "transitions",
    "worst_passes",
]
