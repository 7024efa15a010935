from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from analysis import quality as quality_module
from analysis.maps import routing_map, stored_map
from analysis.projection import project
from analysis.quality import map_quality
from analysis.signatures import signatures
from routing import open_trace, save_trace
from routing.errors import SelectionError
from tests.traces import planted_trace, random_trace, trace_of


def items(values, **coords):
    return xr.DataArray(
        np.asarray(values, dtype=float), dims=("item", "feature"), coords={"item": np.arange(len(values)), **coords}
    )


def test_quality_agrees_with_the_library():
    rng = np.random.default_rng(0)
    values, points = rng.normal(size=(60, 5)), rng.normal(size=(60, 2))
    found = map_quality(values, points, n_neighbors=7)
    assert found.trustworthiness == pytest.approx(trustworthiness(values, points, n_neighbors=7))
    assert found.continuity == pytest.approx(trustworthiness(points, values, n_neighbors=7))


def test_a_perfect_map_and_a_random_one():
    values = np.random.default_rng(1).normal(size=(200, 2))
    perfect = map_quality(values, 3 * values + 1, n_neighbors=10)
    assert (perfect.trustworthiness, perfect.continuity, perfect.neighbor_preservation) == (1, 1, 1)
    random = map_quality(values, np.random.default_rng(2).normal(size=(200, 2)), n_neighbors=10)
    assert random.trustworthiness < 0.6
    assert random.neighbor_preservation == pytest.approx(random.chance_preservation, abs=0.03)


def test_a_sample_of_items_estimates_the_quality(monkeypatch):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(300, 4))
    whole = map_quality(values, values[:, :2])
    monkeypatch.setattr(quality_module, "MOST_ASKED", 100)
    part = map_quality(values, values[:, :2])
    assert part.n_asked == 100
    assert part.trustworthiness == pytest.approx(whole.trustworthiness, abs=0.03)


def test_few_items_have_no_quality():
    assert np.isnan(map_quality(np.zeros((3, 2)), np.zeros((3, 2))).trustworthiness)


@pytest.mark.parametrize("shape", [(30, 6), (6, 30)])
def test_principal_components_are_those_of_the_library(shape):
    values = np.random.default_rng(4).normal(size=shape)
    found = project(items(values), method="pca")
    library = PCA(2).fit(values)
    theirs = library.transform(values)
    mine = found.points[["x", "y"]].to_numpy()
    assert np.allclose(np.abs(mine), np.abs(theirs))
    assert found.options["explained_share"] == pytest.approx(library.explained_variance_ratio_.sum())


def test_few_items_fall_back_with_a_sentence():
    found = project(items(np.random.default_rng(5).normal(size=(5, 3))), method="umap")
    assert found.method == "pca"
    assert "too few for UMAP" in found.note


@pytest.mark.parametrize("n_items", [0, 1, 2])
def test_hardly_any_items(n_items):
    found = project(items(np.ones((n_items, 3))), method="umap")
    assert len(found.points) == n_items
    assert np.isnan(found.trustworthiness)


def test_unknown_items_are_not_on_the_map_and_it_says_so():
    values = np.random.default_rng(6).normal(size=(12, 3))
    values[4] = np.nan
    found = project(items(values), method="pca")
    assert 4 not in found.points["item"].tolist()
    assert "1 items without any number" in found.note


def test_a_sample_keeps_the_shares_of_tasks():
    task = np.repeat(["a", "b"], [300, 100])
    found = project(
        items(np.random.default_rng(7).normal(size=(400, 3)), task=("item", task)), method="pca", most_items=40
    )
    assert found.points["task"].value_counts().to_dict() == {"a": 30, "b": 10}
    assert "40 of 400" in found.note


def test_points_carry_what_names_them():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=3, with_logits=False)
    prompts = project(signatures(trace, of="prompt"), method="pca").points
    assert {"item", "x", "y", "task", "task_type", "score"} <= set(prompts.columns)
    experts = routing_map(trace, of="expert", method="pca").points
    assert {"item", "x", "y", "layer", "expert"} <= set(experts.columns)
    assert experts["item"][0] == "L00·E0"


def test_a_map_is_kept_beside_its_trace(tmp_path):
    trace = open_trace(save_trace(random_trace(seed=1), tmp_path / "run"))
    made = routing_map(trace, method="pca", n_neighbors=4)
    kept = stored_map(trace, method="pca", n_neighbors=4)
    assert kept is not None
    assert np.allclose(kept.points[["x", "y"]], made.points[["x", "y"]])
    assert kept.points["item"].tolist() == made.points["item"].tolist()
    assert (kept.quality, kept.options, kept.note) == (made.quality, made.options, made.note)
    assert stored_map(trace, method="pca", n_neighbors=5) is None


