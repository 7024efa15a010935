"""Every function on every odd trace: an answer, or an error of ours that says what is missing; never anything else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from routing import LayerFacts, RoutingTrace, Selection
from routing.errors import RoutingError
from tests.counted import counted
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, random_trace, trace_of


def counts_only():
    return counted(planted_trace(seed=0, n_tasks=4, n_prompts_a_task=2), with_prompts=False)


def one_decision_a_prompt():
    prompts = pd.DataFrame({"prompt": [f"p{number}" for number in range(12)], "task": ["a", "b"] * 6})
    experts = np.random.default_rng(0).integers(0, 3, (12, 2, 1))
    return RoutingTrace.from_arrays(
        experts,
        layer_facts=facts_of(2, n_experts=3, top_k=1),
        tokens=pd.DataFrame({"prompt": np.arange(12)}),
        prompts=prompts,
        unit="prompt",
    )


def bare_ids():
    """No scores, no weights, no texts: what some importers have."""
    return RoutingTrace.from_arrays(np.array([[[0, 1]], [[2, 1]]]), layer_facts=facts_of(1, n_experts=4, top_k=2))


def uneven_layers():
    """Layers of different size and top-k, one of a single expert."""
    facts = (
        *facts_of(1, n_experts=300, top_k=3),
        *facts_of(1, n_experts=4, top_k=1, first=1),
        LayerFacts(label="L02", number=2, n_experts=1, top_k=1, score_function="sigmoid"),
    )
    rng = np.random.default_rng(1)
    experts = np.full((40, 3, 3), -1)
    experts[:, 0] = rng.permuted(np.tile(np.arange(300), (40, 1)), axis=1)[:, :3]
    experts[:, 1, 0] = rng.integers(0, 4, 40)
    experts[:, 2, 0] = 0
    prompts = pd.DataFrame({"prompt": ["p0", "p1", "p2", "p3"], "task": ["a", "a", "b", "b"]})
    tokens = pd.DataFrame({"prompt": np.repeat([0, 1, 2, 3], 10)})
    return RoutingTrace.from_arrays(experts, layer_facts=facts, tokens=tokens, prompts=prompts)


def empty_selection():
    return trace_of([[0, 1]], tasks=("a", "b")).select(Selection(prompts=("p1",)))


ODD = {
    "encoder–decoder": encoder_decoder_trace,
    "one token": lambda: trace_of([[0, 1]]),
    "one token a prompt": lambda: trace_of([[0, 1], [1, 2], [3, 0]], prompts=[0, 1, 2], tasks=("a", "b", "a")),
    "one prompt a task": lambda: random_trace(seed=0, n_prompts=3, n_tasks=3),
    "one task": lambda: random_trace(seed=1, n_tasks=1),
    "nothing selected": empty_selection,
    "one decision a prompt": one_decision_a_prompt,
    "bare ids": bare_ids,
    "uneven layers": uneven_layers,
    "counts only": counts_only,
    "one layer selected": lambda: encoder_decoder_trace().select(Selection(layers=("dec01",))),
}
FUNCTIONS = {
    "density_clusters": lambda trace: analysis.density_clusters(analysis.signatures(trace), n_permutations=2),
    "co_clusters": lambda trace: analysis.co_clusters(analysis.signatures(trace), n_permutations=2, n_halves=2),
    "found_again": lambda trace: analysis.found_again(trace, n_bootstrap=2, n_permutations=2),
    "found_again of tasks": lambda trace: analysis.found_again(trace, of="task", n_bootstrap=2, n_permutations=2),
    "expert_agreement": lambda trace: analysis.expert_agreement(
        table := analysis.signatures(trace),
        analysis.clusters(table, n_permutations=0, n_bootstrap=0).labels,
        n_permutations=2,
    ),
    "template_tokens": lambda trace: analysis.template_tokens(trace),
    "against_control": lambda trace: analysis.against_control(trace, trace, n_permutations=5),
    "split_half": lambda trace: analysis.split_half(trace, n_splits=2, n_permutations=2),
    "prompt_correlation": lambda trace: analysis.prompt_correlation(trace, n_permutations=5),
    "controlled_specialization": lambda trace: analysis.controlled_specialization(
        trace, tokens_a_prompt=3, n_permutations=5
    ),
    "correctness_link": lambda trace: analysis.correctness_link(trace, n_permutations=5),
    "paired_differential": lambda trace: analysis.paired_differential(trace, trace, n_permutations=5),
    "differential": lambda trace: analysis.differential(
        trace, trace.prompts["prompt"].iloc[:1].tolist(), n_permutations=5
    ),
    "token_churn": lambda trace: analysis.token_churn(trace, trace, prompt=trace.prompts["prompt"][0]),
    "routing_distance": lambda trace: analysis.routing_distance(trace, trace, n_permutations=5),
    "saturation_by_rank": lambda trace: analysis.saturation_by_rank(trace, trace),
    "changed_prompts": lambda trace: analysis.changed_prompts(trace, trace),
    "churn": lambda trace: analysis.churn(trace, trace),
    "common_ground": lambda trace: analysis.common_ground(trace, trace),
    "expert_numbering": lambda trace: analysis.expert_numbering(trace, trace, n_permutations=5),
    "context_independence": lambda trace: analysis.context_independence(trace),
    "repetition": lambda trace: analysis.repetition(trace),
    "next_layer_predictability": lambda trace: analysis.next_layer_predictability(trace),
    "path_entropy": lambda trace: analysis.path_entropy(trace, n_deals=2),
    "common_paths": lambda trace: analysis.common_paths(trace, layers=trace.layers[:2], n_deals=2),
    "layer_information": lambda trace: analysis.layer_information(trace, n_deals=2),
    "transitions": lambda trace: analysis.transitions(trace),
    "coactivation": lambda trace: analysis.coactivation(trace),
    "placement_what_if": lambda trace: analysis.placement_what_if(trace, n_devices=2, n_random=1),
    "load_health": lambda trace: analysis.load_health(trace),
    "overload_tasks": lambda trace: analysis.overload_tasks(trace),
    "router_losses": lambda trace: analysis.router_losses(trace),
    "importance": lambda trace: analysis.importance(trace),
    "capacity_drops": lambda trace: analysis.capacity_drops(trace),
    "overload_tokens": lambda trace: analysis.overload_tokens(trace, layer=trace.layers[-1]),
    "load_convergence": lambda trace: analysis.load_convergence(trace, n_permutations=5),
    "load_by_position": lambda trace: analysis.load_by_position(trace, n_bootstrap=5),
    "balance_scales": lambda trace: analysis.balance_scales(trace),
    "worst_passes": lambda trace: analysis.worst_passes(trace, n_permutations=3),
    "pass_load": lambda trace: analysis.pass_load(trace),
    "activation_rate": analysis.activation_rate,
    "activation_rate by prompt": lambda trace: analysis.activation_rate(trace, by="prompt"),
    "assignment_counts": analysis.assignment_counts,
    "assignment_counts by phase": lambda trace: analysis.assignment_counts(trace, by="phase"),
    "clusters of experts": analysis.routing_clusters,
    "clusters of prompts": lambda trace: analysis.routing_clusters(trace, of="prompt"),
    "expert_load": analysis.expert_load,
    "expert_task_types": lambda trace: analysis.expert_task_types(
        analysis.signatures(trace), analysis.routing_clusters(trace).labels, n_permutations=20
    ),
    "feature_correlation": lambda trace: analysis.feature_correlation(trace, n_permutations=20),
    "findings": analysis.findings,
    "idle_experts": analysis.idle_experts,
    "load_balance": lambda trace: analysis.load_balance(trace, n_bootstrap=10),
    "load_balance by type": lambda trace: analysis.load_balance(trace, by="task_type", n_bootstrap=10),
    "map of experts": lambda trace: analysis.routing_map(trace, method="pca"),
    "map of prompts": lambda trace: analysis.routing_map(trace, of="prompt", method="pca"),
    "map of tasks": lambda trace: analysis.routing_map(trace, of="task", values="load"),
    "map of tokens": lambda trace: analysis.routing_map(trace, of="token", method="pca"),
    "margins": analysis.margins,
    "order of experts": lambda trace: analysis.hierarchical_order(analysis.signatures(trace), axis="item"),
    "order of tasks": lambda trace: analysis.hierarchical_order(analysis.signatures(trace), axis="feature"),
    "over_training": lambda trace: analysis.over_training({1: trace, 2: trace}, n_permutations=5),
    "prompt_tokens": lambda trace: analysis.prompt_tokens(trace, trace.prompts["prompt"][0]),
    "routed_tokens": analysis.routed_tokens,
    "routing_entropy": analysis.routing_entropy,
    "routing_entropy of weights": lambda trace: analysis.routing_entropy(trace, of="weights"),
    "specialists": lambda trace: analysis.specialists(trace, n_permutations=20),
    "specialization": lambda trace: analysis.specialization(trace, n_permutations=20),
    "specialization over types": lambda trace: analysis.specialization(
        trace, over="task_type", units="task", n_permutations=20
    ),
    "task_information": lambda trace: analysis.task_information(trace, n_permutations=20),
    "task_scores": analysis.task_scores,
    "token_experts": lambda trace: analysis.token_experts(trace, trace.prompts["prompt"][0], layer=trace.layers[0]),
    "token_overlap": lambda trace: analysis.token_overlap(trace, range(min(3, trace.n_tokens))),
    "token_route": lambda trace: analysis.token_route(trace, trace.prompts["prompt"][0], position=0),
}
NEEDS_TOKENS = {
    "found_again",
    "found_again of tasks",
    "template_tokens",
    "against_control",
    "split_half",
    "prompt_correlation",
    "controlled_specialization",
    "correctness_link",
    "paired_differential",
    "differential",
    "token_churn",
    "routing_distance",
    "saturation_by_rank",
    "changed_prompts",
    "churn",
    "expert_numbering",
    "context_independence",
    "repetition",
    "next_layer_predictability",
    "path_entropy",
    "common_paths",
    "layer_information",
    "transitions",
    "coactivation",
    "placement_what_if",
    "router_losses",
    "importance",
    "capacity_drops",
    "overload_tokens",
    "load_convergence",
    "load_by_position",
    "balance_scales",
    "worst_passes",
    "pass_load",
    "activation_rate by prompt",
    "assignment_counts by phase",
    "clusters of prompts",
    "map of prompts",
    "map of tokens",
    "margins",
    "over_training",
    "prompt_tokens",
    "routing_entropy",
    "routing_entropy of weights",
    "specialists",
    "specialization",
    "specialization over types",
    "task_information",
    "token_experts",
    "token_overlap",
    "token_route",
}
NEEDS_TWO_PROMPTS = {"differential", "next_layer_predictability", "placement_what_if"}
WITHOUT_SCORES = {"router_losses", "importance", "margins", "routing_entropy", "routing_entropy of weights"}
MAY_REFUSE = {
    "counts only": NEEDS_TOKENS,
    "nothing selected": {
        "controlled_specialization",
        "margins",
        "token_churn",
        "router_losses",
        "routing_entropy",
        "token_route",
    },
}


@pytest.fixture(scope="module", params=ODD)
def odd(request):
    return request.param, ODD[request.param]()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_answer_or_a_reason(odd, function):
    name, trace = odd
    refusal = None
    try:
        FUNCTIONS[function](trace)
    except RoutingError as error:
        refusal = str(error)
    if name == "counts only":
        assert (refusal is not None) == (function in NEEDS_TOKENS)
    if refusal is not None:
        assert refusal.count(". ") + refusal.endswith(".") >= 2, f"what is wrong, and what to do: {refusal}"
        allowed = MAY_REFUSE.get(name, WITHOUT_SCORES) | (NEEDS_TWO_PROMPTS if trace.n_prompts < 2 else set())
        # Most odd traces hold no answers, so none are scored.
        assert function in allowed | {"correctness_link"}, f"{function} refuses {name}: {refusal}"
