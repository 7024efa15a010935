"""Likeness of adapters and experts, and how much adapters add: by hand, planted, null."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import analysis
from routing import AdapterSite, Selection, adapters_of
from routing.errors import SelectionError, TraceError
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.traces import trace_of


def tiny():
    """Two experts of three a token; each set's adapter is an axis, or a sum of two."""
    sites = [AdapterSite(label="L00", hidden=1, width=1, n_parameters=4, made_from="selected_set")]
    keys = pd.DataFrame({"site": "L00", "key": ["0 1", "0 2", "1 2"]})
    values = np.array([[2.0, 0, 0, 0], [0, 3, 0, 0], [1, 1, 0, 0]])
    return trace_of(
        [[0, 1], [1, 0], [2, 0], [1, 2]], n_experts=3, weights=[[0.6, 0.4]] * 4, prompts=[0, 0, 1, 1],
        tasks=("a", "b"), adapters=adapters_of(sites, keys, values), adapter_index=[[0], [0], [1], [2]],
        adapter_ratio=[[0.25], [0.75], [1.0], [2.0]],
    )  # fmt: skip


def test_cosines_by_hand():
    trace = tiny()
    found = analysis.adapter_similarity(trace)
    root = 0.5**0.5
    np.testing.assert_allclose(found, [[1, 0, root], [0, 1, root], [root, root, 1]])
    assert found["task"].values.tolist() == ["a", "b", "b"]
    by_expert = analysis.adapter_similarity(trace, site="L00", by="expert")
    # Of 0 without 1: {0 2}, an axis; of 1 without 0: {1 2}, the diagonal. Of 0 without 2: {0 1}.
    np.testing.assert_allclose(by_expert, [[1, root, root], [root, 1, 0], [root, 0, 1]], atol=1e-12)


def test_ratios_by_hand():
    trace = tiny()
    found = analysis.adapter_ratios(trace, n_bootstrap=50)
    assert found.loc[("L00", 0), "ratio"] == pytest.approx((0.25 + 0.75 + 1) / 3)
    assert found.loc[("L00", 1), ["ratio", "n_rows", "n_prompts"]].tolist() == [pytest.approx(1.0), 3, 2]
    assert np.isnan(found.loc[("L00", 2), "ratio_low"])  # a single prompt
    by_task = analysis.adapter_ratios(trace, by="task", n_bootstrap=0)
    assert by_task["ratio"].to_dict() == {("L00", "a"): 0.5, ("L00", "b"): 1.5}
    assert analysis.adapter_ratios(trace, by=None)["ratio"].tolist() == [1.0]


def test_planted_ratios_have_intervals_that_part():
    found = analysis.adapter_ratios(hyper_moe_trace(n_prompts_a_task=10)).loc["L02"]
    assert found["ratio_low"][0] > found["ratio_high"][1:].max()
    null = analysis.adapter_ratios(hyper_moe_trace(planted=False, n_prompts_a_task=10)).loc["L02"]
    assert null["ratio_low"].max() < null["ratio_high"].min()


def test_ratio_intervals_cover():
    """The true mean of the ratio is 0.1 in every null trace."""
    low, high = [], []
    for seed in range(25):
        frame = analysis.adapter_ratios(hyper_moe_trace(planted=False, seed=seed), by=None, n_bootstrap=100, seed=seed)
        low.append(frame["ratio_low"].iloc[0])
        high.append(frame["ratio_high"].iloc[0])
    assert np.mean((np.array(low) < 0.1) & (np.array(high) > 0.1)) > 0.82


def test_planted_relations_are_found_and_null_ones_are_not():
    planted = analysis.expert_relations(hyper_moe_trace(n_experts=10, n_prompts_a_task=16), n_permutations=500)
    assert (planted.xs("embedding–weights", level="pair")["p_value"] < 0.01).all()
    assert planted.xs("embedding–adapter", level="pair")["p_value"].min() < 0.05
    p = [
        analysis.expert_relations(hyper_moe_trace(seed=seed, planted=False), n_permutations=100)["p_value"]
        for seed in range(15)
    ]
    assert np.mean(np.concatenate(p) < 0.05) < 0.15


