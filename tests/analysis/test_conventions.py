"""What docstrings promise holds, and every public function has its definition."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import analysis
import routing
from analysis.balance import BALANCE_UNITS
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.traces import planted_trace

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = re.findall(r"^## (\S+)$", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE)
FUNCTIONS = sorted(name for name in analysis.__all__ if inspect.isfunction(getattr(analysis, name)))
INTERVENTIONS = (
    "knock_out",
    "selection_embedding_effects",
    "prototype_exchange",
    "runner_up_regret",
    "next_tokens",
    "changed_text",
)
"""What `analysis.interventions` gives, which is not imported here: it needs torch."""
LABELS = ("Question.", "Definition.", "Unit", "Reading", "Source", "How it misleads")

TRACE = planted_trace(seed=0, n_tasks=4, n_prompts_a_task=4)
ADAPTED = hyper_moe_trace(seed=0, n_prompts_a_task=2)
RETRIEVER, ROUTED = pha_trace(n_prompts_a_task=3), task_moe_trace(n_prompts_a_task=2)
SIGNATURES = analysis.signatures(TRACE)
PROMPT = TRACE.prompts["prompt"][0]
CALLS = {
    "expert_contexts": lambda: analysis.expert_contexts(TRACE, layer="L01", expert=2),
    "expert_occurrences": lambda: analysis.expert_occurrences(TRACE, layer="L01", expert=2),
    "load_over_run": lambda: analysis.load_over_run(TRACE, layer="L01", expert=2),
    "similar_experts": lambda: analysis.similar_experts(TRACE, layer="L01", expert=2, n_permutations=5),
    "token_adapters": lambda: analysis.token_adapters(ADAPTED, ADAPTED.prompts["prompt"][0], position=1),
    "against_control": lambda: analysis.against_control(TRACE, TRACE, n_permutations=5),
    "main_task_types": lambda: analysis.main_task_types(SIGNATURES),
    "split_half": lambda: analysis.split_half(TRACE, n_splits=2, n_permutations=2),
    "prompt_correlation": lambda: analysis.prompt_correlation(TRACE, n_permutations=5),
    "controlled_specialization": lambda: analysis.controlled_specialization(TRACE, n_permutations=5),
    "correctness_link": lambda: analysis.correctness_link(TRACE, n_permutations=5),
    "paired_differential": lambda: analysis.paired_differential(TRACE, TRACE, n_permutations=5),
    "differential": lambda: analysis.differential(TRACE, [PROMPT], n_permutations=5),
    "routing_distance": lambda: analysis.routing_distance(TRACE, TRACE, n_permutations=5),
    "saturation_by_rank": lambda: analysis.saturation_by_rank(TRACE, TRACE),
    "token_churn": lambda: analysis.token_churn(TRACE, TRACE, prompt=PROMPT),
    "changed_prompts": lambda: analysis.changed_prompts(TRACE, TRACE),
    "churn": lambda: analysis.churn(TRACE, TRACE),
    "expert_numbering": lambda: analysis.expert_numbering(TRACE, TRACE, n_permutations=5),
    "score_changes": lambda: analysis.score_changes(TRACE, TRACE, n_bootstrap=5),
    "adapter_sharing": lambda: analysis.adapter_sharing(ADAPTED, n_permutations=5),
    "adapter_similarity": lambda: analysis.adapter_similarity(ADAPTED),
    "distinct_adapters": lambda: analysis.distinct_adapters(ADAPTED),
    "expert_relations": lambda: analysis.expert_relations(ADAPTED, n_permutations=5),
    "expert_similarities": lambda: analysis.expert_similarities(ADAPTED),
    "feature_overlap": lambda: analysis.feature_overlap(ROUTED),
    "partial_correlation": lambda: analysis.partial_correlation(ROUTED, n_permutations=5),
    "prototype_centers": lambda: analysis.prototype_centers(RETRIEVER, n_bootstrap=5),
    "prototype_relations": lambda: analysis.prototype_relations(RETRIEVER, n_permutations=5),
    "prototype_similarity": lambda: analysis.prototype_similarity(RETRIEVER),
    "retrieval": lambda: analysis.retrieval(RETRIEVER),
    "retrieval_accuracy": lambda: analysis.retrieval_accuracy(RETRIEVER, n_permutations=5),
    "route_similarity": lambda: analysis.route_similarity(ROUTED),
    "route_entropy": lambda: analysis.route_entropy(ROUTED, n_bootstrap=5),
    "strongest_experts": lambda: analysis.strongest_experts(analysis.feature_correlation(TRACE, n_permutations=5)),
    "task_routes": lambda: analysis.task_routes(ROUTED),
    "context_independence": lambda: analysis.context_independence(TRACE),
    "repetition": lambda: analysis.repetition(TRACE),
    "next_layer_predictability": lambda: analysis.next_layer_predictability(TRACE),
    "common_paths": lambda: analysis.common_paths(TRACE, layers=TRACE.layers[:2], n_deals=3),
    "path_entropy": lambda: analysis.path_entropy(TRACE, n_deals=3),
    "layer_information": lambda: analysis.layer_information(TRACE, n_deals=3),
    "transitions": lambda: analysis.transitions(TRACE),
    "coactivation": lambda: analysis.coactivation(TRACE),
    "router_losses": lambda: analysis.router_losses(TRACE),
    "capacity_drops": lambda: analysis.capacity_drops(TRACE),
    "overload_tokens": lambda: analysis.overload_tokens(TRACE, layer="L00"),
    "overload_tasks": lambda: analysis.overload_tasks(TRACE),
    "load_convergence": lambda: analysis.load_convergence(TRACE, n_permutations=5),
    "importance": lambda: analysis.importance(TRACE, by="task"),
    "load_by_position": lambda: analysis.load_by_position(TRACE),
    "balance_scales": lambda: analysis.balance_scales(TRACE),
    "worst_passes": lambda: analysis.worst_passes(TRACE, n_permutations=5),
    "pass_load": lambda: analysis.pass_load(TRACE),
    "adapter_signatures": lambda: analysis.adapter_signatures(ADAPTED),
    "activation_rate": lambda: analysis.activation_rate(TRACE),
    "assignment_counts": lambda: analysis.assignment_counts(TRACE, by="task"),
    "expert_load": lambda: analysis.expert_load(TRACE, by="task"),
    "feature_correlation": lambda: analysis.feature_correlation(TRACE, n_permutations=5),
    "idle_experts": lambda: analysis.idle_experts(TRACE),
    "load_balance": lambda: analysis.load_balance(TRACE, by="task", n_bootstrap=5),
    "margins": lambda: analysis.margins(TRACE),
    "near_ties": lambda: analysis.near_ties(TRACE),
    "runner_up_matrix": lambda: analysis.runner_up_matrix(TRACE, layer="L00"),
    "over_training": lambda: analysis.over_training({1: TRACE}, n_permutations=5),
    "prompt_tokens": lambda: analysis.prompt_tokens(TRACE, PROMPT),
    "routed_tokens": lambda: analysis.routed_tokens(TRACE, by="task"),
    "routing_entropy": lambda: analysis.routing_entropy(TRACE),
    "saturation": lambda: analysis.saturation(TRACE, TRACE),
    "signatures": lambda: SIGNATURES,
    "specialists": lambda: analysis.specialists(TRACE, n_permutations=5),
    "specialization": lambda: analysis.specialization(TRACE, n_permutations=5),
    "task_features": lambda: analysis.task_features(TRACE),
    "task_information": lambda: analysis.task_information(TRACE, n_permutations=5),
    "task_scores": lambda: analysis.task_scores(TRACE, n_bootstrap=5),
    "token_experts": lambda: analysis.token_experts(TRACE, PROMPT, layer="L00"),
    "token_overlap": lambda: analysis.token_overlap(TRACE, range(9)),
    "token_sample": lambda: analysis.token_sample(TRACE, n_tokens=9),
    "token_route": lambda: analysis.token_route(TRACE, PROMPT, position=0),
}
"""Functions that return a table or a labelled array; the others return a result class of their own."""

MANY_COLUMNS = ("load_balance", "over_training", "task_features")
"""Tables whose docstring names groups of columns."""


def promise(name: str) -> list[str]:
    """The parts of what a docstring says it returns: dims · unit · range."""
    text = inspect.getdoc(getattr(analysis, name)) or ""
    match = re.search(r"^Returns:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    assert match, f"{name} does not say what it returns"
    return [part.strip() for part in " ".join(match[1].split()).split("·")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_its_heading_and_promise(name):
    assert HEADINGS.count(name) == 1
    parts = promise(name)
    assert len(parts) >= 3, f"{name}: dims · unit · range"


@pytest.mark.parametrize(
    "name", [*FUNCTIONS, *BALANCE_UNITS, *INTERVENTIONS, "lift", "q_value", "silhouette", "stability"]
)
def test_every_definition_is_whole(name):
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    body = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    if "**Unit, null, reading, source, how it misleads.**" in body:
        return
    for label in LABELS:
        assert f"**{label.rstrip('.')}" in body, f"{name} lacks {label}"
    assert re.search(r"\*\*(Null|Interval)\.\*\*", body), f"{name} has neither null nor interval"


def test_every_heading_is_a_name_of_something():
    columns = {*BALANCE_UNITS, "lift", "q_value", "silhouette", "stability"}
    columns |= {"trustworthiness", "continuity", "neighbor_preservation"}
    # The amounts of a run are told by its header, without any analysis.
    assert set(HEADINGS) == {*FUNCTIONS, *columns, *INTERVENTIONS, routing.summary.__name__}


@pytest.mark.parametrize("name", CALLS)
def test_promised_dims_are_returned(name):
    dims, columns = promise(name)[:2]
    promised = tuple(each.strip() for each in dims.strip("()").replace("[by,]", "task,").split(","))
    found = CALLS[name]()
    if isinstance(found, pd.DataFrame):
        assert tuple(found.index.names) == promised or (promised in (("row",), ("token",)) and found.index.name is None)
        assert found.attrs["unit"]
        if name not in MANY_COLUMNS:
            assert [column for column in found.columns if column not in columns] == []
    elif isinstance(found, xr.Dataset):
        assert any(promised == variable.dims for variable in found.data_vars.values())
        assert all("unit" in variable.attrs for variable in found.data_vars.values())
    else:
        assert found.dims == promised
        assert found.attrs["unit"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_keep_the_house_rules(name):
    parameters = inspect.signature(getattr(analysis, name)).parameters.values()
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    assert len(positional) <= 2
    assert not any(isinstance(each.default, bool | np.bool_) for each in positional)
    assert all(each.kind == each.KEYWORD_ONLY for each in parameters if each.name == "seed")


def test_importing_the_room_is_light():
    import subprocess
    import sys

    heavy = "numba", "sklearn", "umap", "torch", "plotly", "streamlit"
    code = f"import analysis, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
