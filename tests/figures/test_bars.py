from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.bars import score_dots, share_bars, task_bars

TYPES = {"a": "code", "b": "knowledge", "c": "code"}


def test_bars_keep_the_order_and_the_values_of_the_table():
    table = pd.DataFrame({"value": [0.3, 0.1, 0.2]}, index=["c", "b", "a"])
    figure = task_bars(table, value_title="share of tokens", task_types=TYPES, reference=0.15)
    values = {
        (bar.text[i], y): x
        for bar in figure.data
        if bar.type == "bar"
        for i, (x, y) in enumerate(zip(bar.x, bar.y, strict=True))
    }
    assert values == {("c", 0): 0.3, ("b", 1): 0.1, ("a", 2): 0.2}
    assert list(figure.layout.yaxis.ticktext) == ["c", "b", "a"]
    assert figure.layout.xaxis.title.text == "share of tokens"
    line = next(trace for trace in figure.data if trace.name == "all tasks")
    assert list(line.x) == [0.15, 0.15]
    assert list(line.y) == [-0.5, 2.5]


def test_intervals_reach_from_low_to_high():
    table = pd.DataFrame({"value": [0.3], "value_low": [0.25], "value_high": [0.4]}, index=["a"])
    (bar,) = task_bars(table, value_title="rate", task_types=TYPES).data
    assert bar.error_x.array[0] == pytest.approx(0.1)
    assert bar.error_x.arrayminus[0] == pytest.approx(0.05)


def test_a_task_without_interval_has_a_bar_only():
    table = pd.DataFrame({"value": [0.3], "value_low": [np.nan], "value_high": [np.nan]}, index=["a"])
    (bar,) = task_bars(table, value_title="rate", task_types=TYPES).data
    assert bar.error_x.array is None


def test_shares_are_ordered_by_surplus_and_marked_with_what_was_expected():
    table = pd.DataFrame(
        {"share_of_expert": [0.2, 0.7, 0.1], "share_of_tokens": [0.5, 0.4, 0.1]}, index=["a", "b", "c"]
    )
    figure = share_bars(table, task_types=TYPES)
    # Surplus: a −0.3, b +0.3, c 0.
    assert list(figure.layout.yaxis.ticktext) == ["b", "c", "a"]
    expected = next(trace for trace in figure.data if trace.name == "share of the tokens")
    assert list(expected.x) == [0.4, 0.1, 0.5]


def test_scores_stand_beside_their_baseline():
    scores = pd.DataFrame(
        {
            "score": [0.8, 0.2],
            "score_low": [0.7, 0.1],
            "score_high": [0.9, 0.3],
            "baseline": [0.5, np.nan],
            "metric": ["accuracy", "token_f1"],
            "n_prompts": [40, 40],
        },
        index=["a", "b"],
    )
    figure = score_dots(scores, task_types=TYPES)
    ticks = next(trace for trace in figure.data if trace.name == "most frequent answer")
    assert (list(ticks.x), list(ticks.y)) == ([0.5], [0])
    dots = {trace.name: trace for trace in figure.data}
    assert list(dots["code"].x) == [0.8]
    assert dots["code"].error_x.array[0] == pytest.approx(0.1)
