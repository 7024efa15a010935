"""Likeness of adapters within and across layers: by hand, planted, null."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from routing import AdapterSite, Selection, adapters_of
from routing.errors import TraceError
from tests.adapter_traces import hyper_moe_trace, task_moe_trace
from tests.traces import trace_of


def trace_with(values, keys=("0", "1"), stacks=None):
    """Layers of one adapter a key, given as rows of four numbers, layer by layer."""
    layers = [f"L{n:02d}" for n in range(len(values) // len(keys))]
    sites = [
        AdapterSite(label=name, hidden=1, width=1, n_parameters=4, made_from="selected_set", stack=stack)
        for name, stack in zip(layers, stacks or ["decoder"] * len(layers), strict=True)
    ]
    table = pd.DataFrame({"site": np.repeat(layers, len(keys)), "key": [*keys] * len(layers)})
    return trace_of(
        [[[0]] * len(layers)], n_experts=2, adapters=adapters_of(sites, table, np.array(values, float)),
        adapter_index=[[n * len(keys) for n in range(len(layers))]],
    )  # fmt: skip


def test_means_of_pairs_by_hand():
    # Within the first layer 0, within the second 1 (equal); across: 1, 1, 0, 0.
    found = analysis.adapter_sharing(trace_with([[1, 0, 0, 0], [0, 1, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]]))
    np.testing.assert_allclose(found["cosine"], [[0, 0.5], [0.5, 1]], atol=1e-7)
    assert found["site"].values.tolist() == ["L00", "L01"]
    assert float(found["within"]) == pytest.approx(0.5)
    assert float(found["across"]) == pytest.approx(0.5)
    assert float(found["p_value"]) > 0.3


def test_stacks_have_hypernetworks_of_their_own_and_are_not_compared():
    x, y = [1, 0, 0, 0], [0, 1, 0, 0]
    found = analysis.adapter_sharing(trace_with([x, x, x, x, y, y], stacks=["encoder", "encoder", "decoder"]))
    # The encoder's two layers are alike in all pairs; the decoder's only layer is unlike them, and no part of it.
    assert (float(found["within"]), float(found["across"])) == (pytest.approx(1), pytest.approx(1))
    np.testing.assert_allclose(found["cosine"], [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-7)


def test_layers_that_make_their_own_are_told_from_layers_that_share():
    rng = np.random.default_rng(0)
    own = np.repeat(rng.normal(size=(3, 4)), 6, axis=0)
    noise = 0.2 * rng.normal(size=own.shape)
    keys = [str(n) for n in range(6)]
    apart = analysis.adapter_sharing(trace_with(own + noise, keys), n_permutations=200)
    assert float(apart["p_value"]) < 0.01
    assert float(apart["difference"]) > float(apart["null_95"])
    p = [
        float(analysis.adapter_sharing(trace_with(rng.normal(size=own.shape), keys), n_permutations=100)["p_value"])
        for _ in range(40)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.2


def test_one_layer_has_nothing_to_be_compared_with():
    found = analysis.adapter_sharing(hyper_moe_trace(seed=0).select(Selection(layers=("L01",))))
    assert np.isnan(found["across"])
    assert np.isnan(found["p_value"])
    with pytest.raises(TraceError, match="no generated adapters"):
        analysis.adapter_sharing(task_moe_trace())
