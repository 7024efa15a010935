from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.layouts import principal_components
from analysis.nearest import nearest_items
from analysis.token_places import nearest_tokens, token_places
from analysis.token_routes import route_features
from tests.traces import planted_trace, trace_of


def test_where_all_tokens_are_fitted_they_lie_where_principal_components_lie():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4)
    found = token_places(trace)
    wanted, explained = principal_components(route_features(trace, np.arange(trace.n_tokens)))
    np.testing.assert_allclose(found.points[["x", "y"]], wanted, atol=1e-5)
    assert found.explained_share == pytest.approx(explained)
    assert found.points["token"].tolist() == list(range(trace.n_tokens))


def test_of_a_few_fitted_tokens_all_others_are_placed_on_their_components():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=8)
    found = token_places(trace, n_fitted=120)
    assert found.n_fitted == 120
    assert len(found.points) == trace.n_tokens
    # Tokens of one route lie at one place.
    features = route_features(trace, np.arange(trace.n_tokens), values="selected").toarray()
    placed = token_places(trace, n_fitted=120, values="selected").points[["x", "y"]].to_numpy()
    _, first, which = np.unique(np.round(features, 5), axis=0, return_index=True, return_inverse=True)
    np.testing.assert_allclose(placed, placed[first][which.ravel()], atol=1e-5)


def test_a_draw_of_tokens_has_each_task_alike():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=8)
    points = token_places(trace, most_items=90).points
    assert len(points) == 90
    tasks = trace.prompts["task"].to_numpy()[points["prompt"]]
    assert {task: int((tasks == task).sum()) for task in set(tasks)} == dict.fromkeys(set(tasks), 30)


def test_the_nearest_tokens_by_hand():
    # Two layers. Token 0 and 3 choose alike; 1 shares one layer with them; 2 none.
    trace = trace_of([[[0], [1]], [[0], [2]], [[3], [3]], [[0], [1]]], n_experts=4)
    found = nearest_tokens(trace, token=0, n_nearest=3)
    assert found["token"].tolist() == [3, 1, 2]
    # √(2 − 2 overlap) of overlaps 1, ½ and 0.
    np.testing.assert_allclose(found["distance"], [0, 1, np.sqrt(2)], atol=1e-3)
    assert found.attrs["median"] == pytest.approx(1.0, abs=1e-3)


def test_the_nearest_items_by_hand():
    table = xr.DataArray([[0.0, 0], [3, 4], [np.nan, np.nan], [0, 1]], dims=("item", "feature"))
    found = nearest_items(table, item=0)
    assert found["item"].tolist() == [3, 1]
    assert found["distance"].tolist() == [1, 5]
    assert found.attrs["median"] == 3
    assert nearest_items(table, item=2).empty
