from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.scores import task_scores
from routing import RoutingTrace
from tests.traces import facts_of


def table_of(**columns) -> pd.DataFrame:
    n_prompts = len(columns["task"])
    prompts = pd.DataFrame({"prompt": [f"p{n}" for n in range(n_prompts)], "task_type": "other", "text": "", **columns})
    trace = RoutingTrace.from_arrays(
        np.tile([0, 1], (n_prompts, 1, 1)),
        layer_facts=facts_of(1, n_experts=4),
        scores=np.tile(np.float32([0.5, 0.25]), (n_prompts, 1, 1)),
        weights=np.tile(np.float32([0.5, 0.5]), (n_prompts, 1, 1)),
        tokens=pd.DataFrame({"prompt": np.arange(n_prompts)}),
        prompts=prompts,
    )
    return task_scores(trace)


def test_the_mean_its_interval_and_the_constant_answer():
    table = table_of(
        task=["a"] * 4,
        target=["yes", "yes ", "yes", "no"],
        score=[1.0, 0.0, 1.0, 1.0],
        metric=["accuracy"] * 4,
    )
    row = table.loc["a"]
    assert row["score"] == 0.75
    assert row["score_low"] < 0.75 < row["score_high"]
    # Three of four targets are "yes", blanks around it aside.
    assert (row["baseline"], row["baseline_answer"]) == (0.75, "yes")


@pytest.mark.parametrize(
    ("metric", "target"),
    [("token_f1", ["x", "x", "y"]), ("exact_match", ["x", "y", "z"]), ("exact_match", ["", "", ""])],
)
def test_where_a_constant_answer_means_nothing_there_is_none(metric, target):
    table = table_of(task=["a"] * 3, target=target, score=[1.0, 0.0, 0.0], metric=[metric] * 3)
    assert np.isnan(table.loc["a", "baseline"])


def test_what_was_not_scored_is_unknown_not_zero():
    table = table_of(task=["a", "a", "b"], target=["x"] * 3, score=[1.0, np.nan, np.nan], metric=["exact_match"] * 3)
    assert table.loc["a", "score"] == 1.0
    assert table.loc["a", "n_scored"] == 1
    assert np.isnan(table.loc["a", "score_low"])  # one score has no spread
    assert np.isnan(table.loc["b", "score"])
    assert list(table.index) == ["a", "b"]
