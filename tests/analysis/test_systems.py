"""Every function on traces of the three systems, and theirs on odd traces: an answer or a reason."""

from __future__ import annotations

import pytest

import analysis
from routing.errors import RoutingError
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.analysis.test_odd_traces import FUNCTIONS, ODD

SYSTEMS = {
    "HyperMoE": lambda: hyper_moe_trace(n_prompts_a_task=3),
    "PHA": lambda: pha_trace(n_prompts_a_task=3),
    "soft Task-level MoE": lambda: task_moe_trace(soft=True, n_tasks_a_type=2),
}
OF_SYSTEMS = {
    "adapter_ratios": lambda trace: analysis.adapter_ratios(trace, n_bootstrap=5),
    "adapter_ratios by task": lambda trace: analysis.adapter_ratios(trace, by="task", n_bootstrap=5),
    "adapter_similarity": analysis.adapter_similarity,
    "distinct_adapters": analysis.distinct_adapters,
    "expert_relations": lambda trace: analysis.expert_relations(trace, n_permutations=5),
    "expert_similarities": analysis.expert_similarities,
    "feature_overlap": analysis.feature_overlap,
    "instance_grouping": lambda trace: analysis.instance_grouping(trace, n_permutations=5),
    "instance_map": lambda trace: analysis.instance_map(trace, method="pca"),
    "partial_correlation": lambda trace: analysis.partial_correlation(trace, n_permutations=5),
    "prototype_centers": lambda trace: analysis.prototype_centers(trace, n_bootstrap=5),
    "prototype_relations": lambda trace: analysis.prototype_relations(trace, n_permutations=5),
    "prototype_similarity": analysis.prototype_similarity,
    "retrieval": analysis.retrieval,
    "retrieval_accuracy": lambda trace: analysis.retrieval_accuracy(trace, n_permutations=5),
    "route_dynamics": lambda trace: analysis.route_dynamics({1: trace, 2: trace}, n_permutations=5),
    "route_grouping": lambda trace: analysis.route_grouping(trace, n_permutations=5),
    "route_similarity": lambda trace: analysis.route_similarity(trace, distance="jensen_shannon"),
    "route_entropy": lambda trace: analysis.route_entropy(trace, n_bootstrap=5),
    "task_routes": analysis.task_routes,
}
OF_EVERY_TRACE = {name for name in OF_SYSTEMS if name.startswith(("feature", "partial", "route", "task"))}


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]()


@pytest.fixture(scope="module", params=ODD)
def odd(request):
    return ODD[request.param]()


def refusal_of(function, trace):
    """Why there is no answer; None where there is one."""
    try:
        assert function(trace) is not None
    except RoutingError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_known_of_other_traces_is_known_of_these(system, name):
    refusal = refusal_of(FUNCTIONS[name], system)
    assert refusal is None or refusal.count(". ") >= 1


@pytest.mark.parametrize("name", OF_SYSTEMS)
def test_what_is_made_for_the_systems_answers_or_says_what_is_missing(odd, name):
    refusal = refusal_of(OF_SYSTEMS[name], odd)
    assert refusal is None or (name not in OF_EVERY_TRACE and refusal.count(". ") >= 1)
