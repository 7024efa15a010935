import numpy as np
import pandas as pd
import pytest

from figures.scatter import MOST_POINTS, PointColor, scatter


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


def test_ringed_points_are_found_whatever_lies_on_them():
    placed = points(3)
    ring = scatter(placed, color=kinds("a", "b", "b"), mode="dark", ringed=(1,), ringed_name="prototype").data[-1]
    assert (ring.name, ring.legendrank, ring.hoverinfo) == ("prototype", 1, "skip")
    assert [*ring.x, *ring.y] == pytest.approx([placed["x"][1], placed["y"][1]])
    assert ring.customdata.tolist() == [1]


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
