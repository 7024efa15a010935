"""Trace in, labelled table out. No pictures, no model, no screen."""

from analysis.agreement import Agreement, ExpertTaskTypes, agreement, expert_task_types
from analysis.clustering import Clustering, clusters
from analysis.confidence import margins, routing_entropy
from analysis.correlation import feature_correlation, task_features
from analysis.counts import assignment_counts, routed_tokens
from analysis.dynamics import over_training, saturation
from analysis.experts import ExpertProfile, expert_profile
from analysis.findings import Finding, findings
from analysis.hierarchy import Order, hierarchical_order
from analysis.information import task_information
from analysis.load import activation_rate, expert_load, idle_experts, load_balance
from analysis.maps import routing_clusters, routing_map, stored_map
from analysis.projection import Projection, project
from analysis.quality import MapQuality, map_quality
from analysis.reading import prompt_tokens, token_experts, token_route
from analysis.scores import task_scores
from analysis.signatures import signatures
from analysis.specialists import specialists
from analysis.specialization import specialization

__all__ = [
    "Agreement",
    "Clustering",
    "ExpertProfile",
    "ExpertTaskTypes",
    "Finding",
    "MapQuality",
    "Order",
    "Projection",
    "activation_rate",
    "agreement",
    "assignment_counts",
    "clusters",
    "expert_load",
    "expert_profile",
    "expert_task_types",
    "feature_correlation",
    "findings",
    "hierarchical_order",
    "idle_experts",
    "load_balance",
    "map_quality",
    "margins",
    "over_training",
    "project",
    "prompt_tokens",
    "routed_tokens",
    "routing_clusters",
    "routing_entropy",
    "routing_map",
    "saturation",
    "signatures",
    "specialists",
    "specialization",
    "stored_map",
    "task_features",
    "task_information",
    "task_scores",
    "token_experts",
    "token_route",
]
