"""Routes of tasks, features of tasks, and both over training: by hand, against slow versions, planted, null."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon

import analysis
from routing.errors import SelectionError, TraceError
from tests.adapter_traces import TYPES, task_moe_trace
from tests.traces import planted_trace, trace_of


def typed(trace):
    """Features that overlap: extractive; extractive or classification."""
    return pd.DataFrame(
        {
            "extractive": [float(kind == TYPES[0]) for kind in trace.task_types.values()],
            "either": [float(kind in TYPES[:2]) for kind in trace.task_types.values()],
        },
        index=list(trace.tasks),
    )


def two_tasks():
    """Task a goes to expert 0 twice and to 1 once of three prompts; task b to expert 1."""
    return trace_of(
        [[0], [0], [1], [1]], n_experts=2, prompts=range(4), tasks=("a", "a", "a", "b"), task_types={"a": "x", "b": "y"}
    )


def test_routes_and_their_entropy_by_hand():
    trace = two_tasks()
    routes = analysis.task_routes(trace)
    np.testing.assert_allclose(routes.sel(layer="L00"), [[2 / 3, 1 / 3], [0, 1]])
    told = analysis.route_entropy(trace, n_bootstrap=0).loc["L00"]

    def entropy(*share):
        return -sum(each * np.log(each) for each in share)

    assert told["effective_experts"] == pytest.approx(np.exp(entropy(1 / 3, 2 / 3)))
    assert told["task_entropy"] == pytest.approx(entropy(1 / 3, 2 / 3) / 2)
    assert told["specialization"] == pytest.approx(entropy(1 / 3, 2 / 3) / 2)
    cosine = analysis.route_similarity(trace)
    assert cosine.values[0, 1] == pytest.approx(1 / 5**0.5)


def test_jensen_shannon_agrees_with_scipy():
    trace = task_moe_trace(soft=True)
    routes = analysis.task_routes(trace).values
    found = analysis.route_similarity(trace, distance="jensen_shannon").values
    for one, other in ((0, 5), (3, 9), (2, 2)):
        slow = np.mean([jensenshannon(routes[one, layer], routes[other, layer], base=2) ** 2 for layer in range(4)])
        assert found[one, other] == pytest.approx(1 - slow, abs=1e-6)


def test_routes_read_off_the_model_agree_with_recorded_ones():
    for trace in (task_moe_trace(), task_moe_trace(soft=True)):
        recorded, stored = analysis.task_routes(trace), analysis.task_routes(trace, mode="route")
        np.testing.assert_allclose(recorded, stored, atol=2e-3)  # weights have 16 bits
        assert recorded["task_type"].values.tolist() == list(trace.task_types.values())
    with pytest.raises(TraceError, match="holds no routes"):
        analysis.task_routes(planted_trace(seed=0), mode="route")
    with pytest.raises(SelectionError, match="mode"):
        analysis.task_routes(trace, mode="x")
    with pytest.raises(SelectionError, match="distance"):
        analysis.route_similarity(trace, distance="x")


def test_planted_types_are_found_in_routes_and_random_ones_are_not():
    trace = task_moe_trace(soft=True, strength=4.0)
    grouping = analysis.route_grouping(trace, n_permutations=200)
    assert grouping.agreement.p_value < 0.01
    assert grouping.agreement.ari > 0.3
    assert sorted(grouping.order.order.tolist()) == list(range(16))
    assert grouping.embedding.p_value > 0.05  # embeddings are random
    p = [
        analysis.route_grouping(task_moe_trace(seed=seed, specialists={}), n_permutations=39).agreement.p_value
        for seed in range(20)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.2


def test_random_decided_routes_reach_the_highest_specialization():
    entropy = analysis.route_entropy(task_moe_trace(specialists={}, n_tasks_a_type=10), n_bootstrap=100)
    assert (entropy["specialization"] >= entropy["dealt_low"] - 0.1).all()
    alike = analysis.route_entropy(
        task_moe_trace(soft=True, specialists={name: (0, 1) for name in TYPES}, strength=8.0), n_bootstrap=100
    )
    assert alike.loc["enc00", "specialization"] < alike.loc["enc00", "dealt_low"]
    assert alike.loc["enc00", "effective_experts_high"] < 1.2


def test_overlap_of_features_by_hand():
    trace = task_moe_trace()
    found = analysis.feature_overlap(trace, features=typed(trace))
    # 4 of 16 and 8 of 16, the former within the latter: (4/16 − 1/8) / √(3/16 · 1/4)
    assert found.values[0, 1] == pytest.approx((0.25 - 0.125) / (0.1875 * 0.25) ** 0.5)


def test_partial_correlation_agrees_with_the_formula():
    trace = task_moe_trace(soft=True)
    features = typed(trace)
    found = analysis.partial_correlation(trace, features=features, n_permutations=0)
    plain = analysis.feature_correlation(trace, features=features, n_permutations=0)["r"]
    between = float(analysis.feature_overlap(trace, features=features)[0, 1])
    one, other = plain.sel(feature="extractive"), plain.sel(feature="either")
    expected = (one - between * other) / np.sqrt((1 - between**2) * (1 - other**2))
    np.testing.assert_allclose(found["r"].sel(feature="extractive"), expected, atol=1e-9)


def test_what_belongs_to_another_feature_disappears():
    # Both features see the expert of extractive tasks; only one of them is the reason.
    trace = task_moe_trace(soft=True, specialists={TYPES[0]: (0, 1)}, strength=6.0, n_tasks_a_type=8)
    features = typed(trace)
    plain = analysis.feature_correlation(trace, features=features, n_permutations=300)
    partial = analysis.partial_correlation(trace, features=features, n_permutations=300)
    cell = {"layer": "enc00", "expert": 1}
    assert plain["p_value"].sel(feature="extractive", **cell) < 0.01
    assert partial["p_value"].sel(feature="extractive", **cell) < 0.01
    assert float(plain["r"].sel(feature="either", **cell)) > 0.35
    assert abs(float(partial["r"].sel(feature="either", **cell))) < 0.3
    best = analysis.strongest_experts(partial, n=1).iloc[0]
    assert (best["feature"], best["layer"], best["expert"]) == ("extractive", "enc00", 1)


def test_partial_null_is_even():
    p = []
    for seed in range(25):
        trace = task_moe_trace(seed=seed, soft=True, specialists={})
        found = analysis.partial_correlation(trace, features=typed(trace), n_permutations=39, seed=seed)
        p.append(float(found["p_value"].min()))
    assert np.mean(np.array(p) <= 0.025) <= 0.2


def test_types_of_which_each_task_has_one_leave_nothing():
    found = analysis.partial_correlation(task_moe_trace(), n_permutations=5)
    assert found["r"].isnull().all()
    assert (found["left"] < 1e-6).all()


def test_correlation_of_given_routes():
    trace = task_moe_trace(soft=True)
    recorded = analysis.feature_correlation(trace, n_permutations=20)
    given = analysis.feature_correlation(trace, routes=analysis.task_routes(trace), n_permutations=20)
    np.testing.assert_allclose(recorded["r"], given["r"], atol=1e-3)
    assert given.attrs["measure"] == "routes"


def test_three_strongest_of_each_feature():
    found = analysis.feature_correlation(task_moe_trace(soft=True), n_permutations=20)
    table = analysis.strongest_experts(found)
    assert table["feature"].value_counts().tolist() == [3] * 4
    first = table[table["feature"] == TYPES[0]]
    r = found["r"].sel(feature=TYPES[0])
    assert first["r"].abs().tolist() == pytest.approx(np.sort(np.abs(r.values.ravel()))[::-1][:3])


def test_routes_over_training():
    early = task_moe_trace(soft=True, specialists={}, n_tasks_a_type=8)
    late = task_moe_trace(soft=True, n_tasks_a_type=8, strength=5.0)
    found = analysis.route_dynamics({"20": late, "3": early}, n=1, n_permutations=100)
    r = found.correlations["r"].abs()
    assert r.index.get_level_values("step").unique().tolist() == [3, 20]
    assert r[20].mean() > r[3].mean() + 0.2
    assert (found.correlations.loc[20, "p_value"] < 0.05).all()
    assert found.entropy.loc[(20, "enc00"), "n_tasks"] == 32
    at_one = analysis.route_dynamics({3: early, 20: late}, mode="route_softmax_t1", n=1, n_permutations=20)
    assert len(at_one.correlations) == 8
    with pytest.raises(TraceError, match="no traces"):
        analysis.route_dynamics({})
    with pytest.raises(TraceError, match="other tasks"):
        analysis.route_dynamics({1: task_moe_trace(n_tasks_a_type=2), 2: late})


def test_token_traces_have_routes_too():
    trace = planted_trace(seed=0)
    routes = analysis.task_routes(trace)
    np.testing.assert_allclose(routes.sum("expert"), 1)
    assert analysis.route_grouping(trace, n_permutations=20).embedding is None