def test_a_trace_in_memory_keeps_no_map():
    trace = random_trace(seed=0)
    routing_map(trace, method="pca")
    assert stored_map(trace, method="pca") is None


def test_an_unknown_method_is_refused():
    with pytest.raises(SelectionError, match="tsne"):
        project(signatures(trace_of([[0, 1]])), method="tsne")


@pytest.mark.slow  # the first import of UMAP compiles for half a minute
def test_umap_parts_planted_groups_and_repeats_itself():
    group = np.repeat(np.arange(3), 20)
    values = np.random.default_rng(8).normal(size=(60, 6)) + 10 * np.eye(3, 6)[group]
    first, again = (project(items(values), seed=1) for _ in range(2))
    assert first.method == "umap"
    assert first.points.equals(again.points)
    points = first.points[["x", "y"]].to_numpy()
    centers = np.stack([points[group == number].mean(axis=0) for number in range(3)])
    nearest = ((points[:, None] - centers) ** 2).sum(axis=-1).argmin(axis=1)
    assert (nearest == group).all()
    assert first.trustworthiness > 0.8


def test_quality_agrees_with_the_formula_written_out():
    rng = np.random.default_rng(9)
    values, points = rng.normal(size=(24, 4)), rng.normal(size=(24, 2))
    n, k = 24, 5

    def ranks(table):
        apart = np.sqrt(((table[:, None] - table) ** 2).sum(axis=2))
        rank = np.zeros((n, n), dtype=int)
        for one in range(n):
            others = sorted((each for each in range(n) if each != one), key=lambda each, one=one: apart[one, each])
            for place, other in enumerate(others, start=1):
                rank[one, other] = place
        return rank

    truth, drawn = ranks(values), ranks(points)
    false, torn, kept = 0, 0, 0
    for one in range(n):
        for other in range(n):
            if one != other:
                near, near_drawn = truth[one, other] <= k, drawn[one, other] <= k
                false += (truth[one, other] - k) * (near_drawn and not near)
                torn += (drawn[one, other] - k) * (near and not near_drawn)
                kept += near and near_drawn
    scale = 2 / (n * k * (2 * n - 3 * k - 1))
    found = map_quality(values, points, n_neighbors=k)
    assert found.trustworthiness == pytest.approx(1 - scale * false)
    assert found.continuity == pytest.approx(1 - scale * torn)
    assert found.neighbor_preservation == pytest.approx(kept / (n * k))


def test_quality_by_hand():
    # five items at 0, 1, 2, 4, 7; the map exchanges the outer two; k = 1, and of a tie the first is nearest
    #   nearest in truth: 1, 0, 1, 2, 3; on the map (7, 1, 2, 4, 0): 3, 2, 1, 2, 1: two of five are kept
    #   false: item 0 has 3 (rank 3 in truth), 1 has 2 (rank 2), 4 has 1 (rank 3): 2 + 1 + 2 = 5
    #   torn: item 0 lost 1 (rank 3 on the map), 1 lost 0 (rank 4), 4 lost 3 (rank 3): 2 + 3 + 2 = 7
    values = np.array([[0.0], [1.0], [2.0], [4.0], [7.0]])
    points = np.array([[7.0, 0], [1.0, 0], [2.0, 0], [4.0, 0], [0.0, 0]])
    found = map_quality(values, points, n_neighbors=1)
    assert found.neighbor_preservation == pytest.approx(2 / 5)
    assert found.trustworthiness == pytest.approx(1 - 2 / (5 * 1 * (10 - 3 - 1)) * 5)
    assert found.continuity == pytest.approx(1 - 2 / (5 * 1 * (10 - 3 - 1)) * 7)


def test_a_shuffled_map_keeps_what_chance_keeps():
    values = np.random.default_rng(10).normal(size=(400, 2))
    found = map_quality(values, values, n_neighbors=10)
    assert found.trustworthiness == 1
    assert found.shuffled_trustworthiness == pytest.approx(0.5, abs=0.05)
    assert found.shuffled_continuity == pytest.approx(0.5, abs=0.05)
    assert found.shuffled_preservation == pytest.approx(found.chance_preservation, abs=0.02)
