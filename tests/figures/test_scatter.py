import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.scatter import MOST_POINTS, PointColor, inside, kind_labels, scatter


def points(n, *, seed=0):
    rng = np.random.default_rng(seed)
    xy = rng.normal(size=(n, 2))
    return pd.DataFrame(
        {"x": xy[:, 0], "y": xy[:, 1], "name": [f"p{i}" for i in range(n)], "text": "task\n<i>text</i>"}
    )


def kinds(*values):
    return PointColor(title="Task", values=pd.Series(values), colors={"a": "#111111", "b": "#222222"})


def test_one_trace_a_kind_in_the_order_of_the_colors():
    figure = scatter(points(3), color=kinds("b", "a", "b"), mode="light")
    assert [(trace.name, trace.marker.color) for trace in figure.data] == [("a", "#111111"), ("b", "#222222")]
    assert figure.data[1].customdata.tolist() == [0, 2]


def test_a_kind_without_a_color_is_none_of_them_and_still_there():
    figure = scatter(points(3), color=kinds("a", None, "z"), mode="light")
    assert figure.data[-1].name == "none"
    assert figure.data[-1].customdata.tolist() == [1, 2]


def test_numbers_go_on_a_scale_and_unknown_ones_are_gray():
    color = PointColor(title="log₂ lift", values=pd.Series([-1.0, 3.0, np.nan]), center=0.0)
    unknown, known = scatter(points(3), color=color, mode="dark").data
    assert unknown.customdata.tolist() == [2]
    assert (known.marker.cmin, known.marker.cmax) == (-3.0, 3.0)


def test_picked_points_are_told_within_each_trace():
    figure = scatter(points(4), color=kinds("a", "b", "a", "b"), mode="light", picked=[2, 3])
    assert [list(trace.selectedpoints) for trace in figure.data] == [[1], [1]]


def test_texts_are_shown_not_obeyed():
    figure = scatter(points(1), color=kinds("a"), mode="light")
    assert "&lt;i&gt;text&lt;/i&gt;" in figure.data[0].text[0]


def test_shapes_tell_a_second_thing_and_are_in_the_legend():
    figure = scatter(points(2), color=kinds("a", "a"), mode="light", symbols=pd.Series(["right", "wrong"]))
    assert figure.data[0].marker.symbol.tolist() == ["circle", "diamond"]
    assert [trace.name for trace in figure.data[1:]] == ["right", "wrong"]


def test_too_many_points_become_a_density_and_a_sample_that_keeps_shares():
    n = MOST_POINTS + 10_000
    color = PointColor(title="Task", values=pd.Series(np.where(np.arange(n) < n // 4, "a", "b")))
    figure = scatter(points(n), color=color, mode="light")
    density, *traces = figure.data
    assert density.type == "heatmap"
    drawn = {trace.name: len(trace.x) for trace in traces}
    assert drawn["a"] / sum(drawn.values()) == pytest.approx(1 / 4, abs=0.001)
    assert len(figure.to_json()) < 3e6


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
