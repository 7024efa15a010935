from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.experts import expert_profile
from routing import SelectionError
from tests.counted import counted
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, trace_of


def test_rates_shares_and_lift_by_hand():
    # Expert 0 is chosen by both tokens of p0 and one of two of p1 (task a), by none of four of p2 (task b).
    trace = trace_of(
        [[0, 1], [0, 2], [0, 1], [1, 2], [1, 2], [1, 3], [2, 3], [1, 2]],
        prompts=[0, 0, 1, 1, 2, 2, 2, 2],
        tasks=["a", "a", "b"],
    )
    profile = expert_profile(trace, layer="L00", expert=0)
    a, b = profile.by_task.loc["a"], profile.by_task.loc["b"]
    assert a["rate"] == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert b["rate"] == 0
    assert profile.overall_rate == pytest.approx(3 / 8)
    assert a["lift"] == pytest.approx(np.log2(0.75 / (3 / 8)))
    assert (a["share_of_expert"], a["share_of_tokens"]) == (1.0, 0.5)
    assert list(profile.prompts["prompt"]) == ["p0", "p1"]
    assert list(profile.prompts["rate"]) == [1.0, 0.5]
    # A task of one prompt has no spread to draw from.
    assert np.isnan(b["rate_low"])
    assert a["rate_low"] <= a["rate"] <= a["rate_high"]


def test_runners_up_do_not_count():
    trace = trace_of([[0, 1], [0, 1]], top_k=1)
    assert expert_profile(trace, layer="L00", expert=1).overall_rate == 0


def test_a_token_seen_often_ranks_above_one_seen_once():
    # Token 7 chooses expert 0 in 9 of 10 occurrences, token 8 in its only one.
    experts = [[0]] * 9 + [[1]] + [[0]]
    tokens = pd.DataFrame({"prompt": np.zeros(11, dtype=int), "token_id": [7] * 10 + [8]})
    trace = trace_of(experts, tokens=tokens, vocabulary={7: " seven", 8: " eight"})
    table = expert_profile(trace, layer="L00", expert=0).tokens
    assert list(table["piece"]) == [" seven", " eight"]
    assert list(table["n_seen"]) == [10, 1]
    # Wilson 1927, 9 of 10: 0.596; 1 of 1: 0.207.
    assert table["rate_low"].to_numpy() == pytest.approx([0.5958, 0.2065], abs=1e-3)


def test_a_planted_specialist_is_found_and_a_null_is_not():
    planted = expert_profile(planted_trace(seed=4, n_prompts_a_task=12), layer="L03", expert=1)
    best = planted.by_task["rate"].idxmax()
    assert best == "sentiment"
    assert planted.by_task.loc[best, "rate_low"] > planted.overall_rate
    null = expert_profile(null_trace(seed=4, n_prompts_a_task=12), layer="L03", expert=1).by_task
    inside = (null["rate_low"] <= null["rate"].mean()) & (null["rate"].mean() <= null["rate_high"])
    assert inside.mean() > 0.5


def test_tokens_of_the_other_stack_are_not_asked():
    trace = encoder_decoder_trace()
    n_read = int((trace.tokens["stack"] == "encoder").sum())
    profile = expert_profile(trace, layer="enc01", expert=2)
    assert profile.by_task["share_of_tokens"].sum() == pytest.approx(1)
    assert profile.prompts["n_tokens"].sum() <= n_read


def test_counts_give_rates_without_intervals():
    trace = planted_trace(seed=1)
    counts = counted(trace, with_prompts=False)
    full, few = (expert_profile(each, layer="L03", expert=2) for each in (trace, counts))
    # Prompts are of equal length here, so that means over prompts and over tokens agree.
    np.testing.assert_allclose(full.by_task["rate"], few.by_task["rate"])
    np.testing.assert_allclose(full.by_task["share_of_expert"], few.by_task["share_of_expert"])
    assert few.tokens is None
    assert few.by_task["rate_low"].isna().all()


@pytest.mark.parametrize(("layer", "expert"), [("L99", 0), ("L00", 4), ("L00", -1)])
def test_an_expert_that_is_not_there_is_named(layer, expert):
    with pytest.raises(SelectionError, match=r"L99|experts 0 to 3"):
        expert_profile(trace_of([[0, 1]]), layer=layer, expert=expert)
