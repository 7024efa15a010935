from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_mutual_info_score

from analysis.agreement import adjusted_information, agreement
from analysis.clustering import clusters
from analysis.expert_agreement import expert_agreement, main_task_types
from analysis.found_again import _drawn_within, _lifts, _used, found_again
from analysis.signatures import complete_items, signatures
from routing import SelectionError, TraceError
from tests.adapter_traces import task_moe_trace
from tests.counted import counted
from tests.traces import TASKS, encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of

SHAPE = {"n_prompts_a_task": 8, "n_tokens_a_prompt": 10, "n_layers": 2, "with_logits": False}


def experts_of(values, types, layers=None):
    values = np.asarray(values, float)
    coords = {
        "item": [f"i{n}" for n in range(len(values))],
        "feature": [f"t{n}" for n in range(values.shape[1])],
        "task_type": ("feature", list(types)),
    }
    if layers is not None:
        coords["layer"] = ("item", list(layers))
    return xr.DataArray(values, dims=("item", "feature"), coords=coords)


def labels_of(values):
    return xr.DataArray(np.asarray(values), dims="item")


def owned(seed, *, strength=4.0):
    """Two experts of the last layer for each of the three types, two tasks each."""
    kinds = {"extractive": 0, "classification": 1, "knowledge": 2}
    owners = {task: (1, kinds[kind]) for task, kind in TASKS.items() if kind in kinds}
    return planted_trace(seed=seed, n_tasks=6, specialists=owners, strength=strength, **SHAPE)


def test_the_main_type_by_hand():
    table = experts_of([[1, 3, 0, 0], [0, 0, 1, np.nan], [np.nan] * 4, [2, -2, 1, 1]], "aabb")
    # means (2, 0), (0, 1), none, (0, 1)
    assert main_task_types(table).values.tolist() == ["a", "b", "", "b"]


def test_agreement_with_main_types_by_hand():
    table = experts_of([[1, 1, 0, 0]] * 3 + [[0, 0, 1, 1]] * 3, "aabb", "xyxyxy")
    found = expert_agreement(table, labels_of([0, 0, 0, 1, 1, 1]))
    assert (found.ami, found.ari, found.n_items) == (pytest.approx(1), pytest.approx(1), 6)
    # Of the 6 ways to deal two types of two to four tasks, the right one and its mirror part the experts so; in the
    # other four both means are the same for all, and all experts go to one type.
    assert found.p_value == pytest.approx(1 / 3, abs=0.06)
    by_layer = expert_agreement(table, labels_of([0, 0, 0, 1, 1, 1]), reference="layer")
    assert by_layer.ari < 0.1
    assert by_layer.p_value > 0.5


def test_clusters_of_layers_are_known_as_such():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(3, 8)), 8, axis=0) + rng.normal(0, 0.1, (24, 8))
    table = experts_of(values, "aabbccdd", np.repeat(["L0", "L1", "L2"], 8))
    labels = clusters(table, n_clusters=3, n_permutations=0, n_bootstrap=0).labels
    assert expert_agreement(table, labels, reference="layer").ari == pytest.approx(1)
    assert expert_agreement(table, labels, reference="layer", n_permutations=99).p_value == pytest.approx(0.01)


def test_types_dealt_at_random_agree_no_better_than_chance():
    """Main types come from the signatures, so a null that deals experts would call nearly all of these."""
    p, naive = [], []
    for seed in range(20):
        table = experts_of(np.random.default_rng(seed).normal(size=(24, 8)), "aabbccdd")
        labels = clusters(table, n_clusters=4, n_permutations=0, n_bootstrap=0).labels
        p.append(expert_agreement(table, labels, n_permutations=99).p_value)
        naive.append(agreement(labels, main_task_types(table), n_permutations=99).p_value)
    assert (np.array(p) <= 0.05).sum() <= 4
    assert (np.array(naive) <= 0.05).sum() >= 8


def test_the_quick_index_is_that_of_the_library():
    rng = np.random.default_rng(0)
    for n_one, n_other in ((1, 1), (1, 3), (3, 4), (12, 5)):
        one, other = (np.unique(rng.integers(0, n, 40), return_inverse=True)[1] for n in (n_one, n_other))
        assert adjusted_information(one, other) == pytest.approx(adjusted_mutual_info_score(one, other), abs=1e-9)


def test_what_cannot_be_compared():
    table = experts_of(np.eye(4), "aaaa", "xxyy")
    assert np.isnan(expert_agreement(table, labels_of([0, 0, 1, 1])).p_value)
    assert np.isnan(expert_agreement(table, labels_of([-1, -1, -1, 0])).ami)
    with pytest.raises(SelectionError, match="task_type and a layer"):
        expert_agreement(table, labels_of([0, 0, 1, 1]), reference="stack")
    with pytest.raises(SelectionError, match="no task types"):
        main_task_types(table.drop_vars("task_type"))


@pytest.mark.parametrize("of", ["expert", "task"])
def test_undrawn_prompts_give_the_signatures(of):
    """The oracle: every prompt once is what `signatures` says."""
    for trace in (random_trace(seed=1), encoder_decoder_trace(), owned(0)):
        used = _used(trace, layers=trace.layers, most=None, rng=np.random.default_rng(0))
        values, kept = _lifts(used, trace.task_of_prompt.astype(int), np.ones(trace.n_prompts), of=of)
        expected, places = complete_items(signatures(trace, of=of))
        np.testing.assert_allclose(values, expected, atol=1e-4)
        assert kept.tolist() == places.tolist()


def test_as_many_prompts_of_each_task_are_drawn():
    task = np.array([0, 0, 0, 1, 1, 2])
    drawn = _drawn_within(task, np.random.default_rng(0))
    assert np.bincount(task, weights=drawn).tolist() == [3, 2, 1]


@pytest.mark.parametrize("method", ["tree", "density", "blocks"])
def test_planted_clusters_of_tasks_are_found_again(method):
    found = found_again(owned(1, strength=6.0), of="task", method=method, n_bootstrap=6, n_permutations=9)
    assert found.n_clusters >= 2
    assert found.ari > 0.6 > found.null_mean
    assert found.low <= found.ari <= found.high
    assert found.p_value == pytest.approx(0.1)


def test_clusters_of_noise_are_not_found_again_better_than_dealt_ones():
    p = [
        found_again(null_trace(seed=seed, **SHAPE), of="expert", n_bootstrap=4, n_permutations=9, seed=seed).p_value
        for seed in range(12)
    ]
    assert (np.array(p) <= 0.1).sum() <= 4
    assert np.median(p) > 0.2


def test_layers_narrow_what_is_clustered_and_the_seed_decides():
    trace = owned(2)
    one = found_again(trace, layers=("L01",), n_bootstrap=3, n_permutations=2)
    assert one.n_items == 8
    assert one == found_again(trace, layers=("L01",), n_bootstrap=3, n_permutations=2)


def test_where_prompts_say_nothing():
    by_task = found_again(task_moe_trace(seed=0), n_bootstrap=3, n_permutations=2)
    assert np.isnan(by_task.ari)
    assert np.isnan(by_task.p_value)
    assert np.isnan(found_again(trace_of([[0, 1]])).ari)
    with pytest.raises(SelectionError, match="by tree, blocks or density"):
        found_again(owned(3), method="rings")


def test_counts_are_refused():
    trace = owned(4)
    with pytest.raises(TraceError, match="redrawn prompts"):
        found_again(counted(trace, with_prompts=False))
