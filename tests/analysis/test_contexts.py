from __future__ import annotations

import numpy as np
import pytest

from analysis.contexts import expert_contexts
from analysis.occurrences import expert_occurrences, matching_tokens, token_occurrences
from routing import RoutingTrace, SelectionError, TraceError
from tests.counted import counted
from tests.traces import planted_trace, trace_of

# Three prompts of three tokens; expert 2 of the one layer is chosen with these weights, by rank:
#   p0: –, 0.25, 0.75      p1: 0.5, –, –      p2: never
EXPERTS = [[0, 1], [0, 2], [2, 1], [2, 0], [1, 0], [0, 1], [0, 1], [1, 0], [3, 1]]
WEIGHTS = [
    [0.6, 0.4],
    [0.75, 0.25],
    [0.75, 0.25],
    [0.5, 0.5],
    [0.6, 0.4],
    [0.6, 0.4],
    [0.6, 0.4],
    [0.6, 0.4],
    [0.6, 0.4],
]
PROMPTS = [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.fixture
def trace() -> RoutingTrace:
    return trace_of(EXPERTS, weights=WEIGHTS, prompts=PROMPTS, n_experts=4)


def contexts(trace: RoutingTrace, **options):
    return expert_contexts(trace, layer="L00", expert=2, **options)


def test_the_highest_come_first_one_a_prompt(trace):
    found = contexts(trace)
    assert found["prompt"].tolist() == ["p0", "p1"]
    assert found["position"].tolist() == [2, 0]
    assert found["value"].tolist() == [0.75, 0.5]
    assert found["n_tokens"].tolist() == [2, 1]
    assert found["rank"].tolist() == [0, 0]


def test_the_nearest_come_first_where_they_are_asked_for(trace):
    found = contexts(trace, order="nearest", near=0.3)
    assert found["prompt"].tolist() == ["p0", "p1"]
    assert found["value"].tolist() == [0.25, 0.5]
    with pytest.raises(SelectionError, match="need that value"):
        contexts(trace, order="nearest")


def test_a_window_ends_with_its_prompt_and_tells_where_the_expert_fires(trace):
    row = contexts(trace, n_before=9, n_after=9).iloc[0]
    assert (row["at"], len(row["pieces"])) == (2, 3)
    assert np.isnan(row["values"][0])
    assert row["values"][1:] == (0.25, 0.75)


def test_the_prompt_being_read_can_be_left_out(trace):
    assert contexts(trace, skip="p0")["prompt"].tolist() == ["p1"]


def test_runners_up_have_contexts_of_their_own():
    trace = trace_of([[0, 2], [2, 0], [1, 2]], top_k=1, prompts=[0, 1, 2], scores=[[0.6, 0.3], [0.9, 0.1], [0.5, 0.4]])
    found = contexts(trace, role="runner_up")
    assert found["prompt"].tolist() == ["p2", "p0"]
    assert found["value"].tolist() == pytest.approx([0.4, 0.3], abs=1e-3)


def test_a_draw_depends_on_the_seed_and_not_on_chunks():
    trace = planted_trace(seed=0, n_prompts_a_task=20)
    options = {"layer": "L01", "expert": 3, "order": "random", "n_contexts": 9}
    one = expert_contexts(trace, seed=1, **options)
    assert one["prompt"].is_unique
    assert (one["value"].diff().dropna() <= 0).all()
    assert one["prompt"].tolist() == expert_contexts(trace, seed=1, **options)["prompt"].tolist()
    assert set(one["prompt"]) != set(expert_contexts(trace, seed=2, **options)["prompt"])


def test_the_slow_way_finds_the_same():
    trace = planted_trace(seed=3, n_prompts_a_task=5)
    number, expert = 2, 5
    found = expert_contexts(trace, layer="L02", expert=expert, n_contexts=1000)
    slow = {}
    for row, prompt in enumerate(trace.tokens["prompt"]):
        for rank in range(2):
            if trace.experts.values[row, number, rank] == expert:
                weight = float(trace.weights.values[row, number, rank])
                slow[prompt] = max(slow.get(prompt, 0), weight)
    assert dict(zip(found["prompt"], found["value"], strict=True)) == pytest.approx(
        {trace.prompts["prompt"].iloc[prompt]: weight for prompt, weight in slow.items()}
    )


def test_an_expert_that_nobody_chose_has_no_context(trace):
    assert expert_contexts(trace_of([[0, 1]]), layer="L00", expert=3).empty
    with pytest.raises(SelectionError):
        expert_contexts(trace, layer="L00", expert=9)
    with pytest.raises(TraceError):
        expert_contexts(counted(trace), layer="L00", expert=2)


def test_occurrences_of_experts_are_counted_prompt_by_prompt(trace):
    assert expert_occurrences(trace, layer="L00", expert=2)["n_chosen"].tolist() == [2, 1, 0]
    assert expert_occurrences(trace, layer="L00", expert=3)["n_routed"].tolist() == [3, 3, 3]


def test_a_token_is_found_by_its_text_first_and_by_a_part_of_it_where_there_is_none():
    trace = trace_of([[0, 1]] * 4, prompts=[0, 0, 1, 1])
    tokens = trace.tokens.drop(columns=["stack"]).assign(token_id=[5, 6, 7, 5])
    trace = RoutingTrace.from_arrays(
        trace.experts.values,
        scores=trace.scores.values,
        weights=trace.weights.values,
        layer_facts=trace.layer_facts,
        tokens=tokens,
        prompts=trace.prompts,
        vocabulary={5: " The", 6: " other", 7: "café"},
    )
    assert list(matching_tokens(trace, text="the").index) == [5]
    assert token_occurrences(trace, text="the").tolist() == [1, 1]
    assert list(matching_tokens(trace, text="the").index) == [5]
    assert list(matching_tokens(trace, text="oth").index) == [6]
    assert token_occurrences(trace, text="nothing").tolist() == [0, 0]
