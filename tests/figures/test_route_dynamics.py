from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from figures.route_dynamics import correlation_curves
from figures.theme import color_of_task_types
from tests.adapter_traces import task_moe_trace


def table_of(steps, **columns):
    rows = [(step, feature, "L00", e) for step in steps for feature, e in (("extractive", 0), ("odd <b>", 2))]
    index = pd.MultiIndex.from_tuples(rows, names=["step", "feature", "layer", "expert"])
    return pd.DataFrame({"r": np.linspace(-0.5, 0.9, len(rows)), "null_95": 0.4, "p_value": 0.1} | columns, index=index)


def test_a_line_an_expert_between_the_lines_of_chance():
    figure = correlation_curves(table_of([0, 100]))
    high, low, first, second = figure.data
    assert (list(high.y), list(low.y)) == ([0.4, 0.4], [-0.4, -0.4])
    assert first.name == "extractive: L00·E0"
    assert second.name == "odd &lt;b&gt;: L00·E2"
    assert list(first.y) == pytest.approx([-0.5, -0.5 + 2 * 1.4 / 3])
    assert first.line.color == color_of_task_types(["extractive", "odd <b>"])["extractive"]
    assert figure.layout.xaxis.title.text == "training step"
    assert "r" in figure.layout.yaxis.title.text


def test_early_snapshots_are_told_apart():
    figure = correlation_curves(table_of([0, 10, 20, 5000]))
    assert list(figure.data[2].x) == [0, 1, 2, 3]
    assert "not to scale" in figure.layout.xaxis.title.text


def test_names_of_experts_are_used_where_there_are_any():
    figure = correlation_curves(table_of([0], name="retriever·spans"))
    assert figure.data[2].name == "extractive: retriever·spans"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_what_the_analysis_gives_is_drawn(mode):
    traces = {1: task_moe_trace(soft=True, specialists={}), 5: task_moe_trace(soft=True)}
    found = analysis.route_dynamics(traces, n=2, n_permutations=10)
    figure = correlation_curves(found.correlations, mode=mode)
    assert len(figure.data) == 2 + 8
    assert {trace.line.dash for trace in figure.data[2:4]} == {"solid", "dash"}
