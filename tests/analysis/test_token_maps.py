"""Tokens and adapters on maps: what describes them, which of them are drawn, and what a map keeps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from analysis import layouts
from analysis.adapter_signatures import adapter_signatures
from analysis.layouts import principal_components
from analysis.maps import routing_map, stored_map
from analysis.quality import map_quality
from analysis.token_routes import route_features, token_overlap
from analysis.token_sample import equal_shares, token_sample
from routing import open_trace, save_trace
from routing.errors import SelectionError, TraceError
from tests.adapter_traces import hyper_moe_trace, pha_trace
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of


def test_overlap_by_hand():
    # two layers, top-2 of 4; shares of weight: token 0 (¾, ¼) on E0, E1 and (½, ½) on E2, E3
    #   token 1 (¼, ¾) on E1, E2 and (½, ½) on E2, E3: layer 0 shares E1: √(¼ · ¼) = ¼; layer 1: 1 → (¼ + 1) / 2
    #   token 2 (1, 0) on E3, E0 and (½, ½) on E0, E1: with token 0 √(0 · ¾) = 0 and 0
    experts = [[[0, 1], [2, 3]], [[2, 1], [2, 3]], [[3, 0], [0, 1]]]
    weights = [[[0.75, 0.25], [0.5, 0.5]], [[0.75, 0.25], [0.5, 0.5]], [[1, 0], [0.5, 0.5]]]
    trace = trace_of(experts, weights=weights)
    found = token_overlap(trace, [0, 1, 2])
    assert found.values == pytest.approx(np.array([[1, 0.625, 0], [0.625, 1, 0], [0, 0, 1]]), abs=1e-3)
    # even weights: layer 0 of tokens 0 and 1 has one of two in common, of tokens 0 and 2 (E0) too
    even = token_overlap(trace, [0, 1, 2], values="selected")
    assert even.values == pytest.approx(np.array([[1, 0.75, 0.25], [0.75, 1, 0], [0.25, 0, 1]]))


def test_with_one_expert_the_overlap_is_the_share_of_layers_that_agree():
    trace = random_trace(seed=0, top_k=1, n_layers=5, n_tokens=40)
    ids = trace.experts.values[:, :, 0]
    agree = (ids[:, None] == ids[None]).mean(axis=2)
    assert token_overlap(trace, np.arange(40)).values == pytest.approx(agree, abs=1e-6)


def test_overlap_agrees_with_the_obvious_loops():
    trace = random_trace(seed=1, n_tokens=12)
    ids, weights = trace.experts.values[:, :, :2], trace.weights.values.astype(float)
    share = weights / weights.sum(axis=2, keepdims=True)
    expected = np.zeros((12, 12))
    for one in range(12):
        for other in range(12):
            for layer in range(3):
                for a, expert in enumerate(ids[one, layer]):
                    for b, again in enumerate(ids[other, layer]):
                        expected[one, other] += (expert == again) * np.sqrt(
                            share[one, layer, a] * share[other, layer, b]
                        )
    assert token_overlap(trace, np.arange(12)).values == pytest.approx(expected / 3, abs=1e-5)


def test_distances_of_features_are_those_of_overlaps():
    trace = random_trace(seed=2, n_tokens=20)
    points = route_features(trace, np.arange(20)).toarray()
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    assert squares == pytest.approx(2 - 2 * token_overlap(trace, np.arange(20)).values, abs=1e-5)


def test_renaming_experts_leaves_overlaps_as_they_are():
    trace = random_trace(seed=3, n_tokens=30)
    swap = np.random.default_rng(0).permutation(8)
    again = trace_of(swap[trace.experts.values], n_experts=8, top_k=2, weights=trace.weights.values)
    same = trace_of(trace.experts.values, n_experts=8, top_k=2, weights=trace.weights.values)
    rows = np.arange(30)
    assert token_overlap(again, rows).values == pytest.approx(token_overlap(same, rows).values)


def test_tokens_of_two_stacks_share_nothing():
    trace = encoder_decoder_trace()
    encodes = trace.tokens["stack"].to_numpy() == "encoder"
    found = token_overlap(trace, np.arange(trace.n_tokens)).values
    assert (found[np.ix_(encodes, ~encodes)] == 0).all()
    assert found.diagonal() == pytest.approx(1)


def test_a_token_that_no_layer_routed_is_unknown_and_not_on_the_map():
    trace = trace_of([[0, 1], [-1, -1], [0, 2]])
    assert np.isnan(token_overlap(trace, [0, 1]).values).tolist() == [[False, True], [True, True]]
    assert routing_map(trace, of="token", method="pca").points["item"].tolist() == [0, 2]


def test_ids_alone_are_enough():
    trace = random_trace(seed=4, n_tokens=10)
    bare = trace.from_arrays(trace.experts.values[:, :, :2], layer_facts=trace.layer_facts)
    assert token_overlap(bare, [0, 1]).values[0, 0] == pytest.approx(1)
    assert routing_map(bare, of="token", method="pca").points["margin"].isna().all()


def test_shares_are_even_as_far_as_sizes_allow():
    assert equal_shares(np.array([2, 100, 50]), 30).tolist() == [2, 14, 14]
    assert equal_shares(np.array([2, 3]), 30).tolist() == [2, 3]
    assert equal_shares(np.array([5, 5, 5]), 2).sum() == 2


def test_a_sample_shows_tasks_and_phases_alike_and_its_weights_give_the_whole_back():
    trace = planted_trace(seed=0, n_tasks=3, n_tokens_a_prompt=12, n_generated=2)
    found = token_sample(trace, n_tokens=60, seed=1)
    assert found.groupby(["task", "phase"]).size().tolist() == [10] * 6
    assert found["weight"].sum() == pytest.approx(trace.n_tokens)
    whole = trace.tokens.assign(task=trace.prompts["task"].to_numpy()[trace.tokens["prompt"]])
    by = found.groupby(["task", "phase"])["weight"].sum()
    assert by.to_dict() == pytest.approx(whole.groupby(["task", "phase"], observed=True).size().to_dict())
    row = found.iloc[5]
    assert (row["position"], row["phase"]) == tuple(trace.tokens.loc[row["token"], ["position", "phase"]])
    assert row["prompt"] == trace.prompts["prompt"][trace.tokens["prompt"][row["token"]]]


def test_a_sample_is_its_seed():
    trace = random_trace(seed=0)
    pd.testing.assert_frame_equal(token_sample(trace, n_tokens=20, seed=3), token_sample(trace, n_tokens=20, seed=3))
    assert not token_sample(trace, n_tokens=20, seed=4)["token"].equals(
        token_sample(trace, n_tokens=20, seed=3)["token"]
    )
    assert len(token_sample(trace, n_tokens=10_000)) == trace.n_tokens


@pytest.mark.parametrize("most_products", [1000, 10])
@pytest.mark.parametrize("n_tokens", [60, 15])
def test_principal_components_of_sparse_routes_are_those_of_the_library(monkeypatch, most_products, n_tokens):
    monkeypatch.setattr(layouts, "MOST_PRODUCTS", most_products)
    features = route_features(random_trace(seed=5, n_tokens=n_tokens, n_layers=4), np.arange(n_tokens))
    library = PCA(2, svd_solver="full").fit(features.toarray())
    theirs = library.transform(features.toarray())
    for values in (features, features.toarray()):
        mine, share = principal_components(values)
        assert np.abs(mine) == pytest.approx(np.abs(theirs), abs=2e-3)
        assert share == pytest.approx(library.explained_variance_ratio_.sum(), rel=1e-3)


def test_quality_of_sparse_and_dense_is_the_same():
    features = route_features(random_trace(seed=6, n_tokens=80), np.arange(80))
    points = np.random.default_rng(0).normal(size=(80, 2))
    # Rounding decides between routes that overlap alike.
    dense = map_quality(features.toarray().astype(float), points)
    assert vars(map_quality(features, points)) == pytest.approx(vars(dense), abs=0.01)


def test_planted_tasks_lie_together_and_null_tasks_do_not():
    def nearest_of_same_task(trace):
        points = routing_map(trace, of="token", method="pca", most_items=600).points
        place = points[["x", "y"]].to_numpy()
        apart = ((place[:, None] - place) ** 2).sum(axis=2)
        np.fill_diagonal(apart, np.inf)
        task = points["task"].to_numpy()
        return (task[apart.argmin(axis=1)] == task).mean()

    shape = {"n_tasks": 4, "n_prompts_a_task": 12, "n_layers": 4, "prompt_effect": 0.0}
    owners = {task: (layer, n) for n, task in enumerate(("spans", "sentiment", "facts", "names")) for layer in (3,)}
    assert nearest_of_same_task(planted_trace(seed=0, specialists=owners, strength=9.0, **shape)) > 0.6
    assert nearest_of_same_task(null_trace(seed=0, **shape)) < 0.4


def test_a_map_of_tokens_announces_its_sample_and_is_kept(tmp_path):
    trace = open_trace(save_trace(planted_trace(seed=0, n_tasks=3), tmp_path / "run"))
    made = routing_map(trace, of="token", method="pca", most_items=100)
    assert "100 of 420 tokens" in made.note
    assert made.points["weight"].sum() == pytest.approx(420)
    assert {"prompt", "position", "phase", "piece", "nll", "margin", "task", "task_type"} <= set(made.points.columns)
    kept = stored_map(trace, of="token", method="pca", most_items=100)
    pd.testing.assert_frame_equal(kept.points, made.points, check_dtype=False)
    assert kept.quality == made.quality


def test_margins_on_the_map_by_hand():
    # one layer, scores ½, ¼, ⅛: margin of top-2 ¼ − ⅛
    trace = trace_of([[0, 1, 2], [1, 2, 3]], top_k=2)
    assert routing_map(trace, of="token", method="pca").points["margin"].tolist() == [0.125, 0.125]


def test_adapters_know_who_uses_them():
    trace = hyper_moe_trace(seed=0)
    found = adapter_signatures(trace)
    assert found.values == pytest.approx(trace.adapters.parameters.values)
    index = trace.adapter_index.values
    used = trace.prompts["task"].to_numpy()[trace.tokens["prompt"].to_numpy()]
    number = int(np.argmax(found["n_uses"].values))
    tasks = pd.Series(used[(index == number).any(axis=1)]).value_counts()
    assert found["task"].values[number] in tasks.index[tasks == tasks.max()]
    assert found["task_share"].values[number] == pytest.approx(tasks.max() / tasks.sum())
    assert adapter_signatures(trace, values="selection_embedding").sizes["feature"] == 5


def test_adapters_are_drawn_evenly_over_sites_and_mapped():
    trace = hyper_moe_trace(seed=0)
    made = routing_map(trace, of="adapter", method="pca", most_items=10)
    assert made.points["site"].value_counts().tolist() == [5, 5]
    assert "adapters, drawn at random" in made.note
    assert routing_map(pha_trace(seed=0), of="adapter", method="pca").points["key"].isin(pha_trace(seed=0).tasks).all()


def test_what_cannot_be_mapped_is_said():
    with pytest.raises(TraceError, match="no generated adapters"):
        adapter_signatures(random_trace(seed=0))
    with pytest.raises(SelectionError, match="hypernetwork_input"):
        adapter_signatures(hyper_moe_trace(seed=0), values="norm")
    with pytest.raises(SelectionError, match="loss"):
        token_overlap(random_trace(seed=0), [0], values="loss")
    with pytest.raises(SelectionError, match="tokens 0 to"):
        token_overlap(random_trace(seed=0), [10_000])


@pytest.mark.slow  # UMAP compiles for half a minute
def test_umap_of_tokens_repeats_itself():
    trace = planted_trace(seed=0, n_tasks=3)
    one, again = (routing_map(trace, of="token", most_items=200, seed=2) for _ in range(2))
    assert one.method == "umap"
    assert one.points.equals(again.points)
    assert one.quality.trustworthiness > one.quality.shuffled_trustworthiness + 0.2
