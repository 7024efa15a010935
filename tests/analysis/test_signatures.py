from __future__ import annotations

import numpy as np
import pytest

from analysis.signatures import signatures
from analysis.specialization import specialization
from routing.errors import SelectionError, TraceError
from routing.memory import trace_from_counts
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, trace_of


def test_signatures_of_experts_are_the_rates_of_tasks():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=3)
    found = signatures(trace, of="expert", values="lift")
    other = specialization(trace, n_permutations=0)["lift"]
    assert found.sizes == {"item": 32, "feature": 3}
    assert found.sel(item="L02·E5").values.tolist() == other.sel(layer="L02", expert=5).values.tolist()
    assert found["layer"].sel(item="L02·E5") == "L02"
    assert found["task_type"].values.tolist() == ["extractive", "classification", "knowledge"]


def test_signatures_of_prompts_by_hand():
    # prompt 0: {0,1} {0,2} → rates 1 ½ ½ 0, loads ½ ¼ ¼ 0
    trace = trace_of([[0, 1], [0, 2], [3, 1]], prompts=[0, 0, 1], tasks=("a", "b"))
    assert signatures(trace, of="prompt", values="rate").sel(item="p0").values.tolist() == [1, 0.5, 0.5, 0]
    assert signatures(trace, of="prompt", values="load").sel(item="p0").values.tolist() == [0.5, 0.25, 0.25, 0]
    assert signatures(trace, of="prompt")["task"].values.tolist() == ["a", "b"]


def test_signatures_of_tasks_are_means_over_prompts():
    trace = trace_of([[0], [0], [0], [1]], n_experts=2, prompts=[0, 0, 0, 1], tasks=("a", "a"))
    found = signatures(trace, of="task", values="rate")
    assert found.sel(item="a").values.tolist() == [0.5, 0.5]


def test_experts_that_do_not_exist_are_no_items():
    trace = encoder_decoder_trace()
    found = signatures(trace, of="expert")
    assert found.sizes["item"] == 8 + 8 + 4
    assert found.attrs["unit"] == "log2 ratio"


def test_an_expert_never_chosen_has_no_lift():
    trace = trace_of([[0, 1], [0, 2]], n_experts=4)
    found = signatures(trace, of="expert", values="lift")
    assert found.sel(item="L00·E3").isnull().all()
    assert signatures(trace, of="expert", values="rate").sel(item="L00·E3") == 0


def test_counts_only_has_experts_but_no_prompts():
    counts = np.array([[[2, 1, 1, 0]], [[1, 1, 0, 0]]])
    trace = trace_from_counts(counts, layer_facts=facts_of(1, n_experts=4, top_k=2), tasks=("a", "b"), n_tokens=3)
    assert signatures(trace, of="task", values="load").sel(item="a").values.tolist() == [0.5, 0.25, 0.25, 0]
    with pytest.raises(TraceError, match="level 'counts'"):
        signatures(trace, of="prompt")


def test_unknown_names_are_refused():
    with pytest.raises(SelectionError, match="'layer'"):
        signatures(trace_of([[0, 1]]), of="layer")
