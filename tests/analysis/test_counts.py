from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings

from analysis import scan
from analysis.counts import assignment_counts, routed_tokens
from routing import LayerFacts, RoutingTrace, Selection
from routing.errors import SelectionError, TraceError
from routing.memory import trace_from_counts
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, random_trace, trace_of, traces


def slow_counts(trace: RoutingTrace, *, by: str) -> Counter[tuple[str, str, int]]:
    """The obvious version: one assignment after the other, or its weight where all experts are always selected."""
    assert trace.experts is not None
    counts: Counter[tuple[str, str, int]] = Counter()
    tokens, prompts, experts = trace.tokens, trace.prompts, trace.experts.values
    for token in range(trace.n_tokens):
        row = prompts.iloc[tokens["prompt"][token]]
        group = tokens["phase"][token] if by == "phase" else row[by]
        for layer, facts in enumerate(trace.layer_facts):
            for rank in range(facts.top_k):
                if experts[token, layer, rank] != trace.absent:
                    amount = float(trace.weights.values[token, layer, rank]) if trace.dense_routing else 1
                    counts[group, facts.label, int(experts[token, layer, rank])] += amount
    return counts


def test_counts_by_hand():
    # prompt 0: {0,1} {0,2}    prompt 1: {1,0}    → expert 0 three times, 1 twice, 2 once, 3 never
    trace = trace_of([[0, 1], [0, 2], [1, 0]], n_experts=4, prompts=[0, 0, 1], tasks=("a", "b"))
    counts = assignment_counts(trace)
    assert counts.dims == ("layer", "expert")
    assert counts.sel(layer="L00").values.tolist() == [3, 2, 1, 0]
    by_task = assignment_counts(trace, by="task")
    assert by_task.sel(task="a", layer="L00").values.tolist() == [2, 1, 1, 0]
    assert by_task.sel(task="b", layer="L00").values.tolist() == [1, 1, 0, 0]
    assert routed_tokens(trace, by="task").sel(layer="L00").values.tolist() == [2, 1]


def test_runners_up_are_not_counted():
    trace = trace_of([[0, 1, 2], [3, 1, 0]], n_experts=4, top_k=2)
    assert assignment_counts(trace).values.tolist() == [[1, 2, 0, 1]]


def test_phase_is_a_group_and_a_filter():
    trace = trace_of([[0], [1], [1]], n_experts=2, phase=["prompt", "generated", "generated"])
    assert assignment_counts(trace, by="phase").sel(phase="generated").values.tolist() == [[0, 2]]
    assert assignment_counts(trace, phase="prompt").values.tolist() == [[1, 0]]
    assert routed_tokens(trace, phase="generated").values.tolist() == [2]


@pytest.mark.parametrize("by", ["task", "task_type", "prompt", "phase"])
@settings(max_examples=12, deadline=None)
@given(trace=traces())
def test_counts_agree_with_the_obvious_version(trace, by):
    counts = assignment_counts(trace, by=by)
    slow = slow_counts(trace, by=by)
    for (group, layer, expert), n in slow.items():
        assert counts.sel({by: group, "layer": layer, "expert": expert}) == n
    assert counts.sum() == sum(slow.values())
    if not trace.dense_routing:
        top_k = np.array([facts.top_k for facts in trace.layer_facts])
        assert (routed_tokens(trace, by=by) * top_k == counts.sum("expert")).all()


def test_an_absent_stack_is_not_counted():
    trace = encoder_decoder_trace(n_prompts=6, n_read=7, n_written=4)
    assert routed_tokens(trace).to_series().to_dict() == {"enc01": 42, "enc03": 42, "dec01": 24}
    counts = assignment_counts(trace)
    assert counts.sum("expert").to_series().to_dict() == {"enc01": 42, "enc03": 42, "dec01": 48}
    assert not counts["exists"].sel(layer="dec01", expert=slice(4, None)).any()


def test_wide_ids_count_like_narrow_ones():
    # 300 experts do not fit a byte, so another kernel runs; expert 299 and expert 43 differ only above a byte
    facts = (*facts_of(1, n_experts=300, top_k=2), *facts_of(1, n_experts=4, top_k=1, first=1))
    experts = np.array([[[299, 43], [3, -1]], [[299, 0], [-1, -1]]])
    trace = RoutingTrace.from_arrays(experts, layer_facts=facts, checked=False)
    counts = assignment_counts(trace)
    assert counts.sel(layer="L00", expert=[299, 43, 0]).values.tolist() == [2, 1, 1]
    assert counts.sel(layer="L01").sum() == 1
    assert routed_tokens(trace).values.tolist() == [2, 1]


