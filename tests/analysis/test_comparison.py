from __future__ import annotations

import numpy as np
import pytest

from analysis.comparison import changed_prompts, churn, saturation_by_rank
from analysis.distances import routing_distance
from analysis.dynamics import saturation
from routing import RoutingTrace, Selection
from routing.errors import TraceError
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, random_trace, routed, trace_of


def rerouted(trace, *, share, seed=0):
    """The same trace with this share of its tokens routed anew, all else as it was."""
    rng = np.random.default_rng(seed)
    experts = trace.experts.values.astype(int).copy()
    for row in np.flatnonzero(rng.random(len(experts)) < share):
        for layer in range(experts.shape[1]):
            experts[row, layer] = rng.permutation(8)[: experts.shape[2]]
    return RoutingTrace.from_arrays(
        experts,
        layer_facts=trace.layer_facts,
        scores=trace.scores.values,
        weights=trace.weights.values,
        tokens=trace.tokens,
        prompts=trace.prompts,
        vocabulary=trace.vocabulary.to_dict(),
    )


def test_churn_by_hand():
    # {0,1}→{1,0}: same set, other first. {0,1}→{0,2}: one of three stays, 1 − 1/3. {0,1}→{2,3}: all new.
    one = trace_of([[0, 1], [0, 1], [0, 1]])
    other = trace_of([[1, 0], [0, 2], [2, 3]])
    row = churn(one, other).loc["L00"]
    assert row["churn"] == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert row["any_changed"] == pytest.approx(2 / 3)
    assert row["first_changed"] == pytest.approx(2 / 3)


def test_saturation_by_rank_by_hand():
    # Later {0,1} {2,0}; earlier {0,2} {0,3}: at rank 0 the later expert was there for the first token only.
    later, earlier = trace_of([[0, 1], [2, 0]]), trace_of([[0, 2], [0, 3]])
    table = saturation_by_rank(earlier, later, n_bootstrap=0)
    assert table["kept"].tolist() == [0.5, 0.5]
    assert table["same_rank"].tolist() == [0.5, 0]


def test_kept_over_ranks_is_the_saturation():
    one = planted_trace(seed=1, n_prompts_a_task=5)
    other = rerouted(one, share=0.4)
    by_rank = saturation_by_rank(one, other)["kept"].groupby("layer").mean()
    assert by_rank.tolist() == pytest.approx(saturation(one, other)["saturation"].tolist())


def test_nothing_changes_against_itself_and_chance_is_reached_by_new_routes():
    trace = planted_trace(seed=2, n_prompts_a_task=10)
    same = churn(trace, trace)
    assert (same["churn"] == 0).all()
    assert (saturation_by_rank(trace, trace)["kept"] == 1).all()
    anew = churn(trace, rerouted(trace, share=1.0))
    assert (anew["churn"] / anew["chance"]).tolist() == pytest.approx([1] * 4, abs=0.05)
    half = churn(trace, rerouted(trace, share=0.5))
    assert (half["churn_low"] < half["churn"]).all()
    assert (half["churn"] < half["churn_high"]).all()
    assert half["churn"].tolist() == pytest.approx((anew["churn"] / 2).tolist(), abs=0.06)


def test_the_order_of_prompts_in_a_trace_does_not_matter():
    trace = planted_trace(seed=3, n_tasks=3, n_prompts_a_task=3)
    other = rerouted(trace, share=0.3)
    backwards = other.select(Selection(prompts=tuple(reversed(other.prompts["prompt"].tolist()))))
    assert churn(trace, backwards)["churn"].tolist() == pytest.approx(churn(trace, other)["churn"].tolist())


def test_close_choices_flip_first():
    trace = planted_trace(seed=4, n_prompts_a_task=10, n_layers=2)
    rng = np.random.default_rng(0)
    logits = trace.logits.values.astype(np.float32) + rng.normal(0, 0.05, trace.logits.shape)
    noisy = routed(logits, top_k=2, n_runners_up=2)
    after = RoutingTrace.from_arrays(
        noisy["experts"],
        layer_facts=trace.layer_facts,
        scores=noisy["scores"],
        weights=noisy["weights"],
        tokens=trace.tokens,
        prompts=trace.prompts,
    )
    table = churn(trace, after)
    assert (table["any_changed"] > 0).all()
    assert (table["margin_changed"] < 0.3 * table["margin_kept"]).all()


