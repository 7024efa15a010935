from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from analysis.balance import balance_metrics, max_over_mean
from analysis.load import activation_rate, expert_load, idle_experts, load_balance
from routing import RoutingTrace
from routing.memory import trace_from_counts
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, random_trace, trace_of, traces


def metrics(counts, exists=None):
    counts = np.asarray(counts, dtype=float)
    exists = np.ones(counts.shape, dtype=bool) if exists is None else np.asarray(exists)
    return {name: float(value) for name, value in balance_metrics(counts, exists=exists).items()}


def test_load_and_rate_by_hand():
    # {0,1} {0,2} {1,0}: six assignments of three tokens; expert 0 has 3 → load 3/6, rate 3/3
    trace = trace_of([[0, 1], [0, 2], [1, 0]], n_experts=4)
    assert expert_load(trace).values.tolist() == [[3 / 6, 2 / 6, 1 / 6, 0]]
    rate = activation_rate(trace, by=None)
    assert rate.values[0].tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert rate.attrs["unit"] == "share of tokens"


def test_balance_by_hand():
    # counts 4 2 2 0: mean 2; shares 1/2 1/4 1/4 0
    #   population variance (4+0+0+4)/4 = 2 → cv √2/2;  entropy ½ln2 + ½ln4 = 1.5 ln 2, of ln 4 = 0.75
    #   Gini, ascending 0 2 2 4: Σ(2i−5)c = −3·0 −1·2 +1·2 +3·4 = 12, over 4·8 = 0.375
    #   least over most 0/4;  mean |c − μ| = (2 + 0 + 0 + 2)/4 = 1, over the mean ½
    #   HHI 1/4 + 1/16 + 1/16 = 0.375
    found = metrics([4, 2, 2, 0])
    assert found == pytest.approx(
        {
            "max_over_mean": 2,
            "min_over_mean": 0,
            "min_over_max": 0,
            "mean_violation": 0.5,
            "cv": 2**0.5 / 2,
            "gini": 0.375,
            "entropy_normalized": 0.75,
            "effective_experts": 2**1.5,
            "hhi": 0.375,
            "n_dead": 1,
            "n_cold": 1,
        }
    )


def test_missing_experts_do_not_count_as_dead():
    assert metrics([4, 2, 2, 0, 0], [True, True, True, True, False]) == metrics([4, 2, 2, 0])


def test_even_and_single_experts_are_perfectly_balanced():
    for counts in ([5, 5, 5], [7]):
        found = metrics(counts)
        assert (found["max_over_mean"], found["cv"], found["entropy_normalized"]) == (1, 0, pytest.approx(1))
        assert found["gini"] == pytest.approx(0)


def test_nothing_routed_is_not_zero():
    assert np.isnan(list(metrics([0, 0]).values())).all()


@settings(max_examples=25, deadline=None)
@given(trace=traces())
def test_load_sums_to_one_and_rates_to_top_k(trace):
    load = expert_load(trace, by="prompt").sum("expert", skipna=False)
    there = load.notnull()
    assert np.allclose(load.where(there, 1), 1)
    rates = activation_rate(trace, by="prompt").sum("expert", skipna=False)
    # Where every expert is always selected, rates are mean weights, which add up to 1 as 16 bits allow.
    total = 1 if trace.dense_routing else trace.top_k
    assert np.allclose(rates.where(there, total), total, atol=2e-3 if trace.dense_routing else 1e-8)


@settings(max_examples=15, deadline=None)
@given(trace=traces(max_tokens=30))
def test_balance_does_not_know_the_names_of_experts(trace):
    assert trace.experts is not None
    relabel = np.random.default_rng(0).permutation(trace.n_experts)
    ids = trace.experts.values.astype(int)
    renamed = np.where(ids == trace.absent, -1, relabel[np.minimum(ids, trace.n_experts - 1)])
    other = RoutingTrace.from_arrays(
        renamed,
        layer_facts=trace.layer_facts,
        weights=trace.weights.values,
        tokens=trace.tokens,
        prompts=trace.prompts,
        checked=False,
    )
    mine, theirs = (load_balance(each, n_bootstrap=0).drop(columns="hottest") for each in (trace, other))
    assert np.allclose(mine.to_numpy(float), theirs.to_numpy(float), equal_nan=True)


