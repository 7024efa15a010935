from __future__ import annotations

import numpy as np
import pytest

from analysis.comparison import churn
from analysis.passages import passage_routing, token_churn
from analysis.reading import prompt_tokens, token_adapters, token_experts
from routing import RoutingTrace, Selection, SelectionError
from tests.adapter_traces import hyper_moe_trace
from tests.traces import encoder_decoder_trace, planted_trace, trace_of


def test_a_passage_says_of_every_layer_what_the_layer_alone_says():
    trace = planted_trace(seed=0, n_layers=3)
    table = passage_routing(trace, "facts-002")
    for layer in trace.layers:
        alone = token_experts(trace, "facts-002", layer=layer)
        here = table.sel(layer=layer)
        assert here["experts"].values[:, 0].tolist() == alone["expert"].tolist()
        for name in ("weight", "margin", "entropy"):
            np.testing.assert_allclose(here[name], alone[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_what_a_layer_did_not_route_is_absent():
    trace = encoder_decoder_trace()
    table = passage_routing(trace, "p0")
    tokens = prompt_tokens(trace, "p0")
    of_decoder = (tokens["stack"] == "decoder").to_numpy()
    first = table["experts"].sel(layer="dec01").values[:, 0]
    assert (first[~of_decoder] == -1).all()
    assert (first[of_decoder] >= 0).all()
    assert np.isnan(table["weight"].sel(layer="dec01").values[~of_decoder]).all()


def test_entropies_are_left_out_where_they_are_not_asked_for():
    table = passage_routing(planted_trace(seed=0), "facts-002", entropy=False)
    assert table["entropy"].isnull().all()


def test_the_churn_of_a_token_by_hand():
    before = trace_of([[1, 0], [2, 0], [2, 3]], n_experts=4)
    after = trace_of([[0, 1], [2, 3], [0, 1]], n_experts=4)
    found = token_churn(before, after, prompt="p0")
    # the order does not count; one of three stays; all new
    assert found["churn"].values[0].tolist() == pytest.approx([0.0, 2 / 3, 1.0])
    assert found["experts_before"].values[0].tolist() == [[1, 0], [2, 0], [2, 3]]
    assert found["experts_after"].values[0].tolist() == [[0, 1], [2, 3], [0, 1]]


def test_the_mean_churn_of_tokens_is_that_of_the_layer():
    one, other = planted_trace(seed=0, n_prompts_a_task=1), planted_trace(seed=0, n_prompts_a_task=1, strength=0.5)
    read = one.tokens["phase"].astype(str) == "prompt"
    of_layer = churn(one, other, n_bootstrap=0)["churn"]
    tables = [token_churn(one, other, prompt=prompt)["churn"] for prompt in one.prompts["prompt"]]
    for layer in one.layers:
        values = np.concatenate([table.sel(layer=layer).values for table in tables])
        assert values[read.to_numpy()].mean() == pytest.approx(of_layer[layer], abs=1e-6)


def test_after_the_first_other_token_nothing_is_compared():
    one = planted_trace(seed=0, n_layers=1, n_prompts_a_task=1).select(Selection(prompts=("facts-000",)))
    table = one.tokens.copy()
    table.loc[5, "token_id"] += 1
    parts = {name: getattr(one, name).values for name in ("scores", "weights")}
    other = RoutingTrace.from_arrays(
        one.experts.values,
        **parts,
        layer_facts=one.layer_facts,
        tokens=table.drop(columns=["stack"]),
        prompts=one.prompts,
        vocabulary=dict(one.vocabulary),
    )
    change = token_churn(other, one, prompt="facts-000")["churn"].values[0]
    assert (change[:5] == 0).all()
    assert np.isnan(change[5:]).all()


def test_runs_of_other_layers_or_prompts_are_not_compared():
    here = trace_of([[0, 1]], n_experts=4)
    assert np.isnan(token_churn(trace_of([[0, 1]], n_experts=8), here, prompt="p0")["churn"].values).all()
    other = planted_trace(seed=0, n_prompts_a_task=1)
    assert np.isnan(token_churn(other, here, prompt="p0")["churn"].values).all()


def test_adapters_of_a_token_are_told_site_by_site():
    trace = hyper_moe_trace(seed=0, planted=True)
    prompt = trace.prompts["prompt"].iloc[0]
    found = token_adapters(trace, prompt, position=1)
    assert list(found.index) == [site.label for site in trace.adapters.sites]
    row = int(np.flatnonzero(trace.tokens["prompt"].to_numpy() == 0)[1])
    np.testing.assert_array_equal(found["ratio"], trace.adapter_ratio.values[row].astype(np.float32))
    assert found["key"].tolist() == trace.adapters.table["key"].iloc[trace.adapter_index.values[row]].tolist()


def test_a_trace_without_adapters_tells_of_none():
    assert token_adapters(trace_of([[0, 1]]), "p0", position=0).empty
    with pytest.raises(SelectionError):
        token_adapters(trace_of([[0, 1]]), "p0", position=9)
