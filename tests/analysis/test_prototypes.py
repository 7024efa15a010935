"""Prototypes and instance vectors: by hand, against sklearn, planted, null."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import silhouette_samples

import analysis
from analysis.instances import _silhouettes
from routing import LayerFacts, RoutingTrace, open_trace, save_trace
from routing.errors import TraceError
from tests.adapter_traces import hyper_moe_trace, pha_trace
from tests.traces import trace_of


def tiny(retrieved, tasks, instance=None):
    """One row a prompt of a retriever over the prototypes of tasks a and b, along two axes."""
    facts = LayerFacts(label="retriever", number=0, n_experts=2, top_k=1, expert_names=["a", "b"], stack="model")
    n = len(retrieved)
    vectors = {
        "prototype": xr.DataArray(
            np.array([[2.0, 0], [0, 1]]), dims=("prototype", "feature"), coords={"prototype": ["a", "b"]}
        )
    }
    if instance is not None:
        vectors["instance"] = xr.DataArray(
            np.array(instance, float), dims=("prompt", "feature"), coords={"prompt": [f"p{i}" for i in range(n)]}
        )
    return trace_of(
        np.array(retrieved)[:, None], layer_facts=[facts], prompts=range(n), tasks=tasks, unit="prompt", vectors=vectors
    )


def test_retrieval_by_hand():
    trace = tiny([0, 0, 1, 1, 0], ("a", "a", "a", "b", "c"))
    found = analysis.retrieval(trace)
    assert found["n_prompts"].values.tolist() == [[2, 1], [0, 1], [1, 0]]
    assert found["share"].sum("prototype").values.tolist() == [1, 1, 1]
    assert found["has_prototype"].values.tolist() == [True, True, False]
    accuracy = analysis.retrieval_accuracy(trace, n_permutations=500)
    assert accuracy.index.tolist() == ["all", "a", "b"]
    assert accuracy["n_prompts"].tolist() == [4, 3, 1]
    assert accuracy["accuracy"].tolist() == [0.75, pytest.approx(2 / 3), 1]
    # Half of the four prompts retrieve each prototype, so chance is a half for all.
    np.testing.assert_allclose(accuracy["chance"], 0.5, atol=0.06)


def test_a_run_of_held_out_tasks_alone_has_no_accuracy():
    trace = tiny([0, 1, 1], ("c", "c", "d"))
    accuracy = analysis.retrieval_accuracy(trace, n_permutations=20)
    assert accuracy.index.tolist() == ["all"]
    assert accuracy["n_prompts"].tolist() == [0]
    assert accuracy[["accuracy", "chance", "p_value"]].isna().all(axis=None)
    assert analysis.retrieval(trace)["n_prompts"].values.tolist() == [[1, 1], [0, 1]]


def test_centers_by_hand():
    # Mean of the unit vectors of a is (1, 1)/2: 45° from both prototypes.
    trace = tiny([0, 1, 1], ("a", "a", "b"), instance=[[3, 0], [0, 2], [0, 5]])
    found = analysis.prototype_centers(trace, n_bootstrap=20)
    root = 0.5**0.5
    np.testing.assert_allclose(found["cosine"], [[root, root], [0, 1]])
    assert found["rank"].values.tolist() == [1, 1]
    assert found["own"].values.tolist() == [pytest.approx(root), 1]
    assert np.isnan(found["own_low"].values[1])  # a single prompt
    np.testing.assert_allclose(analysis.prototype_similarity(trace), np.eye(2))


def test_the_tree_puts_like_prototypes_beside_each_other():
    trace = pha_trace(seed=0)
    vectors = trace.vectors["prototype"]
    names, table = vectors["prototype"].values[:4].tolist(), np.array([[1, 0.0], [0, 1], [1, 0.1], [0.1, 1]])
    pairs = xr.DataArray(table, dims=("prototype", "feature"), coords={"prototype": names})
    one = RoutingTrace.from_arrays(
        trace.experts.values[:1],
        layer_facts=trace.layer_facts,
        tokens=trace.tokens.iloc[:1],
        prompts=trace.prompts.iloc[:1],
        unit="prompt",
        vectors={"prototype": pairs},
    )
    found = analysis.prototype_similarity(one)
    ordered = [names.index(name) for name in found.sortby("leaf")["prototype"].values]
    assert {frozenset(ordered[:2]), frozenset(ordered[2:])} == {frozenset({0, 2}), frozenset({1, 3})}


def test_like_prototypes_that_cost_less_are_found_and_dealt_costs_are_not():
    trace = pha_trace(seed=0)
    alike = analysis.prototype_similarity(trace).to_pandas()
    # The other way round costs something else; the mean of both directions counts.
    lean = np.triu(np.full(alike.shape, 0.4), 1) - np.tril(np.full(alike.shape, 0.4), -1)
    planted = analysis.exchange_relation(trace, 1 - alike + lean, n_permutations=800)
    assert planted.rho == pytest.approx(1)
    assert planted.p_value < 0.01
    rng, p = np.random.default_rng(0), []
    for _ in range(40):
        dealt = pd.DataFrame(rng.normal(size=alike.shape), index=alike.index, columns=alike.columns)
        p.append(analysis.exchange_relation(trace, dealt, n_permutations=100).p_value)
    assert np.mean(np.array(p) <= 0.05) < 0.2
    few = alike.iloc[:3, :3]
    assert np.isnan(analysis.exchange_relation(trace, few).rho)


def test_silhouettes_agree_with_sklearn():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 5))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    labels = rng.integers(0, 4, 40)
    labels[0] = 4  # alone
    mine = _silhouettes(np.clip(1 - unit @ unit.T, 0, 2), labels, 5)
    np.testing.assert_allclose(mine, silhouette_samples(values, labels, metric="cosine"), atol=1e-9)


def test_planted_tasks_are_found():
    trace = pha_trace()
    grouping = analysis.instance_grouping(trace, n_permutations=99)
    assert grouping.silhouette > 0.3 > grouping.silhouette_null_95
    assert grouping.silhouette_p_value == 0.01
    assert grouping.nmi > 0.7
    assert grouping.clusters.p_value == 0.01
    assert grouping.by_task["n_prompts"].tolist() == [8] * 7
    accuracy = analysis.retrieval_accuracy(trace, n_permutations=99)
    assert accuracy.loc["all", "accuracy_low"] > 0.7
    relations = analysis.prototype_relations(trace, n_permutations=720)
    assert (relations["p_value"] < 0.05).all()
    centers = analysis.prototype_centers(trace, n_bootstrap=50)
    known = centers["own"].notnull().values
    assert known.tolist() == [True] * 6 + [False]
    assert (centers["rank"].values[known] == 1).all()
    # The held-out task lies around the first prototype.
    assert analysis.retrieval(trace)["n_prompts"].sel(task="sums").values.argmax() == 0


def test_where_there_is_nothing_nothing_is_found():
    p = {"silhouette": [], "clusters": [], "accuracy": [], "relations": []}
    for seed in range(15):
        trace = pha_trace(seed=seed, planted=False)
        grouping = analysis.instance_grouping(trace, n_permutations=39, seed=seed)
        p["silhouette"].append(grouping.silhouette_p_value)
        p["clusters"].append(grouping.clusters.p_value)
        p["accuracy"].append(analysis.retrieval_accuracy(trace, n_permutations=39, seed=seed)["p_value"]["all"])
        p["relations"].append(analysis.prototype_relations(trace, n_permutations=39, seed=seed)["p_value"].iloc[0])
    for values in p.values():
        assert np.mean(np.array(values) <= 0.05) <= 0.2


def test_the_map_holds_prompts_and_prototypes_and_is_kept(tmp_path):
    trace = open_trace(save_trace(pha_trace(), tmp_path / "trace"))
    made = analysis.instance_map(trace, method="pca")
    assert made.points["kind"].value_counts().to_dict() == {"prompt": 56, "prototype": 6}
    again = analysis.instance_map(open_trace(trace.path), method="pca")
    np.testing.assert_array_equal(made.points[["x", "y"]], again.points[["x", "y"]])
    assert again.quality == made.quality
    few = analysis.instance_map(trace, method="pca", most_items=14)
    assert "14 of 56 prompts" in few.note
    assert few.points[few.points["kind"] == "prompt"]["task"].value_counts().tolist() == [2] * 7


def test_what_is_missing_is_said():
    for function in (analysis.instance_grouping, analysis.prototype_similarity, analysis.prototype_centers):
        with pytest.raises(TraceError, match="holds no vectors"):
            function(hyper_moe_trace())
    for function in (analysis.retrieval, analysis.retrieval_accuracy):
        with pytest.raises(TraceError, match="named experts"):
            function(hyper_moe_trace())


def test_one_task_has_no_groups():
    trace = tiny([0, 0], ("a", "a"), instance=[[1, 0], [0, 1]])
    found = analysis.instance_grouping(trace, n_permutations=5)
    assert np.isnan([found.silhouette, found.nmi, found.clusters.ami]).all()