def test_the_prompt_that_changed_leads():
    trace = planted_trace(seed=5, n_tasks=2, n_prompts_a_task=6)
    experts = trace.experts.values.astype(int).copy()
    of_prompt = (trace.tokens["prompt"] == 7).to_numpy()
    experts[of_prompt] = (experts[of_prompt] + 1) % 8
    after = RoutingTrace.from_arrays(
        experts, layer_facts=trace.layer_facts, tokens=trace.tokens, prompts=trace.prompts.assign(score=1.0)
    )
    table = changed_prompts(trace, after)
    assert table.index[0] == trace.prompts["prompt"][7]
    assert (table["churn"].iloc[1:] == 0).all()
    assert table["z"].iloc[0] > 1.5
    assert (table["score_after"] == 1).all()


def test_layers_of_different_shape_are_compared():
    trace = encoder_decoder_trace()
    assert (churn(trace, trace)["churn"].dropna() == 0).all()
    assert len(saturation_by_rank(trace, trace)) == 4  # one rank in two layers, two in the third


def test_unlike_traces_are_refused():
    with pytest.raises(TraceError):
        churn(random_trace(seed=0), random_trace(seed=0, n_layers=2))
    with pytest.raises(TraceError):
        changed_prompts(random_trace(seed=0), random_trace(seed=1))
    with pytest.raises(TraceError):
        routing_distance(random_trace(seed=0), random_trace(seed=0, n_layers=2))


# Distances


def test_distance_by_hand():
    # All on expert 0 against all on expert 1: one bit, everything would have to move.
    one = trace_of([[0], [0]], n_experts=2, prompts=[0, 1], tasks=("a", "a"))
    other = trace_of([[1], [1]], n_experts=2, prompts=[0, 1], tasks=("a", "a"))
    row = routing_distance(one, other).loc["L00"]
    assert (row["js_bits"], row["total_variation"]) == (1, 1)
    # Half of it: shares (1, 0) and (½, ½); the middle is (¾, ¼).
    half = trace_of([[0], [1]], n_experts=2, prompts=[0, 1], tasks=("a", "a"))
    bits = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2
    assert routing_distance(one, half).loc["L00", "js_bits"] == pytest.approx(bits)


def test_halves_of_one_trace_are_alike_and_other_tasks_are_not():
    trace = planted_trace(seed=6, n_tasks=4, n_prompts_a_task=24)
    ids = trace.prompts["prompt"].tolist()
    halves = [trace.select(Selection(prompts=tuple(ids[start::2]))) for start in (0, 1)]
    assert (routing_distance(*halves)["q_value"] > 0.05).all()
    tasks = [trace.select(Selection(tasks=tasks)) for tasks in (trace.tasks[:2], trace.tasks[2:])]
    table = routing_distance(*tasks)
    assert table.loc["L03", "q_value"] < 0.05
    assert table.loc["L03", "excess_bits"] > 0.1
    assert (table.loc["L00":"L02", "p_value"] > 0.01).all()


def test_paired_prompts_find_a_small_change_that_unpaired_ones_would_miss():
    trace = null_trace(seed=7, prompt_effect=2.0, n_prompts_a_task=10, n_layers=1)
    experts = trace.experts.values.astype(int).copy()
    rng = np.random.default_rng(0)
    # Three in ten tokens that chose 0 first and not 1 now chooses 1.
    flip = (rng.random(len(experts)) < 0.3) & (experts[:, 0, 0] == 0) & (experts[:, 0] != 1).all(axis=1)
    experts[flip, 0, 0] = 1
    after = RoutingTrace.from_arrays(experts, layer_facts=trace.layer_facts, tokens=trace.tokens, prompts=trace.prompts)
    paired = routing_distance(trace, after).loc["L00"]
    renamed = RoutingTrace.from_arrays(
        experts,
        layer_facts=trace.layer_facts,
        tokens=trace.tokens,
        prompts=trace.prompts.assign(prompt=[f"x{n}" for n in range(trace.n_prompts)]),
    )
    unpaired = routing_distance(trace, renamed).loc["L00"]
    assert paired["p_value"] < 0.05
    assert unpaired["p_value"] > 0.05


def test_null_p_values_are_even():
    p = []
    for seed in range(12):
        trace = null_trace(seed=seed, n_prompts_a_task=8, n_layers=3)
        ids = trace.prompts["prompt"].tolist()
        halves = [trace.select(Selection(prompts=tuple(ids[start::2]))) for start in (0, 1)]
        p += routing_distance(*halves, n_permutations=99)["p_value"].tolist()
    assert 0.3 < np.mean(p) < 0.7
    assert np.mean(np.array(p) <= 0.05) <= 0.15
