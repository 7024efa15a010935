import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.map_places import inside, kind_labels


def points(n, *, seed):
    xy = np.random.default_rng(seed).normal(size=(n, 2))
    return pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1]})


def test_a_kind_is_named_where_it_lies_together_and_not_where_it_is_spread():
    # Ten points in each of two corners, ten all over the place.
    rng = np.random.default_rng(0)
    corners = np.concatenate([rng.normal(0, 0.1, (10, 2)), rng.normal(10, 0.1, (10, 2)), rng.uniform(0, 10, (10, 2))])
    cloud = pd.DataFrame(corners, columns=["x", "y"])
    found = kind_labels(cloud, pd.Series(["low"] * 10 + ["high"] * 10 + ["spread"] * 10))
    assert sorted(found["text"]) == ["high", "low"]
    low = found.set_index("text").loc["low"]
    assert abs(low["x"]) < 0.3
    assert low["y"] > np.median(corners[:10, 1])


def test_kinds_in_one_place_share_a_label():
    rng = np.random.default_rng(0)
    cloud = pd.DataFrame(np.concatenate([rng.normal(0, 0.1, (30, 2)), [[9.0, 9.0]] * 40]), columns=["x", "y"])
    found = kind_labels(cloud, pd.Series(["a", "b", "c"] * 10 + ["far"] * 40))
    assert sorted(found["text"]) == ["a, b +1", "far"]


def test_inside_a_triangle():
    # (1, 1) lies in the triangle (0,0) (4,0) (0,4); (3, 3) in its bounding box only
    corners = pd.DataFrame({"x": [1.0, 3.0, -1.0], "y": [1.0, 3.0, 1.0]})
    assert inside(corners, polygons=[([0, 4, 0], [0, 0, 4])]).tolist() == [0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_inside_agrees_with_a_cross_product_for_convex_polygons(seed):
    cloud = points(50, seed=seed)
    angles = np.sort(np.random.default_rng(seed).uniform(0, 2 * np.pi, 6))
    x, y = np.cos(angles), np.sin(angles)
    slow = [
        row
        for row, (px, py) in enumerate(zip(cloud["x"], cloud["y"], strict=True))
        if all((x[(i + 1) % 6] - x[i]) * (py - y[i]) - (y[(i + 1) % 6] - y[i]) * (px - x[i]) > 0 for i in range(6))
    ]
    assert inside(cloud, polygons=[(x, y)]).tolist() == slow
