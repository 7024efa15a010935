from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.overload import overload_tasks, overload_tokens
from routing.errors import SelectionError
from tests.traces import WORDS, null_trace, planted_trace, random_trace, trace_of


def test_contributions_by_hand():
    # Task a: {0} {0} {0}, task b: {0} {1}: expert 0 has 4 of 5, an even share of 2 experts is 2.5, so 1.5 too many.
    # a brings 3 − 3/2 = 1.5, b brings 1 − 2/2 = 0. Without a the two are even.
    trace = trace_of([[0], [0], [0], [0], [1]], n_experts=2, prompts=[0, 0, 0, 1, 1], tasks=("a", "b"))
    table = overload_tasks(trace).loc["L00"]
    assert table["contribution"].tolist() == [1, 0]
    assert table["surplus"].tolist() == [1.5, 0]
    assert table["share_of_expert"].tolist() == [0.75, 0.25]
    assert table["max_over_mean_without"].tolist() == [1, 2]
    tokens = overload_tokens(
        trace_of(
            [[0], [0], [1], [0]],
            n_experts=2,
            prompts=[0, 0, 1, 1],
            tasks=("a", "b"),
            tokens=pd.DataFrame({"prompt": [0, 0, 1, 1], "token_id": [7, 7, 7, 9]}),
        ),
        layer="L00",
    )
    # Surplus 3 − 2 = 1: id 7 brings 2 − 3/2 = ½, id 9 brings 1 − ½ = ½.
    shown = tokens[["token_id", "contribution", "n_seen", "n_prompts"]].values.tolist()
    assert shown == [
        [7, 0.5, 3, 2],
        [9, 0.5, 1, 1],
    ]


def test_contributions_sum_to_one_and_chunks_do_not_matter():
    trace = planted_trace(seed=3, popular={(1, 5): 2.0})
    table = overload_tasks(trace, n_bootstrap=0)
    assert table["contribution"].groupby("layer").sum().tolist() == pytest.approx([1] * 4)
    tokens = overload_tokens(trace, layer="L01", n_shown=100, n_bootstrap=0)
    assert tokens["contribution"].sum() <= 1 + 1e-9
    every = len(set(trace.tokens["token_id"]))
    # Ids that relieve the expert are not listed only where it never takes them.
    assert len(tokens) <= every


def test_the_task_that_owns_the_hot_expert_is_blamed():
    trace = planted_trace(seed=5, specialists={"facts": (2, 6)}, strength=5.0, n_prompts_a_task=15)
    table = overload_tasks(trace).loc["L02"]
    assert set(table["expert"]) == {6}
    assert table["contribution"].idxmax() == "facts"
    assert table.loc["facts", "contribution_low"] > 0.7
    assert table.loc["facts", "max_over_mean_without"] < 1.35


def test_no_task_is_blamed_alone_where_every_task_overloads_alike():
    trace = null_trace(seed=6, popular={(1, 5): 3.0}, n_prompts_a_task=20)
    table = overload_tasks(trace).loc["L01"]
    assert (table["contribution_low"] < 1 / 6).all()
    assert (table["contribution_high"] > 1 / 6).all()


def test_a_token_that_always_goes_to_one_expert_leads():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, len(WORDS), 400)
    experts = np.where(ids == 3, 0, rng.integers(0, 4, 400))[:, None]
    tokens = pd.DataFrame({"prompt": np.repeat(np.arange(20), 20), "token_id": ids})
    trace = trace_of(experts, prompts=tokens["prompt"], tasks=("a",), tokens=tokens)
    table = overload_tokens(trace, layer="L00")
    assert table["expert"].iloc[0] == 0
    assert table["token_id"].iloc[0] == 3
    assert table["contribution_low"].iloc[0] > 0
    assert overload_tokens(trace, layer="L00", seed=1).equals(overload_tokens(trace, layer="L00", seed=1))


def test_unknown_layers_and_experts_are_refused():
    trace = random_trace(seed=0)
    with pytest.raises(SelectionError, match="L99"):
        overload_tokens(trace, layer="L99")
    with pytest.raises(SelectionError, match="not 8"):
        overload_tokens(trace, layer="L00", expert=8)