def test_layers_of_other_stacks_and_sizes():
    trace = encoder_decoder_trace()
    load = expert_load(trace)
    assert load.sel(layer="dec01", expert=slice(4, None)).isnull().all()
    assert np.allclose(load.sum("expert"), 1)
    table = load_balance(trace, n_bootstrap=20)
    assert table.loc["dec01", "n_experts"] == 4
    assert table.loc["dec01", "fair_share"] == 0.25


def test_intervals_hold_the_point_and_widen_when_tokens_of_a_prompt_agree():
    alike = load_balance(planted_trace(seed=1, specialists={}, prompt_effect=2.0))
    apart = load_balance(planted_trace(seed=1, specialists={}, prompt_effect=0.0))
    for table in (alike, apart):
        assert (table["cv_low"] < table["cv_high"]).all()
    width = [(table["cv_high"] - table["cv_low"]).mean() for table in (alike, apart)]
    assert width[0] > 1.5 * width[1]


def test_the_popular_expert_is_the_hottest():
    table = load_balance(planted_trace(seed=2, popular={(1, 5): 4.0}, n_prompts_a_task=5), by="task")
    assert (table.xs("L01", level="layer")["hottest"] == 5).all()
    assert (table.xs("L01", level="layer")["max_over_mean"] > 2.5).all()
    assert table.attrs["unit"]["cv"] == "ratio"


def test_one_prompt_has_no_interval():
    table = load_balance(trace_of([[0, 1], [2, 1]]))
    assert table.loc["L00", "max_over_mean"] == 2  # counts 1 2 1 0, mean 1
    assert np.isnan(table.loc["L00", "max_over_mean_low"])


def test_the_same_seed_gives_the_same_interval():
    trace = random_trace(seed=4)
    assert load_balance(trace, seed=1).equals(load_balance(trace, seed=1))
    assert not load_balance(trace, seed=1).equals(load_balance(trace, seed=2))


def test_idle_experts_come_with_the_chance_of_being_idle():
    # three tokens of two prompts, top-2 of 4: a fair expert is passed over with (1 − 2/4)³ = 1/8
    trace = trace_of([[0, 1], [0, 2], [1, 0]], n_experts=4, prompts=[0, 0, 1])
    idle = idle_experts(trace)
    assert idle[["layer", "expert"]].values.tolist() == [["L00", 3]]
    assert idle["chance_idle"].tolist() == [0.125]
    assert idle["chance_idle_prompts"].tolist() == [0.25]
    assert idle_experts(trace_of([[0, 1]], n_experts=2)).empty


def test_counts_only_gives_load_without_intervals():
    counts = np.array([[[2, 1, 1, 0]], [[1, 1, 0, 0]]])
    trace = trace_from_counts(counts, layer_facts=facts_of(1, n_experts=4, top_k=2), tasks=("a", "b"), n_tokens=3)
    assert expert_load(trace, by="task").sel(task="a").values.tolist() == [[0.5, 0.25, 0.25, 0]]
    assert activation_rate(trace, by="task").sel(task="a").values.tolist() == [[1, 0.5, 0.5, 0]]
    table = load_balance(trace)
    assert table.loc["L00", "n_dead"] == 1
    assert np.isnan(table.loc["L00", "cv_high"])
    assert idle_experts(trace)["expert"].tolist() == [3]


def test_the_ratio_asked_alone_is_that_of_all_metrics():
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (5, 4, 6)).astype(float)
    counts[0, 1], exists = 0, rng.random((4, 6)) < 0.8
    np.testing.assert_array_equal(
        max_over_mean(counts, exists=exists), balance_metrics(counts, exists=exists)["max_over_mean"]
    )