@pytest.mark.parametrize("top_k, n_ranks", [(1, 9), (3, 9), (8, 9), (4, 8), (8, 8)])
def test_layers_alike_and_layers_unlike_are_counted_alike(top_k, n_ranks):
    # layers that all select as many experts have loops of their own, one that reads ids four at a time where it can;
    # a third layer that selects two experts takes them away
    rng = np.random.default_rng(top_k)
    ids = rng.permuted(np.tile(np.arange(40), (50, 3, 1)), axis=2)[:, :, :n_ranks]
    ids[::7, 1] = -1
    facts = facts_of(2, n_experts=40, top_k=top_k)
    alike = RoutingTrace.from_arrays(ids[:, :2], layer_facts=facts, checked=False)
    other = facts_of(1, n_experts=40, top_k=2, first=2)
    unlike = RoutingTrace.from_arrays(ids, layer_facts=(*facts, *other), checked=False)
    assert assignment_counts(alike).equals(assignment_counts(unlike).sel(layer=["L00", "L01"]))
    assert routed_tokens(alike).values.tolist() == [50, 42]
    assert routed_tokens(unlike).values.tolist() == [50, 42, 50]


def test_halves_add_up_and_order_does_not_matter():
    trace = random_trace(seed=1, n_tokens=200, n_prompts=6)
    whole = assignment_counts(trace, by="prompt")
    ids = list(trace.prompts["prompt"])
    halves = [assignment_counts(trace.select(Selection(prompts=tuple(part)))) for part in (ids[:3], ids[3:])]
    assert (halves[0] + halves[1] == whole.sum("prompt")).all()
    order = np.random.default_rng(0).permutation(200)
    assert trace.experts is not None
    shuffled = RoutingTrace.from_arrays(
        trace.experts.values[order],
        layer_facts=trace.layer_facts,
        tokens=trace.tokens.iloc[order],
        prompts=trace.prompts,
        checked=False,
    )
    assert (assignment_counts(shuffled, by="prompt") == whole).all()


def test_small_chunks_blocks_and_partials_give_the_same(monkeypatch):
    trace = random_trace(seed=2, n_tokens=300, n_prompts=20)
    whole = assignment_counts(trace, by="prompt")
    monkeypatch.setattr(scan, "LARGEST_PARTIAL", 1000)
    assert (assignment_counts(trace, by="prompt") == whole).all()
    monkeypatch.setattr(scan, "LARGEST_BLOCK", 1)
    blocks = list(scan.prompt_blocks(trace))
    assert len(blocks) == trace.n_layers
    assert np.array_equal(np.concatenate([table.assignments_GLE for _, table in blocks], axis=1), whole.values)
    several = scan.mapped_chunks(trace, lambda chunk: chunk.n_tokens, n_tokens=7)
    assert sum(several) == 300


def test_nothing_selected_counts_nothing():
    trace = trace_of([[0, 1]], tasks=("a", "b"))  # prompt 1 has no token
    empty = trace.select(Selection(prompts=("p1",)))
    assert empty.n_tokens == 0
    assert assignment_counts(empty, by="task").sum() == 0


def test_level_counts_gives_tasks_and_refuses_prompts():
    full = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=2)
    by_task = assignment_counts(full, by="task")
    trace = trace_from_counts(by_task.values, layer_facts=full.layer_facts, tasks=full.tasks, n_tokens=full.n_tokens)
    assert (assignment_counts(trace, by="task").values == by_task.values).all()
    assert (assignment_counts(trace).values == by_task.sum("task").values).all()
    assert (routed_tokens(trace, by="task").values == routed_tokens(full, by="task").values).all()
    for wanted in ({"by": "prompt"}, {"by": "phase"}, {"phase": "prompt"}):
        with pytest.raises(TraceError, match="level 'counts'"):
            assignment_counts(trace, **wanted)


def test_unknown_groups_are_refused_by_name():
    trace = trace_of([[0, 1]])
    with pytest.raises(SelectionError, match="color"):
        assignment_counts(trace, by="color")
    with pytest.raises(SelectionError, match="warmup"):
        assignment_counts(trace, phase="warmup")


def test_one_expert_and_one_token():
    facts = (LayerFacts(label="L00", number=0, n_experts=1, top_k=1),)
    trace = RoutingTrace.from_arrays(np.zeros((1, 1, 1), dtype=int), layer_facts=facts, checked=False)
    assert assignment_counts(trace).values.tolist() == [[1]]
