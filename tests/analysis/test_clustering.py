from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

from analysis import clustering
from analysis.agreement import agreement, expert_task_types
from analysis.clustering import clusters
from analysis.maps import routing_clusters
from analysis.signatures import signatures
from routing.errors import SelectionError
from tests.traces import TASKS, planted_trace, trace_of


def items(values, **coords):
    values = np.asarray(values, dtype=float)
    named = {"item": [f"i{number}" for number in range(len(values))]} | coords
    return xr.DataArray(values, dims=("item", "feature"), coords=named)


def blobs(seed, *, sizes=(20, 12, 8), distance=8.0):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    return items(rng.normal(size=(len(group), 4)) + distance * np.eye(len(sizes), 4)[group]), group


def test_planted_groups_are_found():
    table, group = blobs(0)
    found = clusters(table)
    assert found.n_clusters == 3
    assert agreement(found.labels, group).ari == 1
    assert found.labels.values.tolist() == group.tolist()  # the largest first
    assert found.p_value < 0.03
    assert found.stability > 0.95
    assert found.silhouette == pytest.approx(silhouette_score(table.values, group))


def test_a_cloud_is_no_better_than_shuffled_features():
    p = [
        clusters(
            items(np.random.default_rng(seed).normal(size=(30, 5))), n_permutations=19, n_bootstrap=0, seed=seed
        ).p_value
        for seed in range(20)
    ]
    assert (np.array(p) <= 0.05).sum() <= 4
    assert np.median(p) > 0.15


def test_the_silhouette_agrees_with_the_obvious_version():
    values = np.random.default_rng(1).normal(size=(25, 3))
    distances = clustering._distances(values)
    for number, labels in clustering._cuts(distances, range(2, 8)).items():
        fast = clustering._silhouettes(distances, {number: labels})[number]
        assert fast == pytest.approx(silhouette_score(values, labels))


def test_the_number_may_be_given_and_the_seed_decides():
    table, _ = blobs(2)
    assert clusters(table, n_clusters=5).n_clusters == 5
    assert clusters(table, seed=1).p_value == clusters(table, seed=1).p_value


def test_many_items_go_another_way(monkeypatch):
    monkeypatch.setattr(clustering, "MOST_ITEMS", 30)
    monkeypatch.setattr(clustering, "MOST_REDRAWN", 25)
    table, group = blobs(3)
    found = clusters(table)
    assert found.method == "k-means"
    assert "sample" in found.note
    assert agreement(found.labels, group).ari == 1


def test_unknown_items_are_in_no_cluster_and_few_are_not_clustered():
    table, _ = blobs(4)
    table[3] = np.nan
    assert clusters(table).labels.values[3] == -1
    few = clusters(items([[0.0], [1.0], [np.nan]]))
    assert few.labels.values.tolist() == [0, 0, -1]
    assert np.isnan(few.silhouette)
    assert "too few" in few.note


def test_identical_items():
    found = clusters(items(np.ones((6, 2))))
    assert found.n_clusters == 1
    assert found.p_value == 1


def test_clusters_of_a_trace_know_their_experts():
    found = routing_clusters(planted_trace(seed=0, n_tasks=4, n_prompts_a_task=3, with_logits=False))
    assert found.labels["layer"].sel(item="L02·E5") == "L02"


def test_agreement_by_hand():
    # the same partition under other names
    same = agreement([0, 0, 1, 1, 2, 2], ["c", "c", "a", "a", "b", "b"], n_permutations=500)
    assert (same.ami, same.ari) == (pytest.approx(1), pytest.approx(1))
    # of the 6!/(2!)³ = 90 dealings, the 3! renamings are as good: p ≈ 1/15
    assert same.p_value == pytest.approx(1 / 15, abs=0.035)


def test_agreement_is_that_of_the_library_and_its_null_holds():
    rng = np.random.default_rng(5)
    p = []
    for seed in range(20):
        one, other = rng.integers(0, 3, 40), rng.integers(0, 4, 40)
        found = agreement(one, other, n_permutations=200, seed=seed)
        assert found.ami == pytest.approx(adjusted_mutual_info_score(one, other))
        p.append(found.p_value)
        assert (found.ami > found.null_95) == (found.p_value < 0.05) or abs(found.p_value - 0.05) < 0.01
    assert (np.array(p) <= 0.05).sum() <= 4


def test_agreement_leaves_out_the_unknown():
    assert agreement([-1, 0, 0, 1], ["x", "a", "a", "b"]).n_items == 3
    assert np.isnan(agreement([-1, 0], ["a", "b"]).ami)
    with pytest.raises(SelectionError, match="labels"):
        agreement([0, 1], ["a"])


def tasks_signatures(profile):
    names = [f"t{number}" for number in range(len(profile[0]))]
    return items(profile, feature=names, task_type=("feature", ["x"] * 4 + ["y"] * 4))


def test_expert_clusters_line_up_with_planted_types():
    rng = np.random.default_rng(6)
    profile = np.concatenate([np.tile([1.0] * 4 + [0.0] * 4, (6, 1)), np.tile([0.0] * 4 + [1.0] * 4, (4, 1))])
    table = tasks_signatures(profile + rng.normal(0, 0.1, profile.shape))
    found = expert_task_types(table, clusters(table).labels)
    # 8 tasks in two types of 4: 35 ways to part them, of which one is as good: p ≈ 1/35
    assert found.p_value == pytest.approx(1 / 35, abs=0.02)
    assert found.explained_share > 0.9 > found.null_95
    assert found.table["mean"].sel(cluster=0, task_type="x") > 0.9
    assert found.table["n_experts"].values.tolist() == [6, 4]


def test_types_that_mean_nothing_do_not_line_up():
    p = []
    for seed in range(20):
        table = tasks_signatures(np.random.default_rng(seed).normal(size=(12, 8)))
        p.append(
            expert_task_types(table, clusters(table, n_permutations=0, n_bootstrap=0).labels, n_permutations=99).p_value
        )
    assert (np.array(p) <= 0.05).sum() <= 4


def test_one_type_cannot_be_told_from_others():
    trace = trace_of([[0, 1], [1, 2], [3, 0]], prompts=[0, 1, 2], tasks=("a", "b", "c"))
    table = signatures(trace, of="expert")
    found = expert_task_types(table, clusters(table).labels)
    assert np.isnan(found.p_value)
    with pytest.raises(SelectionError, match="task types"):
        expert_task_types(signatures(trace, of="prompt"), clusters(table).labels)


def test_tasks_clustered_by_route_agree_with_planted_types():
    types = {"extractive": 0, "classification": 1, "knowledge": 2}
    owners = {task: (3, types[kind]) for task, kind in TASKS.items() if kind in types}
    trace = planted_trace(seed=7, n_tasks=6, specialists=owners, strength=4.0, with_logits=False)
    table = signatures(trace, of="task")
    found = clusters(table, n_clusters=3)
    assert agreement(found.labels, table["task_type"]).ari == 1