def test_the_order_of_experts_does_not_matter():
    trace = hyper_moe_trace()
    alike = analysis.expert_similarities(trace)
    assert set(alike.data_vars) == {"embedding", "adapter", "weights"}
    np.testing.assert_allclose(alike["adapter"], alike["adapter"].transpose("layer", "other", "expert"))
    assert np.allclose(np.diagonal(alike["embedding"].values, axis1=1, axis2=2), 1)


def test_one_adapter_an_expert_is_said_to_be_one():
    top_1 = analysis.distinct_adapters(hyper_moe_trace(top_k=1))
    assert top_1["bijection"].all()
    assert top_1["n_adapters"].tolist() == [6, 6]
    assert "by construction" in top_1["sentence"].iloc[0]
    top_2 = analysis.distinct_adapters(hyper_moe_trace())
    assert not top_2["bijection"].any()
    assert top_2["n_possible"].tolist() == [15, 15]
    assert analysis.distinct_adapters(pha_trace())["bijection"].all()


def test_projected_adapters_keep_their_angles():
    rng = np.random.default_rng(0)
    sites = [AdapterSite(label="dec00", hidden=300, width=30, n_parameters=18330, made_from="task")]
    values = rng.normal(size=(4, 18330)) + rng.normal(size=18330)
    keys = pd.DataFrame({"site": "dec00", "key": list("abcd")})
    trace = trace_of([[0]], adapters=adapters_of(sites, keys, values), adapter_index=[[0]])
    found = analysis.adapter_similarity(trace)
    assert found.attrs["projected"]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    np.testing.assert_allclose(found, unit @ unit.T, atol=0.03)


def test_what_cannot_be_compared_is_refused():
    trace = hyper_moe_trace()
    with pytest.raises(TraceError, match="'L09'"):
        analysis.adapter_similarity(trace, site="L09")
    with pytest.raises(SelectionError, match="by expert"):
        analysis.adapter_similarity(pha_trace(), site="dec00", by="expert")
    with pytest.raises(SelectionError, match="by='x'|not by 'x'"):
        analysis.adapter_similarity(trace, by="x")
    with pytest.raises(SelectionError, match="not by 'x'"):
        analysis.adapter_ratios(trace, by="x")
    for function in (analysis.adapter_similarity, analysis.adapter_ratios, analysis.distinct_adapters):
        with pytest.raises(TraceError, match="no generated adapters"):
            function(task_moe_trace())
    with pytest.raises(TraceError, match="no embeddings"):
        analysis.expert_similarities(task_moe_trace())


def test_sites_of_different_size_are_not_compared():
    sites = [
        AdapterSite(label="dec00", hidden=1, width=1, n_parameters=4, made_from="task"),
        AdapterSite(label="dec01", hidden=2, width=1, n_parameters=7, made_from="task"),
    ]
    keys = pd.DataFrame({"site": ["dec00", "dec01"], "key": ["a", "a"]})
    values = np.ones((2, 7))
    values[0, 4:] = np.nan
    trace = trace_of([[0]], adapters=adapters_of(sites, keys, values), adapter_index=[[0, 1]])
    assert np.isnan(analysis.adapter_similarity(trace)).values.tolist() == [[False, True], [True, False]]


def test_weights_alone_can_be_shown_but_not_related():
    table = xr.DataArray(
        np.eye(4)[None], dims=("layer", "expert", "other"),
        coords={"layer": ["L00"], "expert": range(4), "other": range(4)},
    )  # fmt: skip
    trace = trace_of([[0]], n_experts=4, vectors={"expert_weight_similarity": table})
    assert list(analysis.expert_similarities(trace)) == ["weights"]
    with pytest.raises(TraceError, match="needs two"):
        analysis.expert_relations(trace)


def test_a_selection_has_its_own_ratios():
    trace = hyper_moe_trace()
    part = trace.select(Selection(tasks=("facts",), layers=("L02",)))
    one = analysis.adapter_ratios(trace, by="task", n_bootstrap=0).loc[("L02", "facts"), "ratio"]
    assert analysis.adapter_ratios(part, by="task", n_bootstrap=0).loc[("L02", "facts"), "ratio"] == pytest.approx(one)
