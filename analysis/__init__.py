"""Trace in, labelled table out. No pictures, no model, no screen."""

from analysis.adapter_ratio import adapter_ratios
from analysis.adapter_sharing import adapter_sharing
from analysis.adapter_signatures import adapter_signatures
from analysis.agreement import Agreement, ExpertTaskTypes, agreement, expert_task_types
from analysis.balance_scales import balance_scales, importance, load_by_position
from analysis.capacity import capacity_drops
from analysis.clustering import Clustering, clusters
from analysis.coactivation import coactivation
from analysis.common_ground import CommonGround, common_ground, expert_numbering
from analysis.common_paths import common_paths
from analysis.comparison import changed_prompts, churn, saturation_by_rank
from analysis.confidence import margins, routing_entropy
from analysis.contexts import expert_contexts
from analysis.controls import controlled_specialization, template_tokens
from analysis.convergence import load_convergence
from analysis.correctness import correctness_link
from analysis.correlation import feature_correlation, task_features
from analysis.counts import assignment_counts, routed_tokens
from analysis.differential import differential, paired_differential
from analysis.distances import routing_distance
from analysis.dynamics import over_training, saturation
from analysis.expert_agreement import expert_agreement, main_task_types
from analysis.expert_bound import expert_bound
from analysis.experts import ExpertProfile, expert_profile
from analysis.features import feature_overlap, partial_correlation, strongest_experts
from analysis.findings import Finding, findings
from analysis.found_again import FoundAgain, found_again
from analysis.health import Verdict, load_health
from analysis.hierarchy import Order, hierarchical_order
from analysis.information import task_information
from analysis.instances import InstanceGrouping, instance_grouping, instance_map
from analysis.layer_information import layer_information
from analysis.load import activation_rate, expert_load, idle_experts, load_balance
from analysis.mantel import MantelTest, mantel
from analysis.maps import routing_clusters, routing_map, stored_map
from analysis.more_clusters import CoClustering, co_clusters, density_clusters
from analysis.next_layer import next_layer_predictability
from analysis.occurrences import expert_occurrences
from analysis.overload import overload_tasks, overload_tokens
from analysis.pass_load import pass_load, worst_passes
from analysis.passages import token_churn
from analysis.paths import path_entropy, repetition
from analysis.placement_study import PlacementStudy, placement_what_if
from analysis.placements import Placement, balanced_placement, coactivated_placement, linear_placement, read_placement
from analysis.projection import Projection, project
from analysis.prompt_features import prompt_correlation, prompt_features
from analysis.prototypes import (
    exchange_relation,
    prototype_centers,
    prototype_relations,
    prototype_similarity,
    retrieval,
    retrieval_accuracy,
)
from analysis.quality import MapQuality, map_quality
from analysis.reading import prompt_tokens, token_adapters, token_experts, token_route
from analysis.reliability import against_control, split_half
from analysis.route_dynamics import RouteDynamics, route_dynamics
from analysis.router_losses import router_losses
from analysis.routes import RouteGrouping, route_entropy, route_grouping, route_similarity, task_routes
from analysis.runners_up import near_ties, runner_up_matrix
from analysis.score_changes import score_changes
from analysis.scores import task_scores
from analysis.signatures import signatures
from analysis.similarity import adapter_similarity, distinct_adapters, expert_relations, expert_similarities
from analysis.single_expert import load_over_run, similar_experts
from analysis.specialists import specialists
from analysis.specialization import specialization
from analysis.token_routes import token_overlap
from analysis.token_sample import token_sample
from analysis.transitions import transitions
from analysis.vocabulary import context_independence

__all__ = [
    "Agreement",
    "Clustering",
    "CoClustering",
    "CommonGround",
    "ExpertProfile",
    "ExpertTaskTypes",
    "Finding",
    "FoundAgain",
    "InstanceGrouping",
    "MantelTest",
    "MapQuality",
    "Order",
    "Placement",
    "PlacementStudy",
    "Projection",
    "RouteDynamics",
    "RouteGrouping",
    "Verdict",
    "activation_rate",
    "adapter_ratios",
    "adapter_sharing",
    "adapter_signatures",
    "adapter_similarity",
    "against_control",
    "agreement",
    "assignment_counts",
    "balance_scales",
    "balanced_placement",
    "capacity_drops",
    "changed_prompts",
    "churn",
    "clusters",
    "co_clusters",
    "coactivated_placement",
    "coactivation",
    "common_ground",
    "common_paths",
    "context_independence",
    "controlled_specialization",
    "correctness_link",
    "density_clusters",
    "differential",
    "distinct_adapters",
    "exchange_relation",
    "expert_agreement",
    "expert_bound",
    "expert_contexts",
    "expert_load",
    "expert_numbering",
    "expert_occurrences",
    "expert_profile",
    "expert_relations",
    "expert_similarities",
    "expert_task_types",
    "feature_correlation",
    "feature_overlap",
    "findings",
    "found_again",
    "hierarchical_order",
    "idle_experts",
    "importance",
    "instance_grouping",
    "instance_map",
    "layer_information",
    "linear_placement",
    "load_balance",
    "load_by_position",
    "load_convergence",
    "load_health",
    "load_over_run",
    "main_task_types",
    "mantel",
    "map_quality",
    "margins",
    "near_ties",
    "next_layer_predictability",
    "over_training",
    "overload_tasks",
    "overload_tokens",
    "paired_differential",
    "partial_correlation",
    "pass_load",
    "path_entropy",
    "placement_what_if",
    "project",
    "prompt_correlation",
    "prompt_features",
    "prompt_tokens",
    "prototype_centers",
    "prototype_relations",
    "prototype_similarity",
    "read_placement",
    "repetition",
    "retrieval",
    "retrieval_accuracy",
    "route_dynamics",
    "route_grouping",
    "route_similarity",
    "route_entropy",
    "routed_tokens",
    "router_losses",
    "routing_clusters",
    "routing_distance",
    "routing_entropy",
    "routing_map",
    "runner_up_matrix",
    "saturation",
    "saturation_by_rank",
    "score_changes",
    "signatures",
    "similar_experts",
    "specialists",
    "specialization",
    "split_half",
    "stored_map",
    "strongest_experts",
    "task_features",
    "task_information",
    "task_routes",
    "task_scores",
    "template_tokens",
    "token_adapters",
    "token_churn",
    "token_experts",
    "token_overlap",
    "token_route",
    "token_sample",
    "transitions",
    "worst_passes",
]
