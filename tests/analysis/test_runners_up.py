from __future__ import annotations

import numpy as np
import pytest

from analysis import near_ties, runner_up_matrix
from routing import SelectionError, TraceError
from tests.adapter_traces import hyper_moe_trace
from tests.traces import null_trace, planted_trace, trace_of


def test_who_comes_second_by_hand():
    # Tokens select 0, 0, 0, 1, 2; second come 1, 1, 2, 0, 0.
    trace = trace_of([[0, 1], [0, 1], [0, 2], [1, 0], [2, 0]], n_experts=3, top_k=1)
    found = runner_up_matrix(trace, layer=trace.layers[0])
    assert found["n_tokens"].values.tolist() == [[0, 2, 1], [1, 0, 0], [1, 0, 0]]
    assert found["share"].values[0].tolist()[1:] == pytest.approx([2 / 3, 1 / 3])
    # Row and column sums are kept, and nobody is second to himself.
    expected = np.nan_to_num(found["expected"].values)
    np.testing.assert_allclose(expected.sum(axis=1), [3, 1, 1], atol=0.02)
    np.testing.assert_allclose(expected.sum(axis=0), [2, 2, 1], atol=0.02)
    assert np.isnan(np.diag(found["lift"])).all()
    assert np.isnan(found["p_value"]).all()  # five tokens are too few to test


def test_each_selected_expert_counts_with_the_runner_up():
    trace = trace_of([[0, 1, 2], [0, 1, 3]], n_experts=4, top_k=2)
    counts = runner_up_matrix(trace, layer=trace.layers[0])["n_tokens"].values
    assert counts[0].tolist() == counts[1].tolist() == [0, 0, 1, 1]
    assert counts.sum() == 4


def test_the_spread_is_that_of_residuals_over_prompts():
    trace = planted_trace(seed=1, n_tasks=3, n_prompts_a_task=8, n_layers=1, n_experts=5, n_runners_up=1)
    layer = trace.layers[0]
    found = runner_up_matrix(trace, layer=layer)
    k = trace.layer_facts[0].top_k
    experts, prompt = trace.experts.values[:, 0], trace.tokens["prompt"].to_numpy()
    share = (found["expected"] / found["n_tokens"].sum("runner_up")).values
    for i, j in ((0, 1), (3, 2)):
        residuals = []
        for number in np.unique(prompt):
            rows = experts[prompt == number]
            has = (rows[:, :k] == i).any(axis=1)
            residuals.append((has & (rows[:, k] == j)).sum() - share[i, j] * has.sum())
        z = (found["n_tokens"] - found["expected"]).values[i, j] / np.sqrt(np.sum(np.square(residuals)))
        assert found["z"].values[i, j] == pytest.approx(z)


def test_a_planted_runner_up_is_found_and_few_are_by_chance():
    planted = hyper_moe_trace(seed=0, n_prompts_a_task=100, n_experts=6, top_k=1)
    found = runner_up_matrix(planted, layer=planted.layers[0])
    # The maker puts expert e + 1 second after e.
    assert (found["lift"].values[np.arange(6), (np.arange(6) + 1) % 6] > 0.1).all()
    assert found["significant"].values[np.arange(6), (np.arange(6) + 1) % 6].sum() >= 4
    null = null_trace(seed=2, n_prompts_a_task=30, n_runners_up=2)
    called = [runner_up_matrix(null, layer=layer)["significant"].mean().item() for layer in null.layers]
    assert np.mean(called) < 0.1


def test_near_ties_by_hand():
    scores = [[[0.50, 0.495, 0.1]], [[0.5, 0.4, 0.1]], [[0.5, 0.5, 0.1]], [[0.6, 0.1, 0.1]]]
    trace = trace_of([[0, 1, 2]] * 4, n_experts=3, top_k=1, scores=np.array(scores))
    found = near_ties(trace, by=None)
    assert found["n_tokens"].tolist() == [4]
    assert found["share"].tolist() == [0.5]  # margins 0.005, 0.1, 0 and 0.5 against 0.01
    assert near_ties(trace, by=None, at_most=1.0)["share"].tolist() == [1.0]


def test_near_ties_by_group_add_up_to_those_of_all():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=5)
    whole, parts = near_ties(trace, by=None, at_most=0.05), near_ties(trace, by="task", at_most=0.05)
    tied = (parts["share"] * parts["n_tokens"]).groupby("layer").sum()
    np.testing.assert_allclose((whole["share"] * whole["n_tokens"]).loc[tied.index], tied)
    told = parts.dropna()
    assert (told["share_low"] <= told["share"]).all()
    assert (told["share_high"] >= told["share"]).all()
    assert len(told) > len(parts) / 2


def test_what_the_trace_lacks_is_said():
    trace = trace_of([[0], [1]], n_experts=3, top_k=1)
    with pytest.raises(TraceError, match="nobody came second"):
        runner_up_matrix(trace, layer=trace.layers[0])
    with pytest.raises(TraceError, match="nobody came second"):
        near_ties(trace)
    with pytest.raises(SelectionError, match="not 'L99'"):
        runner_up_matrix(planted_trace(seed=0, n_prompts_a_task=2), layer="L99")
