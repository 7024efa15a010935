"""Where every expert is always selected, weights are added up instead of assignments, exactly."""

import numpy as np
import pytest

import analysis
from analysis.measure import measure_of
from analysis.rates import group_rates
from routing import Selection
from tests.adapter_traces import task_moe_trace
from tests.traces import facts_of, random_trace, trace_of


def dense(weights, *, prompts=None, tasks=("task",), phase=None):
    """A trace of one layer in which token t gives expert e the weight `weights[t][e]`."""
    weights = np.asarray(weights, dtype=float)
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1)
    return trace_of(
        order, n_experts=weights.shape[1], weights=ranked, scores=ranked, prompts=prompts, tasks=tasks, phase=phase
    )


def test_weights_are_added_by_hand():
    trace = dense(
        [[0.5, 0.25, 0.25], [0.125, 0.875, 0], [0.25, 0.25, 0.5]], prompts=[0, 0, 1], tasks=("a", "b"),
        phase=["prompt", "generated", "prompt"],
    )  # fmt: skip
    assert measure_of(trace) == "routed weight"
    counts = analysis.assignment_counts(trace, by="task")
    assert counts.attrs == {"unit": "routed weight", "measure": "routed weight"}
    assert counts.sel(layer="L00").values.tolist() == [[0.625, 1.125, 0.25], [0.25, 0.25, 0.5]]
    assert analysis.assignment_counts(trace, phase="generated").values.tolist() == [[0.125, 0.875, 0]]
    assert analysis.routed_tokens(trace, by="task").values.tolist() == [[2], [1]]
    load = analysis.expert_load(trace)
    np.testing.assert_allclose(load.values, [[0.875 / 3, 1.375 / 3, 0.75 / 3]])
    assert (load.attrs["unit"], load.attrs["measure"]) == ("share of weight", "routed weight")
    rate = analysis.activation_rate(trace, by="prompt")
    assert rate.sel(prompt="p0").values.tolist() == [[0.3125, 0.5625, 0.125]]
    assert rate.attrs["unit"] == "mean weight"
    assert analysis.load_balance(trace, n_bootstrap=0).loc["L00", "max_over_mean"] == pytest.approx(1.375)
    profile = analysis.expert_profile(trace, layer="L00", expert=1, n_bootstrap=0)
    assert profile.overall_rate == pytest.approx(1.375 / 3)
    assert profile.by_task.loc["a", "rate"] == 0.5625
    assert profile.prompts["rate"].tolist() == [0.5625, 0.25]


def test_where_experts_are_selected_assignments_are_counted():
    trace = random_trace(seed=0)
    assert measure_of(trace) == "assignments"
    counts = analysis.assignment_counts(trace)
    assert counts.attrs["measure"] == "assignments"
    assert counts.dtype == np.int64
    assert analysis.signatures(trace).attrs["measure"] == "assignments"


def test_a_lone_expert_and_missing_weights_are_counted():
    assert measure_of(trace_of([[0], [0]], n_experts=1)) == "assignments"
    from routing import RoutingTrace

    bare = RoutingTrace.from_arrays(np.array([[[0, 1]], [[1, 0]]]), layer_facts=facts_of(1, n_experts=2, top_k=2))
    assert measure_of(bare) == "assignments"
    assert analysis.assignment_counts(bare).values.tolist() == [[2, 2]]


def test_sums_are_exact_and_do_not_depend_on_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet([0.3] * 5, 4000).astype(np.float16)
    trace = dense(weights, prompts=np.arange(4000) // 10)
    expected = (weights.astype(object) * 2**24).sum(axis=0).astype(float) / 2**24
    np.testing.assert_array_equal(analysis.assignment_counts(trace).values[0], expected)
    whole = analysis.assignment_counts(trace, by="prompt")
    from analysis import scan

    monkeypatch.setattr(scan, "LARGEST_BLOCK", 1)
    again = analysis.specialization(trace, over="task", n_permutations=2)
    assert again.attrs["measure"] == "routed weight"
    small = trace.select(Selection(prompts=tuple(trace.prompts["prompt"][3:5])))
    np.testing.assert_array_equal(analysis.assignment_counts(small, by="prompt"), whole[3:5])


def test_a_hard_route_counts_the_same_either_way():
    """One-hot weights over all experts are the assignments of the same top-1 choices."""
    chosen = np.random.default_rng(1).integers(0, 4, 60)
    soft = dense(np.eye(4)[chosen], prompts=np.arange(60) // 3, tasks=("a", "b") * 10)
    hard = trace_of(chosen[:, None], n_experts=4, prompts=np.arange(60) // 3, tasks=("a", "b") * 10)
    for by in (None, "task", "prompt"):
        one, other = (analysis.assignment_counts(trace, by=by) for trace in (soft, hard))
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(group_rates(soft, over="task").rate_GLE, group_rates(hard, over="task").rate_GLE)
    one, other = (analysis.load_balance(trace, n_bootstrap=20) for trace in (soft, hard))
    np.testing.assert_allclose(one.to_numpy(dtype=float), other.to_numpy(dtype=float))
    one, other = (analysis.specialization(trace, n_permutations=50) for trace in (soft, hard))
    for name in ("rate", "lift", "p_value"):
        np.testing.assert_allclose(one[name], other[name])


def test_soft_routes_show_their_specialists():
    trace = task_moe_trace(soft=True, strength=6.0, n_tasks_a_type=8, n_prompts_a_task=2)
    assert trace.dense_routing
    table = analysis.specialization(trace, over="task_type", units="task", n_permutations=500)
    for number, name in enumerate(("extractive", "classification", "knowledge", "translation")):
        assert table["lift"].sel(group=name).values[number, number % 3] > 0
    r = analysis.feature_correlation(trace, n_permutations=500)
    best = r["r"].sel(feature="extractive").values[0, 0]
    assert best > 0.6
    assert r["p_value"].sel(feature="extractive").values[0, 0] < 0.01
    nothing = task_moe_trace(soft=True, specialists={}, n_tasks_a_type=8)
    null = analysis.feature_correlation(nothing, n_permutations=500)
    assert float(null["p_any"].min()) > 0.01


def test_saturation_of_weights_by_hand():
    early = dense([[0.5, 0.5, 0], [1, 0, 0]], prompts=[0, 1], tasks=("a", "b"))
    late = dense([[0.25, 0.5, 0.25], [0, 0, 1]], prompts=[0, 1], tasks=("a", "b"))
    found = analysis.saturation(early, late).loc["L00"]
    assert found["saturation"] == (0.75 + 0) / 2
    assert found["chance"] == (0 + 0.25) / 2
    assert analysis.over_training({1: early, 2: late}, n_permutations=5).attrs["unit"]["saturation"]
